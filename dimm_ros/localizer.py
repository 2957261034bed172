"""``Localizer``: a map, an encoder and a solver; ``localize(image, camera)`` reads like the paper."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dimm_ros.geometry.camera import Camera


@dataclass(frozen=True)
class Estimate:
    """What one image says about the camera's pose.

    Attributes:
        world_from_camera: (4, 4), map frame, metres, optical axes.
        covariance: (6, 6), order x, y, z, rx, ry, rz about fixed map axes (geometry_msgs/PoseWithCovariance).
        accepted: whether the acceptance rules hold; a rejected estimate still carries its pose for inspection.
        reason: one sentence when rejected, empty when accepted.
        inliers: rays that agree with both rotation and centre.
        rays: rays the solver saw.
        stage_ms: time of each stage in milliseconds: encode, head, solve, total.
        angle_residual_deg: (gh, gw) angle between predicted and solved direction of each patch, NaN where masked.
        moment_residual: (gh, gw) moment residual in metres, NaN where masked.
    """

    world_from_camera: np.ndarray
    covariance: np.ndarray
    accepted: bool
    reason: str
    inliers: int
    rays: int
    stage_ms: dict[str, float] = field(default_factory=dict)
    angle_residual_deg: np.ndarray | None = None
    moment_residual: np.ndarray | None = None

    @property
    def inlier_ratio(self) -> float:
        """Share of rays that agree with the pose, 0 to 1."""
        return self.inliers / self.rays if self.rays else 0.0


class Localizer:
    """Localizes images in one map.

    Attributes:
        frame_id: name of the map's world frame.
        name: the map's name.
    """

    frame_id: str
    name: str

    @classmethod
    def open(cls, map_path: str | Path, *, device: str = "auto", weights: str | Path | None = None) -> Localizer:
        """Load a map and the encoder it names.

        Raises:
            MapError: the file is missing, damaged, or for other weights.
            WeightsError: the encoder's weights are nowhere to be found.
        """
        raise NotImplementedError

    def warm_up(self, camera: Camera) -> None:
        """Run once on a grey image so that the first real image is not the slow one."""
        raise NotImplementedError

    def localize(self, image: np.ndarray, camera: Camera) -> Estimate:
        """Pose of one (H, W, 3) uint8 RGB image.

        Raises:
            InputError: the image's size is not the camera's, or it is not RGB uint8.
        """
        raise NotImplementedError
