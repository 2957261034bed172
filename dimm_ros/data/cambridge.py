"""Cambridge Landmarks (Kendall et al., ICCV 2015): a scene folder such as ``KingsCollege``.

``dataset_train.txt`` and ``dataset_test.txt`` have three lines of heading, then ``seq1/frame00001.png X Y Z W P Q R``:
the camera's centre in the world and the quaternion (w first) of camera_from_world. ``reconstruction.nvm`` of VisualSFM
has ``image.jpg f w x y z cx cy cz r 0`` for each image. The principal point is the image's centre. r bends the other
way than OpenCV's k: VisualSFM's undistorted point is (1 + r |m|^2) m of the measured m (as COLMAP exports it, r = -k),
so k1 = -r and k2 = 3 r^2 are its inverse up to the sixth power. Sources: the data set's page at Cambridge, VisualSFM's
page on NVM, ACE's setup_cambridge.py (which leaves r aside).
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from dimm_ros.data.folder import (
    FolderFrames,
    centred,
    from_wxyz,
    invented_stamp,
    listed_file,
    parsing,
    read_text,
    require,
    text_rows,
)
from dimm_ros.data.recording import Recording
from dimm_ros.geometry import poses

LAYOUT = "Cambridge Landmarks"

_HEADING = 3
_FARTHEST = 10_000.0  # metres from the origin; a few images of the reconstructions are lost beyond


def is_cambridge(folder: Path) -> bool:
    """Whether a folder looks like a scene of Cambridge Landmarks."""
    return (folder / "dataset_train.txt").is_file() or (folder / "dataset_test.txt").is_file()


def read_cambridge(folder: str | Path) -> Recording:
    """Read a scene folder of Cambridge Landmarks.

    Raises:
        DataError: a file is missing or malformed, or no image has a pose and a focal length.
    """
    folder = Path(folder)
    require(folder, LAYOUT, "dataset_train.txt", "dataset_test.txt", "reconstruction.nvm")
    lenses = _lenses(folder / "reconstruction.nvm")
    listed: dict[str, tuple[str, list[float]]] = {}
    for part, name in (("train", "dataset_train.txt"), ("val", "dataset_test.txt")):
        with parsing(folder / name, LAYOUT):
            for line in read_text(folder / name).splitlines()[_HEADING:]:
                if line.strip():
                    image, *numbers = line.split()
                    image = image.replace("\\", "/")
                    listed[image] = part, [float(number) for number in numbers[:7]]
                    if len(numbers) < 7:
                        raise ValueError(f"{image} has {len(numbers)} numbers, not 7")
    frames, without = FolderFrames(folder, LAYOUT), 0
    sequences = {
        sequence: index for index, sequence in enumerate(sorted({PurePosixPath(image).parent for image in listed}))
    }
    counts = dict.fromkeys(sequences, 0)
    for image, (part, numbers) in sorted(listed.items()):
        sequence = PurePosixPath(image).parent
        counts[sequence] += 1
        lens = lenses.get(_stem(image))
        if lens is None:
            without += 1
            continue
        frames.add(
            image,
            listed_file(folder, image),
            lambda size, lens=lens: _camera(lens, size),
            _pose(numbers),
            invented_stamp(counts[sequence] - 1, sequences[sequence]),
            part=part,
        )
    notes = [f"{without} images without a focal length in reconstruction.nvm were left out."] if without else []
    return frames.recording(notes)


def _pose(numbers: list[float]):
    """world_from_camera of X Y Z W P Q R."""
    if max(abs(value) for value in numbers[:3]) > _FARTHEST:
        return None
    world_from_camera = from_wxyz(numbers[3:], (0.0, 0.0, 0.0))
    return None if world_from_camera is None else poses.make_pose(world_from_camera[:3, :3].T, numbers[:3])


def _camera(lens: tuple[float, float], size: tuple[int, int]):
    focal, r = lens
    return centred(focal, size, (-r, 3 * r * r, 0.0, 0.0) if r else ())


def _lenses(path: Path) -> dict[str, tuple[float, float]]:
    """Image without its extension -> focal length in pixels and radial distortion."""
    with parsing(path, LAYOUT):
        rows = text_rows(path)
        if not rows[0][0].startswith("NVM_V3"):
            raise ValueError("it does not begin with NVM_V3")
        return {_stem(row[0]): (float(row[1]), float(row[9])) for row in rows[2 : 2 + int(rows[1][0])]}


def _stem(name: str) -> str:
    return str(PurePosixPath(name.replace("\\", "/")).with_suffix(""))
