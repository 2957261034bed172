"""7-Scenes folders: ``frame-XXXXXX.color.png|jpg``, ``.pose.txt`` (world_from_camera), optional ``.depth.png``.

One folder of frames, or the published scene folder with its ``seq-01``, ``seq-02``, ... and its
``TrainSplit.txt``/``TestSplit.txt``, which become the split ``official``.

Intrinsics come from ``camera-intrinsics.txt`` (3x3), the depth camera's from ``depth-intrinsics.txt``. Without these
files 640x480 images are taken for the Kinect of Shotton et al. (CVPR 2013), which publishes none for colour: f = 525 is
what its colour frames obey. The dataset's published 585 is the depth camera's, whose images are not registered to colour.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from dimm_ros.data.image_file import image_size, load_depth_mm, load_rgb
from dimm_ros.data.recording import Frame, Recording
from dimm_ros.data.splits import Splits, read_splits
from dimm_ros.errors import DataError
from dimm_ros.geometry import poses
from dimm_ros.geometry.camera import Camera

_COLOUR = re.compile(r"frame-(\d+)\.color\.(?:png|jpe?g)", re.IGNORECASE)
_SEQUENCE = re.compile(r"seq-(\d+)")
_RATE_HZ = 30
_SEQUENCE_NS = 3600 * 10**9  # sequences have no times: an hour apart keeps them in order and never adjacent
_KINECT_SIZE, _KINECT_COLOUR_F, _KINECT_DEPTH_F = (640, 480), 525.0, 585.0
_RIGID_TOLERANCE = 0.02  # of R^T R from identity; text files round, but a scaled or sheared matrix is no pose


def is_seven_scenes(folder: Path) -> bool:
    """Whether a folder looks like a 7-Scenes sequence or scene."""
    return any(_frames_in(folder)) or any(any(_frames_in(sequence)) for sequence in _sequences(folder))


def read_seven_scenes(folder: str | Path) -> Recording:
    """Read a 7-Scenes sequence or scene folder.

    Frames without a pose file, or whose pose is not finite and rigid, are left out with a note.

    Raises:
        DataError: no frame, no usable pose, intrinsics that are missing or malformed, or a malformed split.json.
    """
    folder = Path(folder)
    sequences = _sequences(folder) if not any(_frames_in(folder)) else []
    frames: list[Frame] = []
    index_of: dict[int, int] = {}
    sequence_of: list[int] = []
    unposed = 0
    for part, number in [(sequence, int(_SEQUENCE.fullmatch(sequence.name).group(1))) for sequence in sequences] or [(folder, 0)]:
        colours = sorted(_frames_in(part))
        if not colours:
            continue
        camera = _camera(part, "camera-intrinsics.txt", image_size(colours[0][1]), _KINECT_COLOUR_F)
        depth_camera = None
        for count, colour in colours:
            pose = _read_pose(part / f"{_stem(colour)}.pose.txt")
            if pose is None:
                unposed += 1
                continue
            depth = part / f"{_stem(colour)}.depth.png"
            has_depth = depth.exists()
            if has_depth and depth_camera is None:
                depth_camera = _camera(part, "depth-intrinsics.txt", image_size(depth), _KINECT_DEPTH_F)
            if not sequences:
                index_of[count] = len(frames)
            sequence_of.append(number)
            frames.append(
                Frame(
                    name=f"{part.name}/{_stem(colour)}" if sequences else _stem(colour),
                    stamp_ns=number * _SEQUENCE_NS + round(count * 10**9 / _RATE_HZ),
                    camera=camera,
                    world_from_camera=pose,
                    load=partial(load_rgb, colour, camera),
                    load_depth=partial(load_depth_mm, depth) if has_depth else None,
                    depth_camera=depth_camera if has_depth else None,
                )
            )
    if not frames:
        raise DataError(f"'{folder}' has no frame with a colour image and a valid pose file (frame-XXXXXX.color.png, .pose.txt).")
    notes = [f"{unposed} frames without a valid pose were left out."] if unposed else []
    splits: Splits = _official_splits(folder, sequence_of) if sequences else {}
    if not sequences and (folder / "split.json").exists():
        splits, absent = read_splits(folder / "split.json", index_of)
        if absent:
            notes.append(f"{absent} frames of split.json are not in the folder or have no valid pose.")
    name = folder.resolve().name
    return Recording(name=name, source=f"7-Scenes folder {name}", frames=frames, splits=splits, notes=tuple(notes))


def _frames_in(folder: Path):
    """(number, path) of the colour images right in a folder, in no order."""
    return ((int(match.group(1)), path) for path in folder.iterdir() if (match := _COLOUR.fullmatch(path.name)))


def _sequences(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _SEQUENCE.fullmatch(path.name) and path.is_dir())


def _stem(colour: Path) -> str:
    return colour.name.split(".", 1)[0]


def _read_pose(path: Path) -> np.ndarray | None:
    """(4, 4) pose, its rotation made exactly orthonormal; None where there is none that is finite and rigid."""
    try:
        pose = np.loadtxt(path, dtype=np.float64)
    except (OSError, ValueError):
        return None
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        return None
    rotation = pose[:3, :3]
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > _RIGID_TOLERANCE or np.linalg.det(rotation) < 0:
        return None
    return poses.make_pose(Rotation.from_matrix(rotation).as_matrix(), pose[:3, 3])


def _camera(folder: Path, name: str, size: tuple[int, int], kinect_focal: float) -> Camera:
    """Intrinsics of a folder's file (or its parent's, for a sequence), or the Kinect's where the size is its own."""
    places = [folder, folder.parent] if _SEQUENCE.fullmatch(folder.name) else [folder]
    path = next((place / name for place in places if (place / name).exists()), None)
    if path is None:
        if size != _KINECT_SIZE:
            raise DataError(f"'{folder}' has no {name} (a 3x3 matrix), which images of {size[0]}x{size[1]} need.")
        return Camera(*size, kinect_focal, kinect_focal, size[0] / 2, size[1] / 2)
    try:
        matrix = np.loadtxt(path, dtype=np.float64)
    except (OSError, ValueError):
        matrix = np.empty(0)
    if matrix.shape[:1] not in ((3,), (4,)) or matrix.ndim != 2:
        raise DataError(f"'{path}' must hold a 3x3 intrinsic matrix.")
    return Camera(*size, *(float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2))))


def _official_splits(folder: Path, sequence_of: list[int]) -> Splits:
    """The published TrainSplit.txt and TestSplit.txt, whose lines name sequences ("sequence1")."""
    parts = {}
    for part, name in (("train", "TrainSplit.txt"), ("val", "TestSplit.txt")):
        if (folder / name).exists():
            chosen = {int(number) for number in re.findall(r"\d+", (folder / name).read_text(encoding="utf-8"))}
            parts[part] = [index for index, sequence in enumerate(sequence_of) if sequence in chosen]
    return {"official": parts} if parts else {}
