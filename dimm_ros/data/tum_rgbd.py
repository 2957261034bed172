"""TUM RGB-D (Sturm et al., IROS 2012): ``rgb.txt``, ``depth.txt`` and ``groundtruth.txt`` with the folders that they
name.

``rgb.txt`` and ``depth.txt`` have lines ``timestamp file``, ``groundtruth.txt`` has ``timestamp tx ty tz qx qy qz qw``,
world_from_camera of the colour camera in metres. Depth is registered to colour, 5000 grey levels a metre, and taken
from the image nearest in time within 20 ms (as in the published associate.py); poses are interpolated. Intrinsics are
those published for the camera that the folder's name tells (freiburg1, 2 or 3; the last is already undistorted);
another folder needs a ``camera-intrinsics.txt`` (3x3). Source: the data set's pages "File Formats" at TUM.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from pathlib import Path

import numpy as np

from dimm_ros.data.folder import (
    FolderFrames,
    Trajectory,
    camera_of,
    from_wxyz,
    listed_file,
    nanoseconds,
    one_per_stamp,
    parsing,
    read_intrinsics,
    require,
    text_rows,
)
from dimm_ros.data.recording import Recording
from dimm_ros.errors import DataError
from dimm_ros.geometry.camera import Camera

LAYOUT = "TUM RGB-D"

_DEPTH_UNIT = 1 / 5000
_PAIR_NS = 20_000_000
_MAX_GAP_S = 0.1  # the motion capture runs at 100 Hz
_SIZE = (640, 480)
_CAMERAS = {
    1: Camera(
        *_SIZE,
        517.306408,
        516.469215,
        318.643040,
        255.313989,
        "plumb_bob",
        (0.262383, -0.953104, -0.005358, 0.002628, 1.163314),
    ),
    2: Camera(
        *_SIZE,
        520.908620,
        521.007327,
        325.141442,
        249.701764,
        "plumb_bob",
        (0.231222, -0.784899, -0.003257, -0.000105, 0.917205),
    ),
    3: Camera(*_SIZE, 535.4, 539.2, 320.1, 247.6),
}


def is_tum_rgbd(folder: Path) -> bool:
    """Whether a folder looks like a TUM RGB-D sequence."""
    return (folder / "rgb.txt").is_file() and ((folder / "rgb").is_dir() or (folder / "groundtruth.txt").is_file())


def read_tum_rgbd(folder: str | Path) -> Recording:
    """Read a TUM RGB-D sequence.

    Raises:
        DataError: a file is missing or malformed, the camera is not known, or no image has a pose.
    """
    folder = Path(folder)
    require(folder, LAYOUT, "groundtruth.txt")
    images = _files(folder, "rgb.txt")
    depths = _files(folder, "depth.txt") if (folder / "depth.txt").exists() else []
    known, notes = read_trajectory(folder / "groundtruth.txt")
    trajectory = Trajectory([stamp for stamp, _ in known], [pose for _, pose in known], _MAX_GAP_S)
    camera = _camera(folder, images)
    frames = FolderFrames(folder, LAYOUT, timed=True)
    for stamp, image in images:
        frames.add(
            image.name,
            image,
            camera,
            trajectory.at(stamp),
            stamp,
            depth=_nearest(depths, stamp),
            depth_unit=_DEPTH_UNIT,
        )
    return frames.recording(notes)


def read_trajectory(path: Path) -> tuple[list[tuple[int, np.ndarray]], list[str]]:
    """Stamps (nanoseconds) and (4, 4) poses of a file with lines ``timestamp tx ty tz qx qy qz qw``, and notes on
    what was left out.

    Raises:
        DataError: it is missing or malformed.
    """
    with parsing(path, LAYOUT):
        rows = [(nanoseconds(row[0]), [float(value) for value in row[1:8]]) for row in text_rows(path)]
        poses = [(stamp, from_wxyz([values[6], *values[3:6]], values[:3])) for stamp, values in rows]
        known = [(stamp, pose) for stamp, pose in poses if pose is not None]
        return one_per_stamp(known, "poses")


def _files(folder: Path, name: str) -> list[tuple[int, Path]]:
    with parsing(folder / name, LAYOUT):
        return sorted((nanoseconds(stamp), listed_file(folder, file)) for stamp, file in text_rows(folder / name))


def _nearest(files: list[tuple[int, Path]], stamp: int) -> Path | None:
    place = bisect_left(files, (stamp,))
    near = min(files[max(0, place - 1) : place + 1], key=lambda pair: abs(pair[0] - stamp), default=None)
    return near[1] if near is not None and abs(near[0] - stamp) <= _PAIR_NS else None


def _camera(folder: Path, images: list[tuple[int, Path]]) -> Camera:
    path = folder / "camera-intrinsics.txt"
    if path.exists():
        there = next((image for _, image in images if image.is_file()), None)
        if there is None:
            return read_intrinsics(path, _SIZE)
        return camera_of(there, lambda size: read_intrinsics(path, size))
    match = re.search(r"(?:freiburg|fr)([123])(?!\d)", folder.resolve().name)
    if match is None:
        raise DataError(
            f"'{folder}' has no camera-intrinsics.txt (a 3x3 matrix), and its name does not tell which camera of TUM "
            "it is (freiburg1, 2 or 3)."
        )
    return _CAMERAS[int(match.group(1))]
