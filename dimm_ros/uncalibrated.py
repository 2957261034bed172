"""Images of a camera without a calibration: square pixels, principal point at the centre, no distortion, focal length
unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from dimm_ros.encoder.dinov2 import Encoder, Tokens
from dimm_ros.encoder.patches import fit, normalise, patch_grid, subsampled
from dimm_ros.errors import InputError
from dimm_ros.estimate import Estimate, Observation
from dimm_ros.geometry.camera import Camera
from dimm_ros.head.merged import MergedHead
from dimm_ros.head.model import MapHead
from dimm_ros.runtime.clock import Clock
from dimm_ros.runtime.onnx_network import OnnxNetwork
from dimm_ros.runtime.torch_network import predict_rays
from dimm_ros.scene_map import SceneMap
from dimm_ros.solver import search_focal

#: Fields of view across the longer side, degrees: the range that is searched, and how many focal lengths are tried in
#: it.
_WIDEST, _NARROWEST, _CANDIDATES = 115.0, 30.0, 8

#: Images before the focal length is used, and before it is settled: one fixes it to a few per cent, ten to about one.
NEEDED, ENOUGH = 5, 15

#: Time between images that are used to find it, seconds, before and after it is known: neighbouring images err alike.
_SPACING_S, _LATER_SPACING_S = 0.5, 2.0


def square_camera(width: int, height: int, focal: float) -> Camera:
    """A pinhole camera with square pixels and its principal point at the image's centre."""
    return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def estimate_camera(scene_map: SceneMap, encoder: Encoder | OnnxNetwork, images: Sequence[np.ndarray]) -> Camera:
    """The camera that took images of the mapped place: the median of what each image says.

    One image fixes the focal length to a few per cent. Images from ten places or more, some seconds apart, fix it to
    about one.

    Args:
        scene_map: of the place.
        encoder: the map's.
        images: (H, W, 3) uint8 RGB, all of one size.

    Raises:
        InputError: no image, images of different sizes, or none whose focal length can be found.
    """
    if not len(images):
        raise InputError("No image was given; the focal length needs at least one.")
    focals, problem = [], None
    for image in images:
        if image.shape != images[0].shape:
            raise InputError(
                f"Images of one camera have one size, but sizes {images[0].shape[:2]} and {image.shape[:2]} were given."
            )
        tokens = encode_image(encoder, image)
        try:
            focals.append(find_focal(scene_map, tokens, image.shape))
        except InputError as error:
            problem = error
    if not focals:
        raise problem
    height, width = images[0].shape[:2]
    return square_camera(width, height, median_focal(focals))


def observe_as(scene_map: SceneMap, tokens: Tokens, camera: Camera, rays: int, encode_ms: float) -> Observation:
    """Rays of one image's tokens, about so many at most, as of a pinhole camera; ``encode_ms``: time of the tokens."""
    clock = Clock(tokens.patches.device)
    with clock("head"):
        grid = subsampled(patch_grid(camera, scene_map.header.encoder.input_size), rays)
        predicted = predict_rays(scene_map.head, tokens, grid)
    times = {"prepare": 0.0, "encode": encode_ms} | clock.stages
    return Observation(grid=grid, rays=predicted, context=tokens.context[0], cls=tokens.cls[0], stage_ms=times)


def encode_image(encoder: Encoder | OnnxNetwork, image: np.ndarray) -> Tokens:
    """Tokens of an (H, W, 3) uint8 RGB image: they do not depend on its focal length.

    Raises:
        InputError: the image is not RGB uint8.
    """
    if image.ndim != 3:
        raise InputError(f"The image has shape {image.shape}; (height, width, 3) uint8 RGB is needed.")
    camera = square_camera(image.shape[1], image.shape[0], float(max(image.shape[:2])))
    grid = patch_grid(camera, encoder.config.input_size)
    return encoder.encode(torch.from_numpy(normalise(fit(image, camera, grid)))[None])


def find_focal(scene_map: SceneMap, tokens: Tokens, shape: tuple[int, ...]) -> float:
    """Focal length in pixels of the image that the tokens are of.

    Args:
        scene_map: of the place.
        tokens: of one image.
        shape: of the image, (H, W, ...).

    Raises:
        InputError: no focal length explains the image.
    """
    size = max(shape[:2])
    grid = patch_grid(square_camera(shape[1], shape[0], float(size)), scene_map.header.encoder.input_size)
    plane = torch.from_numpy(grid.rays[:, :2] / grid.rays[:, 2:]).to(tokens.patches.device)
    widest, narrowest = (0.5 / math.tan(math.radians(angle) / 2) for angle in (_WIDEST, _NARROWEST))
    candidates = np.geomspace(widest, narrowest, _CANDIDATES).tolist()
    found = focal_that_agrees(scene_map.head, tokens.patches[0].float(), tokens.context[:1].float(), plane, candidates)
    return size * found / scene_map.header.calibration.focal_factor


@torch.inference_mode()
def focal_that_agrees(
    head: MapHead | MergedHead, patches: Tensor, context: Tensor, plane: Tensor, candidates: Sequence[float]
) -> float:
    """See ``search_focal``: for a head, in units in which the patch centres are given.

    Args:
        patches: (N, D) patch tokens of one image.
        context: (1, C) its context.
        plane: (N, 2) undistorted patch centres relative to the principal point.
        candidates: focal lengths that enclose the one sought.
    """
    plane = plane.double()
    head = head.alone(context)  # the global pose part agrees with any focal length

    def directions(focal: float) -> Tensor:
        rays = torch.cat([plane / focal, torch.ones_like(plane[:, :1])], dim=1)
        return head(patches, context, torch.nn.functional.normalize(rays, dim=1).float()).directions

    return search_focal(directions, plane, candidates)


class UncalibratedLocalizer(Protocol):
    """A localizer as ``FocalFinder`` uses it."""

    @property
    def name(self) -> str:
        """The map's name."""

    def localize_unknown_focal(self, image: np.ndarray) -> tuple[Estimate, Camera]:
        """See ``Localizer.localize_unknown_focal``."""


AnyLocalizer = TypeVar("AnyLocalizer", bound=UncalibratedLocalizer)


class FocalFinder:
    """Gathers the focal lengths that images of one camera give over time, and takes their median."""

    def __init__(self) -> None:
        self._size, self._last_ns = (0, 0), None
        self._focals: list[float] = []

    @property
    def count(self) -> int:
        """Images that have said something."""
        return len(self._focals)

    @property
    def ready(self) -> bool:
        """Whether ``camera`` is good enough to localize with."""
        return self.count >= NEEDED

    @property
    def camera(self) -> Camera | None:
        """The camera as it is known by now; None before the first image."""
        return square_camera(*self._size, median_focal(self._focals)) if self._focals else None

    def ask(
        self,
        image: np.ndarray,
        stamp_ns: int,
        localize: Callable[[Callable[[AnyLocalizer], Estimate]], tuple[AnyLocalizer, Estimate]],
    ) -> tuple[AnyLocalizer, Estimate] | None:
        """Ask an (H, W, 3) uint8 RGB image for the focal length, if it is its turn.

        Args:
            image: of the camera.
            stamp_ns: when it was taken, nanoseconds.
            localize: as ``Atlas.localize``.

        Returns:
            None when ``camera`` can be used; until then what the image says, which is not accepted.

        Raises:
            InputError: ``camera`` cannot be used yet, and the image is not RGB uint8 or no focal length explains it.
        """
        height, width = image.shape[:2]
        wanted = self.wants(width, height, stamp_ns)
        if not wanted and self.ready:
            return None
        found: dict[str, Camera] = {}

        def find_camera(localizer: AnyLocalizer) -> Estimate:
            estimate, found[localizer.name] = localizer.localize_unknown_focal(image)
            return estimate

        try:
            localizer, estimate = localize(find_camera)
        except InputError:
            if self.ready:
                return None
            raise
        if wanted and estimate.accepted:
            self.add(found[localizer.name].fx, stamp_ns)
        if self.ready:
            return None
        if estimate.accepted:
            reason = f"The focal length is being found: {self.count} of {NEEDED} images have told it."
            estimate = replace(estimate, accepted=False, reason=reason)
        return localizer, estimate

    def wants(self, width: int, height: int, stamp_ns: int) -> bool:
        """Whether an image should be used to find it; another size starts anew, an image out of order is harmless."""
        if (width, height) != self._size:
            self._size, self._last_ns = (width, height), None
            self._focals.clear()
        if self.count >= ENOUGH:
            return False
        spacing = _LATER_SPACING_S if self.ready else _SPACING_S
        return self._last_ns is None or stamp_ns - self._last_ns >= spacing * 1e9

    def add(self, focal: float, stamp_ns: int) -> None:
        """Add the focal length estimated from an image, pixels."""
        self._focals.append(focal)
        self._last_ns = stamp_ns


def median_focal(focals: Sequence[float]) -> float:
    """Median of focal lengths, or of factors of them: of their logarithms, since they are ratios."""
    return math.exp(float(np.median(np.log(focals))))
