"""The rays of one image as colour fields, predicted beside true: direction, moment, and how far off they are (as the
paper shows them).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dimm_ros.encoder.patches import PATCH, patch_grid
from dimm_ros.estimate import Estimate
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.covariance import position_sigma
from dimm_ros.geometry.poses import pose_errors
from dimm_ros.pictures.plots import literal, pyplot
from dimm_ros.pictures.ray_picture import LIMIT_DEG, ray_residual_picture

_STRETCH = (0.02, 0.98)  # quantiles of the reference's values that get the ends of the colours


def rays_of_pose(camera: Camera, shape: tuple[int, int], world_from_camera: np.ndarray) -> np.ndarray:
    """(rows, columns, 6) world rays (direction, moment about the origin) of the patches of an image taken from a
    pose.
    """
    grid = patch_grid(camera, PATCH * max(shape))  # the longer side is a whole number of patches
    directions = grid.rays @ world_from_camera[:3, :3].T
    rays = np.concatenate([directions, np.cross(world_from_camera[:3, 3], directions)], axis=1)
    rays[~grid.valid] = np.nan
    return rays.reshape(*shape, 6)


def draw_ray_field(
    path: Path,
    title: str,
    image: np.ndarray,
    camera: Camera,
    estimate: Estimate,
    true: np.ndarray | None = None,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
) -> Path:
    """Write a PNG of an image's rays.

    Args:
        path: of the PNG.
        title: above it.
        image: (H, W, 3) uint8 RGB.
        camera: its intrinsics.
        estimate: its estimate.
        true: (4, 4) true world_from_camera; without it the solved pose's rays stand beside the predicted ones.
        origin: about which moments are taken, metres: the map's, so that they fill the colours.
    """
    plt = pyplot()
    name, pose = ("solved pose", estimate.world_from_camera) if true is None else ("true", true)
    predicted = _about(estimate.world_rays, origin)
    reference = _about(rays_of_pose(camera, predicted.shape[:2], pose), origin)
    turned = np.cross(predicted[..., :3], reference[..., :3])
    angle = np.degrees(
        np.arctan2(np.linalg.norm(turned, axis=2), (predicted[..., :3] * reference[..., :3]).sum(axis=2))
    )
    shift = 100 * np.linalg.norm(predicted[..., 3:] - reference[..., 3:], axis=2)
    figure, axes = plt.subplots(2, 4, figsize=(14, 6), layout="constrained")
    agreement = "angle to the solved pose's rays:\nthey agree, which is not yet right"
    pictures = ((image, "image"), (ray_residual_picture(image, estimate), agreement))
    for row, ((picture, caption), part, unit, error) in enumerate(
        zip(pictures, ("direction", "moment"), ("deg", "cm"), (angle, shift), strict=True)
    ):
        axes[row, 0].imshow(picture)
        axes[row, 0].set_title(caption)
        field, other = predicted[..., 3 * row : 3 * row + 3], reference[..., 3 * row : 3 * row + 3]
        low, high = (np.nanquantile(other.reshape(-1, 3), share, axis=0) for share in _STRETCH)
        for column, (values, whose) in enumerate(((field, "predicted"), (other, name)), start=1):
            axes[row, column].imshow(_colours(values, low, high))
            axes[row, column].set_title(f"{part}, {whose}")
        shown = axes[row, 3].imshow(
            error,
            cmap="turbo",
            vmin=0,
            vmax=max(LIMIT_DEG if row == 0 else 0, float(np.nanquantile(error, 0.98)), 1e-9),
        )
        axes[row, 3].set_title(f"{part}, error (median {np.nanmedian(error):.1f} {unit})")
        figure.colorbar(shown, ax=axes[row, 3], label=unit)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    if true is not None:
        distance, rotation = pose_errors(estimate.world_from_camera, true)
        stated = f"it states +- {100 * position_sigma(estimate.covariance):.0f} cm" if estimate.accepted else "rejected"
        title = f"{title}: pose off by {100 * distance:.1f} cm, {rotation:.2f} deg ({stated})"
    figure.suptitle(f"{literal(title)}\ncolours: x, y, z of the ray as red, green, blue, stretched alike in both")
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def _about(rays: np.ndarray, origin: Sequence[float]) -> np.ndarray:
    """Rays with their moments taken about another point."""
    return np.concatenate(
        [rays[..., :3], rays[..., 3:] - np.cross(np.asarray(origin, dtype=np.float64), rays[..., :3])], axis=-1
    )


def _colours(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(rows, columns, 3) colours, grey where there is no ray."""
    scaled = np.clip((values - low) / np.maximum(high - low, 1e-9), 0, 1)
    return np.where(np.isfinite(scaled), scaled, 0.5)
