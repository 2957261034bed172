"""The encoder's view of a camera: how an image is resized and cut, and which camera ray each patch stands for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from dimm_ros.errors import InputError
from dimm_ros.geometry.camera import Camera

PATCH = 14  # DINOv2's patch size in encoder pixels
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
_SCALE, _SHIFT = (1 / (255 * _STD))[:, None, None], (-_MEAN / _STD)[:, None, None]


@dataclass(frozen=True, eq=False)
class PatchGrid:
    """How one camera's images become patches. Hashed by identity: ``patch_grid`` keeps one for each camera.

    Attributes:
        resized: camera of the image after isotropic resizing, before the cut.
        camera: camera of the encoder's input (resized and cut to multiples of 14).
        rows, columns: patches down and across.
        rays: (rows * columns, 3) unit camera rays through the patch centres, row by row.
        valid: (rows * columns,) bool: whether a ray is predicted: the lens model holds at the patch centre, and
            subsampling kept it.
        sampled_fraction: share of the patches where the lens model holds that subsampling kept.
    """

    resized: Camera
    camera: Camera
    rows: int
    columns: int
    rays: np.ndarray
    valid: np.ndarray
    sampled_fraction: float = 1.0


@lru_cache(maxsize=32)
def patch_grid(camera: Camera, input_size: int) -> PatchGrid:
    """Patches of a camera's images resized so that the longer side has ``input_size`` pixels, aspect preserved.

    What exceeds a multiple of 14 on the shorter side is cut evenly from both edges (at most 13 pixels).
    """
    scale = input_size / max(camera.width, camera.height)
    width, height = round(camera.width * scale), round(camera.height * scale)
    columns, rows = width // PATCH, height // PATCH
    if not (columns and rows):
        raise InputError(
            f"A {camera.width}x{camera.height} image is too narrow for {PATCH}-pixel patches at input size "
            f"{input_size}."
        )
    resized = camera.scaled(width, height)
    cut = resized.cropped((width - columns * PATCH) // 2, (height - rows * PATCH) // 2, columns * PATCH, rows * PATCH)
    x = np.arange(columns) * PATCH + (PATCH - 1) / 2
    y = np.arange(rows) * PATCH + (PATCH - 1) / 2
    rays, valid = cut.bearings(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2))
    rays.flags.writeable = valid.flags.writeable = False
    return PatchGrid(resized=resized, camera=cut, rows=rows, columns=columns, rays=rays, valid=valid)


@lru_cache(maxsize=32)
def subsampled(grid: PatchGrid, most: int) -> PatchGrid:
    """The grid with every k-th of its valid patches, evenly spread over the image: every second like a chessboard.

    k is the smallest that leaves about ``most`` of them or fewer, so one patch too many halves them.
    """
    every = -(-int(grid.valid.sum()) // most)
    if every <= 1:
        return grid
    row, column = np.divmod(np.arange(len(grid.valid)), grid.columns)
    valid = grid.valid & ((row * math.isqrt(every) + column) % every == 0)
    valid.flags.writeable = False
    return replace(grid, valid=valid, sampled_fraction=float(valid.sum() / grid.valid.sum()))


def fit(image: np.ndarray, camera: Camera, grid: PatchGrid) -> np.ndarray:
    """Resize and cut an image to the encoder's input size.

    Args:
        image: (H, W, 3) uint8 RGB, of the camera's size.

    Raises:
        InputError: not RGB uint8, or another size than the camera's.
    """
    check_image(image, camera)
    resized = resize(image, grid)
    x, y = round(grid.resized.cx - grid.camera.cx), round(grid.resized.cy - grid.camera.cy)
    return resized[y : y + grid.camera.height, x : x + grid.camera.width]


def check_image(image: np.ndarray, camera: Camera) -> None:
    """Whether an image is what a camera takes.

    Raises:
        InputError: not (H, W, 3) RGB uint8, or another size than the camera's.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(
            f"The image has shape {image.shape} and type {image.dtype}; (height, width, 3) uint8 RGB is needed."
        )
    if image.shape[:2] != (camera.height, camera.width):
        raise InputError(
            f"The image is {image.shape[1]}x{image.shape[0]} but camera_info says {camera.width}x{camera.height}; "
            "publish the camera_info of this stream, scaled with the image."
        )


def resize(image: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """An image at the size of ``grid.resized``, averaged where it shrinks."""
    size = (grid.resized.width, grid.resized.height)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if size[0] < image.shape[1] else cv2.INTER_LINEAR)


def normalise(image: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 RGB -> (3, h, w) float32 with ImageNet's mean and deviation, as DINOv2 was trained."""
    result = image.transpose(2, 0, 1).astype(np.float32, order="C")
    result *= _SCALE  # in place: temporaries cost ten times the arithmetic
    result += _SHIFT
    return result
