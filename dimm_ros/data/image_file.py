"""Image files of data sets: pixels as stored, errors that name the file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dimm_ros.data.image_encoding import decode_file, stored_size
from dimm_ros.errors import DataError, InputError
from dimm_ros.geometry.camera import Camera


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, from its header alone.

    Raises:
        DataError: the file cannot be read as an image.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:  # noqa: BLE001  PIL's parsers let out whatever a damaged header leads them to
        raise DataError(f"Image '{path}' cannot be read: {_cause(error)}.") from None


def load_rgb(path: Path, camera: Camera | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file; its EXIF orientation is ignored, as the intrinsics are of stored pixels.

    Raises:
        DataError: the file cannot be read, or its size is not the camera's.
    """
    image = _read(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, camera)
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


def _read(path: Path, flags: int, camera: Camera | None = None) -> np.ndarray:
    """The pixels of a file as OpenCV gives them; a size that is not the camera's, nor turned, is not decoded at all."""
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"Image '{path}' cannot be read: {_cause(error)}.") from None
    try:
        if camera is not None:
            width, height = stored_size(data)
            if (camera.width, camera.height) not in ((width, height), (height, width)):
                raise DataError(
                    f"Image '{path}' is {width}x{height}, but its camera is {camera.width}x{camera.height}; "
                    "all images of one camera must have its size.",
                )
        return decode_file(data, flags)
    except InputError as error:
        raise DataError(f"Image '{path}' {error}") from None


def _cause(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return "its header promises more pixels than any camera has"
    return getattr(error, "strerror", None) or "it is truncated or not an image"
