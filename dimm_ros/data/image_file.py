"""Image files of data sets: pixels as stored, errors that name the file."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dimm_ros.data.image_encoding import decode_file, stored_size
from dimm_ros.errors import DataError, InputError
from dimm_ros.geometry.camera import Camera

_EXIF_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file as it is stored, from its header alone.

    Raises:
        DataError: the file cannot be read as an image.
    """
    return _header(path)[0]


def image_sizes(path: Path) -> tuple[tuple[int, int], ...]:
    """Width and height of an image file as stored and, where its EXIF orientation exchanges them, as viewers show it.

    Raises:
        DataError: the file cannot be read as an image.
    """
    (width, height), orientation = _header(path)
    return ((width, height), (height, width)) if orientation in _SIDEWAYS else ((width, height),)


def _header(path: Path) -> tuple[tuple[int, int], int]:
    """Stored size, and EXIF orientation (1 where there is none)."""
    try:
        with Image.open(path) as image:
            return image.size, _orientation(image)
    except Exception as error:  # noqa: BLE001  PIL's parsers let out whatever a damaged header leads them to
        raise DataError(f"Image '{path}' cannot be read: {_cause(error)}.") from None


def _orientation(image: Image.Image) -> int:
    if "exif" not in image.info:  # asked without need, PIL decodes a whole PNG
        return 1
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error):  # damaged: the picture as it is
        return 1


def load_rgb(path: Path, camera: Camera | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file.

    Intrinsics are mostly of stored pixels, so with a camera the EXIF orientation counts only where the turned picture
    alone has the camera's size. Without one the picture is turned as viewers show it.

    Raises:
        DataError: the file cannot be read, or its size is not the camera's.
    """
    image = _read(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, camera)
    if camera is None or image.shape[:2] == (camera.width, camera.height) != (camera.height, camera.width):
        image = _upright(image, _header(path)[1])
    if camera is not None and image.shape[:2] != (camera.height, camera.width):
        raise DataError(
            f"Image '{path}' is {image.shape[1]}x{image.shape[0]}, but its camera is {camera.width}x{camera.height}; "
            "all images of one camera must have its size."
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def load_depth(path: Path, unit: float = 1e-3) -> np.ndarray:
    """(h, w) float32 metres of a 16-bit image whose grey levels are ``unit`` metres; 0 and 65535 mean none and become
    0.

    Raises:
        DataError: the file cannot be read or is not a 16-bit grey image.
    """
    depth = _read(path, cv2.IMREAD_UNCHANGED)
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise DataError(f"Depth image '{path}' is not a 16-bit grey image.")
    return np.where(depth == 65535, 0, depth).astype(np.float32) * np.float32(unit)


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """The picture as its EXIF orientation wants it shown."""
    if orientation in _SIDEWAYS:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


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
                    "all images of one camera must have its size."
                )
        return decode_file(data, flags)
    except InputError as error:
        raise DataError(f"Image '{path}' {error}") from None


def _cause(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return "its header promises more pixels than any camera has"
    return getattr(error, "strerror", None) or "it is truncated or not an image"
