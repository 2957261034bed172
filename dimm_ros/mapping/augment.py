"""Views a camera would have had if it had been turned: exact labels for world rays, without depth.

A patch's world ray does not change when the camera turns about its centre, rolls or zooms; the image changes by a
homography (for any central lens: by a re-projection of bearings). So each recorded image gives as many exactly labelled
views as one cares to encode.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from dimm_ros.config import TrainingConfig
from dimm_ros.encoder.patches import PATCH, PatchGrid, fit, resize
from dimm_ros.geometry.camera import Camera


@dataclass(frozen=True)
class View:
    """An encoder-sized image with the rays of its patches.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        rays: (P, 3) unit rays through the patch centres, in the frame of the recorded camera.
        camera_rays: (P, 3) the same rays in the (virtual) camera's own frame.
        valid: (P,) bool: the patch shows recorded pixels and the lens model holds.
        offset: (3,) centre of the (virtual) camera in the frame of the recorded camera, metres; zero unless it moved.
        turn: (3, 3) rotation camera_from_virtual.
    """

    image: np.ndarray
    rays: np.ndarray
    camera_rays: np.ndarray
    valid: np.ndarray
    offset: np.ndarray = field(default_factory=lambda: np.zeros(3))
    turn: np.ndarray = field(default_factory=lambda: np.eye(3))


def recorded_view(image: np.ndarray, camera: Camera, grid: PatchGrid) -> View:
    """The image as it was taken."""
    return View(image=fit(image, camera, grid), rays=grid.rays, camera_rays=grid.rays, valid=grid.valid)


def random_view(
    image: np.ndarray, camera: Camera, grid: PatchGrid, config: TrainingConfig, rng: np.random.Generator
) -> View:
    """A view of the same camera turned, rolled and zoomed at random, with changed light and sharpness.

    Args:
        image: (H, W, 3) uint8 RGB of ``camera``'s size.
        grid: the patch grid of ``camera``.
    """
    camera_from_virtual, zoom = random_turn(config, rng)
    view = turned_view(image, camera, grid, camera_from_virtual, zoom)
    return replace(view, image=change_light(view.image, config, rng))


def random_turn(config: TrainingConfig, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A (3, 3) rotation camera_from_virtual and a zoom within the configured bounds."""
    yaw, pitch = np.radians(rng.uniform(-1, 1, 2) * config.max_rotation_deg)
    roll = np.radians(rng.uniform(-1, 1) * config.max_roll_deg)
    zoom = np.exp(rng.uniform(-1, 1) * np.log(config.max_zoom))
    return Rotation.from_euler("YXZ", [yaw, pitch, roll]).as_matrix(), float(zoom)


def turned_view(
    image: np.ndarray, camera: Camera, grid: PatchGrid, camera_from_virtual: np.ndarray, zoom: float = 1.0
) -> View:
    """The camera's view when turned by a rotation about its centre and with its focal length times ``zoom``.

    Pixels outside the recorded image mirror it, so that the encoder meets natural texture; their patches are not valid.
    """
    resized = resize(image, grid)
    virtual = zoomed(grid.camera, zoom)
    height, width = virtual.height, virtual.width
    # The re-projection is smooth: evaluate it on every 7th pixel and interpolate (error below 0.01 px for mild lenses).
    x, y = nodes(width), nodes(height)
    rays, holds = virtual.bearings(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2))
    pixels, front = grid.resized.project(rays @ camera_from_virtual.T)
    pixels[~(front & holds)] = -1e4
    coarse = pixels.reshape(len(y), len(x), 2).astype(np.float32)
    flow = upsample(coarse, x, y, width, height)
    warped = cv2.remap(resized, flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    inside = (
        (flow[..., 0] >= -0.5)
        & (flow[..., 0] <= grid.resized.width - 0.5)
        & (flow[..., 1] >= -0.5)
        & (flow[..., 1] <= grid.resized.height - 0.5)
    )
    covered = inside.reshape(grid.rows, PATCH, grid.columns, PATCH).all(axis=(1, 3)).reshape(-1)
    camera_rays, holds = patch_rays(virtual)
    return View(
        image=warped,
        rays=camera_rays @ camera_from_virtual.T,
        camera_rays=camera_rays,
        valid=covered & holds,
        turn=camera_from_virtual,
    )


def zoomed(camera: Camera, zoom: float) -> Camera:
    """The same camera with its focal length times ``zoom``."""
    return replace(camera, fx=camera.fx * zoom, fy=camera.fy * zoom)


def patch_rays(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """(P, 3) unit rays through the patch centres of an encoder-sized camera, and (P,) whether the lens model holds
    there.
    """
    x, y = (np.arange(size // PATCH) * PATCH + (PATCH - 1) / 2 for size in (camera.width, camera.height))
    return camera.bearings(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2))


def nodes(size: int) -> np.ndarray:
    """Positions 0, 7, 14, ... up to and including the last pixel."""
    return np.unique(np.append(np.arange(0, size, 7), size - 1)).astype(np.float64)


def upsample(coarse: np.ndarray, x: np.ndarray, y: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear interpolation of values at the nodes to every pixel: (len(y), len(x), C) -> (height, width, C) float32.

    Written as two matrix products, since cv2.remap rounds positions to 1/32 of a node's distance.
    """
    down, across = _tent(y, height), _tent(x, width)
    return np.stack([down @ coarse[..., axis] @ across.T for axis in range(coarse.shape[-1])], axis=-1)


def _tent(nodes: np.ndarray, size: int) -> np.ndarray:
    """(size, len(nodes)) float32 weights of linear interpolation between nodes."""
    return np.stack([np.interp(np.arange(size), nodes, unit) for unit in np.eye(len(nodes))], axis=1).astype(np.float32)


def change_light(image: np.ndarray, config: TrainingConfig, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and colour balance changed by up to ``jitter``, and one image in four slightly blurred."""
    gain = 1 + rng.uniform(-1, 1) * config.jitter
    balance = 1 + rng.uniform(-1, 1, 3) * config.jitter / 3
    offset = rng.uniform(-1, 1) * config.jitter * 64
    changed = np.clip(image * (gain * balance) + offset, 0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        changed = cv2.GaussianBlur(changed, (0, 0), rng.uniform(0.4, 1.2))
    return changed
