"""Odometry as wheels or a visual-inertial tracker give it: locally right, drifting in scale and heading."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


def drifting_odometry(
    stamps_ns: np.ndarray,
    world_from_base: np.ndarray,
    seed: int,
    *,
    scale_error: float = 0.015,
    yaw_walk_deg: float = 0.4,
    yaw_bias_deg: float = 0.03,
) -> np.ndarray:
    """Odometry along true poses, with its drift.

    Gravity is observed, so roll and pitch do not drift, and the transform map -> odom is a turn about z and a shift.

    Args:
        stamps_ns: (N,) increasing.
        world_from_base: (N, 4, 4) true poses.
        seed: another seed is another drift.
        scale_error: standard deviation of the relative error of distances, constant along the walk.
        yaw_walk_deg: random walk of the heading, degrees per square root of a second.
        yaw_bias_deg: standard deviation of the constant drift of the heading, degrees a second.

    Returns:
        (N, 4, 4) odom_from_base; the first pose is at the origin and heads along x.
    """
    rng = np.random.default_rng([seed, 0x0D0])
    seconds = np.diff(stamps_ns).astype(np.float64) * 1e-9
    scale = 1 + rng.normal(0, scale_error)
    steps = np.radians(yaw_walk_deg) * np.sqrt(seconds) * rng.standard_normal(len(seconds))
    error = np.concatenate([[0.0], np.cumsum(steps + np.radians(rng.normal(0, yaw_bias_deg)) * seconds)])
    forward = world_from_base[0, :3, 0]
    turn = Rotation.from_euler(
        "z", (error - np.arctan2(forward[1], forward[0]))[:, None]
    ).as_matrix()  # odom axes from world axes
    moved = scale * np.einsum("nij,nj->ni", turn[:-1], np.diff(world_from_base[:, :3, 3], axis=0))
    odom_from_base = np.tile(np.eye(4), (len(world_from_base), 1, 1))
    odom_from_base[:, :3, :3] = turn @ world_from_base[:, :3, :3]
    odom_from_base[1:, :3, 3] = np.cumsum(moved, axis=0)
    return odom_from_base
