"""7-Scenes folders: ``frame-XXXXXX.color.png|jpg``, ``.pose.txt`` (world_from_camera), optional ``.depth.png``
(millimetres).

One folder of frames, or the published scene folder with its ``seq-01``, ``seq-02``, ... and its
``TrainSplit.txt``/``TestSplit.txt``, which become the split ``official``. The format is described on the data set's
page at Microsoft Research ("RGB-D Dataset 7-Scenes").

Intrinsics come from ``camera-intrinsics.txt`` (3x3), the depth camera's from ``depth-intrinsics.txt``. Without these
files 640x480 images are taken for the Kinect of Shotton et al. (CVPR 2013), which publishes none for colour: f = 525 is
what its colour frames obey. The dataset's published 585 is the depth camera's, whose images are not registered to
colour.
"""

from __future__ import annotations

import re
from pathlib import Path

from dimm_ros.data.folder import FolderFrames, camera_of, invented_stamp, read_intrinsics, read_pose, read_text
from dimm_ros.data.image_file import image_size
from dimm_ros.data.recording import Recording
from dimm_ros.errors import DataError
from dimm_ros.geometry.camera import Camera

LAYOUT = "7-Scenes"

_COLOUR = re.compile(r"frame-(\d+)\.color\.(?:png|jpe?g)", re.IGNORECASE)
_SEQUENCE = re.compile(r"seq-(\d+)")
_KINECT_SIZE, _KINECT_COLOUR_F, _KINECT_DEPTH_F = (640, 480), 525.0, 585.0


def is_seven_scenes(folder: Path) -> bool:
    """Whether a folder looks like a 7-Scenes sequence or scene."""
    return any(colour_frames(folder)) or any(any(colour_frames(sequence)) for sequence in _sequences(folder))


def read_seven_scenes(folder: str | Path) -> Recording:
    """Read a 7-Scenes sequence or scene folder.

    Frames without a pose file, or whose pose is not finite and rigid, are left out with a note.

    Raises:
        DataError: no frame, no usable pose, or intrinsics that are missing or malformed.
    """
    folder = Path(folder)
    sequences = _sequences(folder) if not any(colour_frames(folder)) else []
    part_of = _published_parts(folder) if sequences else {}
    frames = FolderFrames(folder, LAYOUT)
    for place, number in [(sequence, int(_SEQUENCE.fullmatch(sequence.name).group(1))) for sequence in sequences] or [
        (folder, 0)
    ]:
        colours = sorted(colour_frames(place))
        if not colours:
            continue
        camera = camera_of(
            colours[0][1], lambda size, place=place: _camera(place, "camera-intrinsics.txt", size, _KINECT_COLOUR_F)
        )
        depth_camera = None
        for count, colour in colours:
            stem = colour.name.split(".", 1)[0]
            depth = place / f"{stem}.depth.png"
            if depth_camera is None and depth.exists():
                depth_camera = _camera(place, "depth-intrinsics.txt", image_size(depth), _KINECT_DEPTH_F)
            frames.add(
                f"{place.name}/{stem}" if sequences else stem,
                colour,
                camera,
                read_pose(place / f"{stem}.pose.txt"),
                invented_stamp(count, number),
                part=part_of.get(number),
                depth=depth,
                depth_camera=depth_camera,
            )
    return frames.recording()


def colour_frames(folder: Path):
    """(number, path) of the images named frame-XXXXXX.color.* right in a folder, in no order."""
    return ((int(match.group(1)), path) for path in folder.iterdir() if (match := _COLOUR.fullmatch(path.name)))


def _sequences(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _SEQUENCE.fullmatch(path.name) and path.is_dir())


def _camera(folder: Path, name: str, size: tuple[int, int], kinect_focal: float) -> Camera:
    """Intrinsics of a folder's file (or its parent's, for a sequence), or the Kinect's where the size is its own."""
    places = [folder, folder.parent] if _SEQUENCE.fullmatch(folder.name) else [folder]
    path = next((place / name for place in places if (place / name).exists()), None)
    if path is not None:
        return read_intrinsics(path, size)
    if size != _KINECT_SIZE:
        raise DataError(f"'{folder}' has no {name} (a 3x3 matrix), which images of {size[0]}x{size[1]} need.")
    return Camera(*size, kinect_focal, kinect_focal, size[0] / 2, size[1] / 2)


def _published_parts(folder: Path) -> dict[int, str]:
    """Sequence -> part, of TrainSplit.txt and TestSplit.txt, whose lines name sequences ("sequence1")."""
    parts = {}
    for part, name in (("train", "TrainSplit.txt"), ("val", "TestSplit.txt")):
        if (folder / name).exists():
            parts |= {int(number): part for number in re.findall(r"\d+", read_text(folder / name))}
    return parts
