"""KITTI odometry (Geiger et al., CVPR 2012), its left camera: ``sequences/NN`` beside ``poses/NN.txt``.

``image_2/`` (colour; ``image_0/``, grey, where that is absent) holds rectified images, ``times.txt`` a time in seconds
for each, ``calib.txt`` the 3x4 projections ``P0: ...`` to ``P3: ...``. ``poses/NN.txt`` has 3x4 world_from_camera of
camera 0 (row by row), and P2 = K [I | t] says where camera 2 is: x2 = x0 + t. Poses are published for the sequences 00
to 10. Source: the readme of the benchmark's development kit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dimm_ros.data.folder import FolderFrames, from_matrix, image_of, nanoseconds, parsing, require, rigid, text_rows
from dimm_ros.data.recording import Recording
from dimm_ros.errors import DataError
from dimm_ros.geometry import poses

LAYOUT = "KITTI odometry"

_CAMERAS = {"image_2": "P2", "image_0": "P0"}


def is_kitti(folder: Path) -> bool:
    """Whether a folder looks like a sequence of KITTI odometry."""
    return (folder / "calib.txt").is_file() and any((folder / name).is_dir() for name in _CAMERAS)


def read_kitti(folder: str | Path) -> Recording:
    """Read the left camera of a sequence of KITTI odometry.

    Raises:
        DataError: a file is missing or malformed, or the sequence's poses are not published.
    """
    folder = Path(folder)
    require(folder, LAYOUT, "times.txt")
    number = folder.resolve().name
    truth = folder.resolve().parent.parent / "poses" / f"{number}.txt"
    if not truth.exists():
        raise DataError(
            f"'{folder}' looks like {LAYOUT}, but ../../poses/{number}.txt is missing; unpack data_odometry_poses "
            "beside sequences "
            "(poses are published for 00 to 10)."
        )
    images = next(name for name in _CAMERAS if (folder / name).is_dir())
    with parsing(folder / "calib.txt", LAYOUT):
        calibration = {key.rstrip(":"): values for key, *values in text_rows(folder / "calib.txt")}
        projection = np.array(calibration[_CAMERAS[images]], dtype=np.float64).reshape(3, 4)
        offset = np.linalg.solve(projection[:, :3], projection[:, 3])
    zero_from_camera = poses.make_pose(np.eye(3), -offset)
    with parsing(truth, LAYOUT):
        world_from_zero = [rigid(np.array(row, dtype=np.float64).reshape(3, 4)) for row in text_rows(truth)]
    with parsing(folder / "times.txt", LAYOUT):
        stamps = [nanoseconds(row[0]) for row in text_rows(folder / "times.txt")]
    if len(stamps) != len(world_from_zero):
        raise DataError(
            f"'{folder}' has {len(stamps)} times, but {len(world_from_zero)} poses; unpack the archives again."
        )
    frames = FolderFrames(folder, LAYOUT, timed=True)
    for index, (stamp, pose) in enumerate(zip(stamps, world_from_zero)):
        name = f"{index:06d}"
        frames.add(
            name,
            image_of(folder / images / name),
            lambda size: from_matrix(projection, size),
            None if pose is None else pose @ zero_from_camera,
            stamp,
        )
    return frames.recording()
