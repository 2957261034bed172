"""nerfstudio's ``transforms.json``: intrinsics for all frames or for each, poses with OpenGL axes, optional depth in
millimetres.

``transform_matrix`` is 4x4 world_from_camera with x right, y up, z back. Camera models are OPENCV (k1 k2 p1 p2 k3),
OPENCV_FISHEYE (k1 to k4; instant-ngp writes ``is_fisheye``) and those without tangential distortion. Rays go through (x
+ 0.5, y + 0.5) of a pixel, as in COLMAP. Where ``fl_x`` is not given, ``camera_angle_x`` (radians over the image's
width) tells it, and the principal point is the middle unless given; image names may lack their extension (the original
NeRF data). The world is the file's own: an
``applied_transform`` or ``applied_scale`` is not undone. ``train_filenames``, ``val_filenames`` and ``test_filenames``
become ``official``, with the test images as ``official:val`` where there are some. Sources: nerfstudio's documentation
("Data conventions") and its nerfstudio_dataparser.py, instant-ngp's nerf_loader.cu.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from dimm_ros.data.folder import (
    GL_FROM_OPTICAL,
    OWN_UNIT,
    FolderFrames,
    fitted,
    image_of,
    invented_stamp,
    listed_file,
    parsing,
    read_text,
    rigid,
)
from dimm_ros.data.recording import Recording
from dimm_ros.errors import DataError
from dimm_ros.geometry.camera import Camera

LAYOUT = "nerfstudio"

_FILE = "transforms.json"
_PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
_FISHEYE = "OPENCV_FISHEYE"
_PERSPECTIVE_KEYS, _FISHEYE_KEYS = ("k1", "k2", "p1", "p2", "k3"), ("k1", "k2", "k3", "k4")
_OTHER_LENSES = ("latlong", "equirectangular", "orthographic", "ftheta_p0")  # of instant-ngp
#: Keys that are read, or say nothing about the lens; any other that says something is named.
_KNOWN = {
    "camera_model",
    "is_fisheye",
    "fl_x",
    "fl_y",
    "cx",
    "cy",
    "w",
    "h",
    "camera_angle_x",
    "camera_angle_y",
    "frames",
    "file_path",
    "transform_matrix",
    "depth_file_path",
    "mask_path",
    "timestamp",
    "time",
    "cam_id",
    "train_filenames",
    "val_filenames",
    "test_filenames",
    "applied_transform",
    "applied_scale",
    "orientation_override",
    "ply_file_path",
    "aabb_scale",
    "aabb",
    "render_aabb",
    "scale",
    "offset",
    "up",
    "n_frames",
    "colmap_im_id",
    "rotation",
    "sharpness",
    "sharpness_discard_threshold",
    "sharpen",
    "white_transparent",
    "black_transparent",
    "n_extra_learnable_dims",
}


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
        content = json.loads(read_text(path))
        part_of, ignored = _parts(content), set()
        for index, frame in enumerate(sorted(content["frames"], key=lambda frame: frame["file_path"])):
            lens = content | frame
            pose = rigid(np.array(frame["transform_matrix"], dtype=np.float64))
            depth = frame.get("depth_file_path")
            name = _name(frame["file_path"])
            image = listed_file(folder, name)
            known = _KNOWN.union(_FISHEYE_KEYS if _is_fisheye(lens) else _PERSPECTIVE_KEYS)
            ignored |= {key for key in lens.keys() - known if lens[key]}
            frames.add(
                name,
                image if image.is_file() else image_of(image),
                lambda size, lens=lens: _camera(lens, size),
                None if pose is None else pose @ GL_FROM_OPTICAL,
                invented_stamp(index),
                part=part_of.get(name),
                depth=None if depth is None else listed_file(folder, depth),
            )
    notes = [OWN_UNIT]
    if ignored:
        notes.insert(0, f"Keys of {_FILE} that are not understood were passed over: {', '.join(sorted(ignored))}.")
    return frames.recording(notes)


def _name(file: str) -> str:
    return Path(file.replace("\\", "/")).as_posix()


def _is_fisheye(lens: dict) -> bool:
    return lens.get("camera_model", _FISHEYE if lens.get("is_fisheye") else "OPENCV") == _FISHEYE


def _camera(lens: dict, size: tuple[int, int]) -> Camera:
    """The camera of one frame, whose own values go before the file's."""
    model = lens.get("camera_model", "OPENCV")
    model = next((key for key in _OTHER_LENSES if lens.get(key)), model)
    if model not in (*_PERSPECTIVE, _FISHEYE):
        raise DataError(f"Camera model {model} of {_FILE} is not supported; use OPENCV, {_FISHEYE} or PINHOLE.")
    if _is_fisheye(lens):
        kind, distortion = "equidistant", tuple(float(lens.get(key, 0.0)) for key in _FISHEYE_KEYS)
    else:
        kind, distortion = "plumb_bob", tuple(float(lens.get(key, 0.0)) for key in _PERSPECTIVE_KEYS)
        distortion = distortion if any(distortion) else ()
    width, height = int(lens.get("w", size[0])), int(lens.get("h", size[1]))
    focal = _focal(lens, "x", width) or _focal(lens, "y", height)
    if focal is None:
        raise DataError(f"{_FILE} gives no focal length; add fl_x in pixels, or camera_angle_x in radians.")
    cx, cy = float(lens.get("cx", width / 2)) - 0.5, float(lens.get("cy", height / 2)) - 0.5
    return fitted(Camera(width, height, focal, _focal(lens, "y", height) or focal, cx, cy, kind, distortion), size)


def _focal(lens: dict, axis: str, pixels: int) -> float | None:
    """Focal length along an axis, or None where neither it nor the angle of view is given."""
    if f"fl_{axis}" in lens:
        return float(lens[f"fl_{axis}"])
    angle = lens.get(f"camera_angle_{axis}")
    return None if angle is None else 0.5 * pixels / math.tan(0.5 * float(angle))


def _parts(content: dict) -> dict[str, str]:
    judged = "test" if content.get("test_filenames") else "val"
    names = {"train": "train", "val": "val" if judged == "val" else "tune", "test": "val"}
    return {_name(file): part for key, part in names.items() for file in content.get(f"{key}_filenames") or ()}
