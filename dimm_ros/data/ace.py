"""The layout of DSAC* and ACE, in which Wayspots is published: ``train/`` (or ``training/``) and ``test/``, each with
``rgb/``, ``poses/`` and ``calibration/``, whose files belong together in alphabetical order.

Poses are 4x4 world_from_camera in metres. A calibration is one focal length in pixels, with the principal point at the
image's centre, or a 3x3 matrix. A folder ``val/`` beside them, as some users of the layout have, is for choosing
parameters (``official:tune``). Sources: the README of vislearn/dsacstar ("Data Structure") and the project page and
dataset.py of nianticlabs/ace.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dimm_ros.data.folder import UTF8, FolderFrames, centred, from_matrix, invented_stamp, parsing, read_pose, require
from dimm_ros.data.recording import Recording
from dimm_ros.errors import DataError
from dimm_ros.geometry.camera import Camera

LAYOUT = "Wayspots (ACE)"

_PARTS = {"train": "train", "training": "train", "val": "tune", "test": "val"}


def is_ace(folder: Path) -> bool:
    """Whether a folder looks like a scene in ACE's layout."""
    return any((folder / name / "rgb").is_dir() for name in _PARTS)


def read_ace(folder: str | Path) -> Recording:
    """Read a scene in ACE's layout.

    Raises:
        DataError: a folder is missing, its files do not pair up, or no image has a pose.
    """
    folder = Path(folder)
    frames = FolderFrames(folder, LAYOUT)
    places = [name for name in _PARTS if (folder / name / "rgb").is_dir()]
    for sequence, name in enumerate(places):
        require(folder, LAYOUT, f"{name}/poses", f"{name}/calibration")
        images, poses, calibrations = (
            sorted((folder / name / kind).iterdir()) for kind in ("rgb", "poses", "calibration")
        )
        if not len(images) == len(poses) == len(calibrations):
            raise DataError(
                f"'{folder / name}' has {len(images)} files in rgb, {len(poses)} in poses and {len(calibrations)} in "
                "calibration; "
                "each image needs one of each."
            )
        for index, (image, pose, calibration) in enumerate(zip(images, poses, calibrations)):
            frames.add(
                f"{name}/{image.name}",
                image,
                lambda size, path=calibration: _camera(path, size),
                read_pose(pose),
                invented_stamp(index, sequence),
                part=_PARTS[name],
            )
    return frames.recording()


def _camera(path: Path, size: tuple[int, int]) -> Camera:
    with parsing(path, LAYOUT):
        values = np.loadtxt(path, dtype=np.float64, encoding=UTF8)
        return centred(float(values), size) if values.size == 1 else from_matrix(values, size)
