"""What there is to see of a localized image, whatever draws it: cameras, paths, rays, inliers. Metres, in the map's
frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dimm_ros.data.recording import Frame
from dimm_ros.estimate import Estimate
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import pose_errors
from dimm_ros.pictures.ray_picture import LIMIT_DEG, patch_centres, ray_lines, residual_colours

#: Colours (RGB) that mean the same in every viewer.
TRUE, ACCEPTED, REJECTED = (150, 150, 150), (40, 120, 220), (220, 40, 40)

RAY_M = 0.5  # length at which rays are drawn
FRUSTUM_M = 0.15  # depth of a drawn camera


@dataclass(frozen=True)
class ShownRun:
    """A run, as far as it is known before the first image.

    Attributes:
        name: of the map and the data, for titles.
        frame_id: the map's frame.
        true_path: (N, 3) true camera centres; None when they are not known.
        start_ns: stamp of the first image.
        up: (3,) unit vector that is up in the map's frame, as far as the cameras tell; None when not known.
    """

    name: str
    frame_id: str
    true_path: np.ndarray | None = None
    start_ns: int = 0
    up: np.ndarray | None = None

    @classmethod
    def of(cls, name: str, frame_id: str, frames: list[Frame]) -> ShownRun:
        """Of the frames that are going to be localized."""
        posed = [frame.world_from_camera for frame in frames if frame.world_from_camera is not None]
        poses = np.stack(posed) if posed else None
        return cls(
            name,
            frame_id,
            None if poses is None else poses[:, :3, 3],
            frames[0].stamp_ns if frames else 0,
            None if poses is None else _unit(-poses[:, :3, 1].mean(axis=0)),
        )


@dataclass(frozen=True)
class ShownFrame:
    """A localized image as writers draw it.

    Attributes:
        name, stamp_ns: of the image.
        image: (H, W, 3) uint8 RGB.
        camera: its intrinsics.
        estimate: its estimate.
        true: (4, 4) true world_from_camera; None when not known.
        lines: (N, 2, 3) its rays, each from its point nearest to the solved centre.
        colours: (N, 3) uint8 RGB by the angle between predicted and solved ray.
        inliers: (N,) bool: rays that agree with the pose.
        pixels: (N, 2) where the rays' patches are in the image.
    """

    name: str
    stamp_ns: int
    image: np.ndarray
    camera: Camera
    estimate: Estimate
    true: np.ndarray | None
    lines: np.ndarray
    colours: np.ndarray
    inliers: np.ndarray
    pixels: np.ndarray

    @classmethod
    def of(cls, frame: Frame, image: np.ndarray, estimate: Estimate) -> ShownFrame:
        """A frame with its image and its estimate."""
        lines, known = ray_lines(estimate, RAY_M)
        residual = (
            np.full(len(lines), np.nan)
            if estimate.angle_residual_deg is None
            else estimate.angle_residual_deg.ravel()[known]
        )
        mask = np.zeros(len(lines), bool) if estimate.inlier_mask is None else estimate.inlier_mask.ravel()[known]
        pixels = np.zeros((0, 2))
        if estimate.world_rays is not None:
            pixels = patch_centres(image.shape[1], image.shape[0], *estimate.world_rays.shape[:2])[known]
        colours = residual_colours(residual, LIMIT_DEG)
        return cls(
            frame.name,
            frame.stamp_ns,
            image,
            frame.camera,
            estimate,
            frame.world_from_camera,
            lines,
            colours,
            mask,
            pixels,
        )

    @property
    def errors(self) -> tuple[float, float] | None:
        """Metres and degrees from the true pose; None when it is not known."""
        if self.true is None:
            return None
        distance, angle = pose_errors(self.estimate.world_from_camera, self.true)
        return float(distance), float(angle)


class Sink(Protocol):
    """A writer: a context manager that takes the frames in turn; what it writes is complete when its block ends."""

    def add(self, frame: ShownFrame) -> None: ...


def frustum(camera: Camera, world_from_camera: np.ndarray, depth: float = FRUSTUM_M) -> np.ndarray:
    """(16, 3) ends of the eight edges of a camera's pyramid, one edge after the other; corners that the lens does not
    reach are cut.
    """
    width, height = camera.width - 0.5, camera.height - 0.5
    rays, valid = camera.bearings(np.array([[-0.5, -0.5], [width, -0.5], [width, height], [-0.5, height]]))
    inward = np.array([camera.cx, camera.cy])
    if not valid.all():
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) * 0.5 + inward * 0.5
        rays, _ = camera.bearings(corners)
    corners = rays / np.maximum(rays[:, 2:], 0.2) * depth
    corners = corners @ world_from_camera[:3, :3].T + world_from_camera[:3, 3]
    centre = np.broadcast_to(world_from_camera[:3, 3], corners.shape)
    edges = np.concatenate(
        [np.stack([centre, corners], axis=1), np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)]
    )
    return edges.reshape(-1, 3)


def _unit(vector: np.ndarray) -> np.ndarray | None:
    length = np.linalg.norm(vector)
    return vector / length if length > 0.3 else None
