"""Covariance of a pose: of one image, of a rig's cameras, or of the frames of a short odometry window.

The errors of a head are nearly the same for all rays of one image, so the solver's covariance, which holds for errors
independent between rays, is by far too small: the shared part is added, with the size that the map's calibration found
on single images. And two images of nearly the same view share their errors, too: so many say less than as many
independent ones.
"""

from __future__ import annotations

import numpy as np

from dimm_ros.geometry.covariance import lever
from dimm_ros.geometry.poses import rotation_angle_deg

#: Distance (metres) and turn (degrees) between two views over which the correlation of their errors falls to 1/e.
CORRELATION_DISTANCE, CORRELATION_ANGLE_DEG = 0.5, 20.0
#: Neighbouring patches see the same things: so many rays say what one independent ray would, where every patch is
#: sampled.
_ALIKE = 50.0


def redundancy(base_from_cameras: np.ndarray, weights: np.ndarray) -> float:
    """By how much K images say less than K independent ones: Kish's design effect, 1 (independent) to K (the same
    view).

        sum_ij w_i w_j rho_ij / sum_i w_i^2        rho_ij = exp(-distance_ij / D - angle_ij / A)

    The covariance of the images' joint solution for independent errors, times this, holds for errors with correlation
    rho. So K images shrink standard deviations by sqrt(K) at most, and by nothing while the camera stands still.

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
    covariance: np.ndarray,
    arm: np.ndarray,
    position_sigma: float,
    rotation_sigma: float,
    redundant: float = 1.0,
    images: float = 1.0,
    sampled_fraction: float = 1.0,
) -> np.ndarray:
    """Covariance of a pose whose rays err each for itself and, far more, all alike.

        redundant (rho f Sigma_rays + L diag(position_sigma^2, rotation_sigma^2) L^T / images)

    Args:
        covariance: (6, 6) of the base for independent rays, order x, y, z, rx, ry, rz about fixed world axes.
        arm: (3,) from the base's origin to the (mean) camera centre, world axes, metres: L carries the shared error,
            which holds at the cameras, to the base.
        position_sigma, rotation_sigma: of the error that all rays of one image share, metres and radians; see
            ``Calibration``.
        redundant: see ``redundancy``.
        images: number of images that the pose rests on, as weights say: (sum w)^2 / sum w^2.
        sampled_fraction: share f of the patches that gave the rays: the fewer, the less they are alike.
    """
    carried = lever(-np.asarray(arm, dtype=np.float64))
    shared = carried @ np.diag(np.repeat([position_sigma**2, rotation_sigma**2], 3)) @ carried.T
    result = redundant * (_ALIKE * sampled_fraction * covariance + shared / images)
    return (result + result.T) / 2.0


def effective_images(weights: np.ndarray) -> float:
    """Kish's effective number of images: (sum w)^2 / sum w^2, at least 1."""
    weights = np.asarray(weights, dtype=np.float64)
    return float(weights.sum() ** 2 / (weights @ weights)) if weights.sum() > 0 else 1.0
