"""Covariance of a pose that several images share: a rig's cameras, or frames of a short odometry window.

A head's error is nearly the same for all rays of one image, and nearly the same for two images of nearly the same view. The
solver's covariance holds for errors independent between rays; the map's calibration makes up for the first kind of correlation,
because it was measured on single images. This module makes up for the second, and applies the calibration where it was measured.
"""

from __future__ import annotations

import numpy as np

from dimm_ros.geometry.covariance import lever
from dimm_ros.geometry.poses import rotation_angle_deg

#: Distance (metres) and turn (degrees) between two views over which the correlation of their errors falls to 1/e.
CORRELATION_DISTANCE, CORRELATION_ANGLE_DEG = 0.5, 20.0


def redundancy(base_from_cameras: np.ndarray, weights: np.ndarray) -> float:
    """By how much K images say less than K independent ones: Kish's design effect, 1 (independent) to K (the same view).

        sum_ij w_i w_j rho_ij / sum_i w_i^2        rho_ij = exp(-distance_ij / D - angle_ij / A)

    The covariance of the images' joint solution for independent errors, times this, holds for errors with correlation rho. So K
    images shrink standard deviations by sqrt(K) at most, and by nothing while the camera stands still.

    Args:
        base_from_cameras: (K, 4, 4) poses of the images in one frame, metres.
        weights: (K,) influence of each image, such as its inliers.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if len(weights) == 1 or not weights.sum() > 0:
        return 1.0
    centres, rotations = base_from_cameras[:, :3, 3], base_from_cameras[:, :3, :3]
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    one, other = np.broadcast_arrays(rotations[:, None], rotations[None])
    angle = rotation_angle_deg(one, other)
    correlation = np.exp(-distance / CORRELATION_DISTANCE - angle / CORRELATION_ANGLE_DEG)
    return float(weights @ correlation @ weights / (weights @ weights))


def calibrated_covariance(
    covariance: np.ndarray, arm: np.ndarray, position_factor: float, rotation_factor: float, redundant: float = 1.0,
) -> np.ndarray:
    """A solver's covariance with a map's factors on its standard deviations.

    The factors hold at the cameras: there they multiply, and from there the result is carried to the base.

    Args:
        covariance: (6, 6) of the base, order x, y, z, rx, ry, rz about fixed world axes.
        arm: (3,) from the base's origin to the (mean) camera centre, world axes, metres.
        position_factor, rotation_factor: see ``scene_map.Calibration``.
        redundant: see ``redundancy``.
    """
    factors = np.repeat([position_factor, rotation_factor], 3)
    if not np.any(arm):  # one camera: no rounding of products with the identity
        return redundant * np.outer(factors, factors) * covariance
    scale = lever(-arm) @ np.diag(factors) @ lever(arm)
    result = redundant * scale @ covariance @ scale.T
    return (result + result.T) / 2.0
