"""Image files of data sets: pixels as stored, errors that name the file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dimm_ros.errors import DataError
from dimm_ros.geometry.camera import Camera


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, from its header alone.

    Raises:
        DataError: the file cannot be read as an image.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except OSError as error:  # PIL's own UnidentifiedImageError is one too
        raise DataError(f"Image '{path}' cannot be read: {_cause(error)}.") from None


def load_rgb(path: Path, camera: Camera | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file; its EXIF orientation is ignored, as the intrinsics are of stored pixels.

    Raises:
        DataError: the file cannot be read, or its size is not the camera's.
    """
    image = _read(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if camera is not None and image.shape[:2] != (camera.height, camera.width):
        raise DataError(
            f"Image '{path}' is {image.shape[1]}x{image.shape[0]}, but its camera is {camera.width}x{camera.height}; "
            "all images of one camera must have its size.",
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def load_depth(path: Path, unit: float = 1e-3) -> np.ndarray:
    """(h, w) float32 metres of a 16-bit image whose grey levels are ``unit`` metres; 0 and 65535 mean none and become 0.

    Raises:
        DataError: the file cannot be read or is not a 16-bit grey image.
    """
    depth = _read(path, cv2.IMREAD_UNCHANGED)
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise DataError(f"Depth image '{path}' is not a 16-bit grey image.")
    return np.where(depth == 65535, 0, depth).astype(np.float32) * np.float32(unit)


def _read(path: Path, flags: int) -> np.ndarray:
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"Image '{path}' cannot be read: {_cause(error)}.") from None
    image = cv2.imdecode(data, flags) if len(data) else None
    if image is None:
        raise DataError(f"Image '{path}' cannot be decoded; it is truncated or not an image.")
    return image


def _cause(error: OSError) -> str:
    return error.strerror or "it is truncated or not an image"
