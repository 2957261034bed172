"""12-Scenes (Valentin et al., 3DV 2016): a scene folder such as ``apt1/kitchen`` with ``data/``, ``info.txt`` and
``split.txt``.

``data/frame-XXXXXX.color.jpg``, ``.pose.txt`` (world_from_camera, metres; tracking losses are written as -inf and left
out) and ``.depth.png`` (millimetres by ``m_depthShift``, registered to colour). ``info.txt`` has lines ``key = value``
as BundleFusion writes them, among them the 4x4 intrinsic matrices ``m_calibrationColorIntrinsic`` and
``m_calibrationDepthIntrinsic``. The first line of ``split.txt``, ``sequence0 [frames=N] ...``, says that the first N
frames are the test sequence; all others are for training. Sources: the data set's page at Stanford ("Learning to
Navigate the Energy Landscape") and the readers of its users (ACE's setup_12scenes.py).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from dimm_ros.data.folder import (
    FolderFrames,
    from_matrix,
    invented_stamp,
    parsing,
    read_pose,
    read_text,
    require,
    text_rows,
)
from dimm_ros.data.recording import Recording
from dimm_ros.data.seven_scenes import colour_frames
from dimm_ros.geometry.camera import Camera

LAYOUT = "12-Scenes"


def is_twelve_scenes(folder: Path) -> bool:
    """Whether a folder looks like a 12-Scenes scene."""
    return (folder / "data").is_dir() and any(colour_frames(folder / "data"))


def read_twelve_scenes(folder: str | Path) -> Recording:
    """Read a 12-Scenes scene folder.

    Raises:
        DataError: a file is missing or malformed, or no frame has a pose.
    """
    folder = Path(folder)
    require(folder, LAYOUT, "info.txt")
    with parsing(folder / "info.txt", LAYOUT):
        info = {key: value for key, value in (row[:2] for row in text_rows(folder / "info.txt", "="))}
        camera, depth_camera = _camera(info, "color", "Color"), _camera(info, "depth", "Depth")
        depth_unit = 1.0 / float(info.get("m_depthShift", "1000"))
    test_frames = None
    if (folder / "split.txt").exists():
        with parsing(folder / "split.txt", LAYOUT):
            test_frames = int(re.search(r"frames\s*=\s*(\d+)", read_text(folder / "split.txt")).group(1))
    frames = FolderFrames(folder, LAYOUT)
    for position, (number, image) in enumerate(sorted(colour_frames(folder / "data"))):
        stem = image.name.split(".", 1)[0]
        part = None if test_frames is None else "val" if position < test_frames else "train"
        frames.add(
            stem,
            image,
            camera,
            read_pose(folder / "data" / f"{stem}.pose.txt"),
            invented_stamp(number),
            part=part,
            depth=folder / "data" / f"{stem}.depth.png",
            depth_camera=depth_camera,
            depth_unit=depth_unit,
        )
    return frames.recording()


def _camera(info: dict[str, str], size: str, name: str) -> Camera:
    matrix = np.array(info[f"m_calibration{name}Intrinsic"].split(), dtype=np.float64).reshape(4, 4)
    return from_matrix(matrix, (int(info[f"m_{size}Width"]), int(info[f"m_{size}Height"])))
