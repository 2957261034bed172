"""Absolute pose from rays and points, by PoseLib (LO-RANSAC, then bundle adjustment of the pose)."""

from __future__ import annotations

import numpy as np

from dimm_ros.geometry.poses import make_pose

_MIN_INLIERS = 12
_HYPOTHESES = (100, 10000)


def pose_from_points(
    camera_rays: np.ndarray, points: np.ndarray, focal: float, threshold_px: float, loss_px: float | None = None
) -> np.ndarray | None:
    """(4, 4) world_from_camera from (N, 3) camera rays and the (N, 3) world points that they hit, or None without
    agreement.

    Args:
        focal: pixels of the image in which ``threshold_px``, the largest reprojection error of an inlier, is meant. The
            lens does not matter: rays are projected on the plane z = 1.
        loss_px: scale of the refinement's Cauchy loss; half the threshold by default.
    """
    import poselib

    ahead = camera_rays[:, 2] > 0.05
    if ahead.sum() < _MIN_INLIERS:
        return None
    rays = camera_rays[ahead]
    camera = {"model": "SIMPLE_PINHOLE", "width": 1, "height": 1, "params": [1.0, 0.0, 0.0]}
    options = {
        "max_reproj_error": threshold_px / focal,
        "min_iterations": _HYPOTHESES[0],
        "max_iterations": _HYPOTHESES[1],
        "seed": 0,
    }
    # Distances on the plane z = 1 are small numbers, for which the loss of PoseLib's refinement must be told its scale.
    refinement = {"loss_type": "CAUCHY", "loss_scale": (loss_px or 0.5 * threshold_px) / focal}
    pose, info = poselib.estimate_absolute_pose(
        np.ascontiguousarray(rays[:, :2] / rays[:, 2:]),
        np.ascontiguousarray(points[ahead], dtype=np.float64),
        camera,
        options,
        refinement,
    )
    if info["num_inliers"] < _MIN_INLIERS:
        return None
    return make_pose(pose.R.T, -pose.R.T @ pose.t)
