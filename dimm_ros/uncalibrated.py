"""Images of a camera without a calibration: square pixels, principal point at the centre, no distortion, focal length unknown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dimm_ros.encoder.dinov2 import Tokens
from dimm_ros.encoder.patches import fit, normalise, patch_grid
from dimm_ros.errors import InputError
from dimm_ros.geometry.camera import Camera
from dimm_ros.head.model import DimmHead
from dimm_ros.solver import search_focal

if TYPE_CHECKING:
    from dimm_ros.localizer import Localizer

#: Fields of view across the longer side, degrees: the range that is searched, and how many focal lengths are tried in it.
_WIDEST, _NARROWEST, _CANDIDATES = 115.0, 30.0, 8


def square_camera(width: int, height: int, focal: float) -> Camera:
    """A pinhole camera with square pixels and its principal point at the image's centre."""
    return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def estimate_camera(localizer: Localizer, images: Sequence[np.ndarray]) -> Camera:
    """The camera that took images of the mapped place: the median of what each image says.

    One image fixes the focal length to a few per cent. Images from ten places or more, some seconds apart, fix it to about one.

    Args:
        localizer: with the map.
        images: (H, W, 3) uint8 RGB, all of one size.

    Raises:
        InputError: no image, images of different sizes, or none whose focal length can be found.
    """
    if not len(images):
        raise InputError("No image was given; the focal length needs at least one.")
    focals, problem = [], None
    for image in images:
        if image.shape != images[0].shape:
            raise InputError(f"Images of one camera have one size, but sizes {images[0].shape[:2]} and {image.shape[:2]} were given.")
        tokens = encode_image(localizer, image)
        try:
            focals.append(find_focal(localizer, tokens, image.shape))
        except InputError as error:
            problem = error
    if not focals:
        raise problem
    height, width = images[0].shape[:2]
    return square_camera(width, height, math.exp(float(np.median(np.log(focals)))))


def encode_image(localizer: Localizer, image: np.ndarray) -> Tokens:
    """Tokens of an (H, W, 3) uint8 RGB image: they do not depend on its focal length.

    Raises:
        InputError: the image is not RGB uint8.
    """
    if image.ndim != 3:
        raise InputError(f"The image has shape {image.shape}; (height, width, 3) uint8 RGB is needed.")
    camera = square_camera(image.shape[1], image.shape[0], float(max(image.shape[:2])))
    grid = patch_grid(camera, localizer.encoder.config.input_size)
    return localizer.encoder.encode(torch.from_numpy(normalise(fit(image, camera, grid)))[None])


def find_focal(localizer: Localizer, tokens: Tokens, shape: tuple[int, ...]) -> float:
    """Focal length in pixels of the image that the tokens are of.

    Args:
        tokens: of one image.
        shape: of the image, (H, W, ...).

    Raises:
        InputError: no focal length explains the image.
    """
    size = max(shape[:2])
    grid = patch_grid(square_camera(shape[1], shape[0], float(size)), localizer.encoder.config.input_size)
    plane = torch.from_numpy(grid.rays[:, :2] / grid.rays[:, 2:]).to(localizer.encoder.device)
    widest, narrowest = (0.5 / math.tan(math.radians(angle) / 2) for angle in (_WIDEST, _NARROWEST))
    candidates = np.geomspace(widest, narrowest, _CANDIDATES).tolist()
    found = focal_that_agrees(localizer.map.head, tokens.patches[0].float(), tokens.context[:1].float(), plane, candidates)
    return size * found / localizer.map.header.calibration.focal_factor


@torch.inference_mode()
def focal_that_agrees(head: DimmHead, patches: Tensor, context: Tensor, plane: Tensor, candidates: Sequence[float]) -> float:
    """See ``search_focal``: for a head, in units in which the patch centres are given.

    Args:
        patches: (N, D) patch tokens of one image.
        context: (1, C) its context.
        plane: (N, 2) undistorted patch centres relative to the principal point.
        candidates: focal lengths that enclose the one sought.
    """
    plane = plane.double()
    head = head.alone(context)  # the whole-image part agrees with any focal length

    def directions(focal: float) -> Tensor:
        rays = torch.cat([plane / focal, torch.ones_like(plane[:, :1])], dim=1)
        return head(patches, context, torch.nn.functional.normalize(rays, dim=1).float()).directions

    return search_focal(directions, plane, candidates)


def focal_bias(head: DimmHead, data: dict[str, Tensor], views: Sequence[int]) -> float:
    """By which factor a map's head finds focal lengths too long: the median over mapped views, whose cameras are known.

    A head draws the directions of an image a little together, and the focal length that agrees with itself lies 2.5 times as far
    off as the directions do, so this is several per cent; it is nearly the same for all views of a map.

    Args:
        head: of the finished map.
        data: ``FeatureBuffer.tensors()``.
        views: which views to ask; recorded ones.

    Returns:
        The factor; 1 when fewer than three views can say.
    """
    device = next(head.parameters()).device
    sizes = torch.bincount(data["view_of"].long(), minlength=len(data["frame_of"]))
    ends = sizes.cumsum(dim=0)
    found = []
    for view in views:
        rows = slice(int(ends[view] - sizes[view]), int(ends[view]))
        rays, patches = data["camera_rays"][rows].double(), data["patches"][rows]
        rays, patches = rays[rays[:, 2] > 0.1], patches[rays[:, 2] > 0.1]  # a pinhole sees no further
        plane = (rays[:, :2] / rays[:, 2:]).to(device)
        try:
            context = data["context"][int(view), None].to(device).float()
            found.append(focal_that_agrees(head, patches.to(device).float(), context, plane, [0.6, 0.8, 1.0, 1.25, 1.6]))
        except InputError:
            continue
    return float(np.exp(np.median(np.log(found)))) if len(found) >= 3 else 1.0
