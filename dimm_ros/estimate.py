"""Results of localizing images: an ``Observation`` (rays, no pose yet) and an ``Estimate`` (a judged pose)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import Tensor

from dimm_ros.encoder.patches import PatchGrid
from dimm_ros.head.model import Rays
from dimm_ros.landmarks.follow import Followed
from dimm_ros.landmarks.keypoints import KeypointLevels

#: What a pose rests on.
Basis = Literal["rays", "landmarks", "both"]


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The rays that one image's valid patches predict, and its keypoints: all that the solver needs of an image.

    Attributes:
        grid: which camera ray each patch stands for.
        rays: predicted world rays, in the map's normalised frame, on the localizer's device.
        context: (C,) global context of the image.
        cls: (W,) CLS token of the image.
        stage_ms: time of each stage in milliseconds: prepare, keypoints, encode, head.
        keypoints: of the image; None in a map without landmarks.
    """

    grid: PatchGrid
    rays: Rays
    context: Tensor
    cls: Tensor
    stage_ms: dict[str, float]
    keypoints: KeypointLevels | None = None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Pose estimated from one image, a rig's images or a window of frames.

    Attributes:
        world_from_camera: (4, 4), map frame, metres, optical axes; world_from_base for a rig.
        covariance: (6, 6), order x, y, z, rx, ry, rz about fixed map axes (geometry_msgs/PoseWithCovariance).
        accepted: whether the acceptance rules hold; a rejected estimate still carries its pose for inspection.
        reason: one sentence when rejected, empty when accepted.
        inliers: rays that agree with both rotation and centre.
        rays: rays the solver saw.
        stage_ms: time of each stage in milliseconds: prepare, keypoints, encode, head, solve, landmarks (with the fine
            level's keypoints where they are needed), total. Of a window, the newest images' stages.
        cls: (W,) float32 CLS token of the (last) image.
        angle_residual_deg: (rows, columns) angle between predicted and solved direction of each patch, NaN where masked
            (the lens model does not hold there, or ``solver.rays`` are sampled already); last image.
        centre_residual: (rows, columns) distance of the solved centre from each predicted ray, metres, NaN where
            masked; last image.
        world_rays: (rows, columns, 6) predicted ray of each patch, NaN where masked: unit direction, moment about the
            map frame's origin (metres); last image.
        image_inlier_ratios: share of each image's rays that agree, in the order given; fewer than given when earlier
            images of a window were left out, because the newest contradicts them.
        novelty: how unlike all mapped views the image is (the median of several images), see ``head.global_pose``; None
            if unknown.
        inlier_mask: (rows, columns) bool: the patches whose rays agree with the pose; last image.
        basis: what the pose rests on: rays, landmarks, or both (landmarks with the rays' pose as their prior).
        landmarks: matched landmarks that agree with the pose; 0 where it rests on rays alone.
        landmark_matches: keypoints that were matched with a landmark at all.
        landmark_proof: how far chance is out of the question, as a power of ten; see ``solver.landmark_pose``.
        image_landmarks: landmarks that agree in each image, in the order given.
        landmark_pixels: (N, 2) keypoints of the last image that agree, pixels.
        followed: of a tracked image, its landmarks, which ``Localizer.track`` can follow into the next.
    """

    world_from_camera: np.ndarray
    covariance: np.ndarray
    accepted: bool
    reason: str
    inliers: int
    rays: int
    stage_ms: dict[str, float] = field(default_factory=dict)
    cls: np.ndarray | None = None
    angle_residual_deg: np.ndarray | None = None
    centre_residual: np.ndarray | None = None
    world_rays: np.ndarray | None = None
    image_inlier_ratios: tuple[float, ...] = ()
    novelty: float | None = None
    inlier_mask: np.ndarray | None = None
    basis: Basis = "rays"
    landmarks: int = 0
    landmark_matches: int = 0
    landmark_proof: float | None = None
    image_landmarks: tuple[int, ...] = ()
    landmark_pixels: np.ndarray | None = None
    followed: Followed | None = None

    @property
    def inlier_ratio(self) -> float:
        """Share of rays that agree with the pose, 0 to 1."""
        return self.inliers / self.rays if self.rays else 0.0
