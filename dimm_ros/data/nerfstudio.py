"""nerfstudio's ``transforms.json``: intrinsics for all frames or for each, poses with OpenGL axes, optional depth in millimetres.

``transform_matrix`` is 4x4 world_from_camera with x right, y up, z back. Camera models are OPENCV (k1 k2 p1 p2 k3), OPENCV_FISHEYE
(k1 to k4) and PINHOLE. Rays go through (x + 0.5, y + 0.5) of a pixel, as in COLMAP. The world is the file's own: an
``applied_transform`` or ``applied_scale`` is not undone. ``train_filenames``, ``val_filenames`` and ``test_filenames`` become
``official``, with the test images as ``official:val`` where there are some. Sources: nerfstudio's documentation ("Data
conventions") and its nerfstudio_dataparser.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dimm_ros.data.folder import GL_FROM_OPTICAL, FolderFrames, fitted, invented_stamp, parsing, rigid
from dimm_ros.data.recording import Recording
from dimm_ros.errors import DataError
from dimm_ros.geometry.camera import Camera

LAYOUT = "nerfstudio"

_FILE = "transforms.json"


def is_nerfstudio(folder: Path) -> bool:
    """Whether a folder has a transforms.json."""
    return (folder / _FILE).is_file()


def read_nerfstudio(folder: str | Path) -> Recording:
    """Read a nerfstudio folder.

    Raises:
        DataError: a malformed file, an unsupported camera model, or no image with a pose.
    """
    folder = Path(folder)
    path = folder / _FILE
    frames = FolderFrames(folder, LAYOUT)
    with parsing(path, LAYOUT):
        content = json.loads(path.read_text(encoding="utf-8"))
        part_of = _parts(content)
        for index, frame in enumerate(sorted(content["frames"], key=lambda frame: frame["file_path"])):
            lens = content | frame
            pose = rigid(np.array(frame["transform_matrix"], dtype=np.float64))
            depth = frame.get("depth_file_path")
            name = Path(frame["file_path"]).as_posix()
            frames.add(
                name, folder / name, lambda size, lens=lens: _camera(lens, size), None if pose is None else pose @ GL_FROM_OPTICAL,
                invented_stamp(index), part=part_of.get(name), depth=None if depth is None else folder / depth,
            )
    return frames.recording()


def _camera(lens: dict, size: tuple[int, int]) -> Camera:
    """The camera of one frame, whose own values go before the file's."""
    model = lens.get("camera_model", "OPENCV")
    if model == "OPENCV_FISHEYE":
        kind, distortion = "equidistant", tuple(float(lens.get(key, 0.0)) for key in ("k1", "k2", "k3", "k4"))
    elif model in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE"):
        kind, distortion = "plumb_bob", tuple(float(lens.get(key, 0.0)) for key in ("k1", "k2", "p1", "p2", "k3"))
        distortion = distortion if any(distortion) else ()
    else:
        raise DataError(f"Camera model {model} of {_FILE} is not supported; use OPENCV, OPENCV_FISHEYE or PINHOLE.")
    width, height = int(lens.get("w", size[0])), int(lens.get("h", size[1]))
    camera = Camera(
        width, height, float(lens["fl_x"]), float(lens.get("fl_y", lens["fl_x"])), float(lens["cx"]) - 0.5, float(lens["cy"]) - 0.5, kind, distortion,
    )
    return fitted(camera, size)


def _parts(content: dict) -> dict[str, str]:
    judged = "test" if content.get("test_filenames") else "val"
    names = {"train": "train", "val": "val" if judged == "val" else "tune", "test": "val"}
    return {Path(file).as_posix(): part for key, part in names.items() for file in content.get(f"{key}_filenames") or ()}
