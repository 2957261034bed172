"""A small world for the tests of landmarks: points with descriptors of their own, cameras that look at them."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from dimm_ros.geometry.poses import make_pose
from dimm_ros.landmarks.keypoints import SCALE, Keypoints
from dimm_ros.landmarks.store import Landmarks
from dimm_ros.landmarks.tracks import Tracks

SIGMA = 1.0 / 500.0


def cloud(rng: np.random.Generator, count: int) -> np.ndarray:
    """(N, 3) points in a slab 2 to 5 m in front of cameras near the origin that look along z."""
    return np.column_stack([rng.uniform(-2, 2, (count, 2)), rng.uniform(2, 5, count)])


def looks(rng: np.random.Generator, count: int, dim: int = 128) -> np.ndarray:
    """(N, D) uint8 descriptors, of which no two are alike."""
    values = np.abs(rng.normal(size=(count, dim)) * (rng.random((count, dim)) < 0.2))
    return np.rint(values / np.linalg.norm(values, axis=1, keepdims=True) * SCALE).clip(0, 255).astype(np.uint8)


def camera_poses(rng: np.random.Generator, count: int, reach: float = 0.5) -> np.ndarray:
    """(N, 4, 4) world_from_camera near the origin, looking roughly along z."""
    return np.stack(
        [
            make_pose(Rotation.from_rotvec(rng.normal(0, 0.1, 3)).as_matrix(), rng.uniform(-reach, reach, 3))
            for _ in range(count)
        ]
    )


def rays_to(
    pose: np.ndarray, points: np.ndarray, noise: float = 0.0, rng: np.random.Generator | None = None
) -> np.ndarray:
    """(N, 3) unit rays in the camera's frame, each tangent axis off by so many pixels."""
    rays = (points - pose[:3, 3]) @ pose[:3, :3]
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    if noise:
        rays = rays + noise * SIGMA * rng.normal(size=rays.shape)
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return rays


def keypoints_of(
    pose: np.ndarray, points: np.ndarray, descriptors: np.ndarray, noise: float = 0.0, rng=None
) -> Keypoints:
    """What a camera sees of all points."""
    rays = rays_to(pose, points, noise, rng)
    return Keypoints(rays, (rays[:, :2] / SIGMA).astype(np.float32), SIGMA, descriptors)


def landmarks_of(points: np.ndarray, descriptors: np.ndarray) -> Landmarks:
    """Points that were seen from about the origin."""
    distance = np.linalg.norm(points, axis=1)
    seen_from = np.column_stack(
        [-points / distance[:, None], np.full(len(points), 0.9), 0.7 * distance, 1.4 * distance]
    )
    return Landmarks(
        "points",
        points.astype(np.float32),
        descriptors,
        np.full(len(points), 5, np.uint8),
        seen_from.astype(np.float16),
    )


def tracks_of(
    points: np.ndarray, poses: np.ndarray, noise: float = 0.0, rng: np.random.Generator | None = None
) -> Tracks:
    """Every camera sees every point: observation after observation, camera after camera."""
    count = len(points)
    return Tracks(
        track=np.tile(np.arange(count), len(poses)),
        image=np.repeat(np.arange(len(poses)), count),
        bearings=np.concatenate([rays_to(pose, points, noise, rng) for pose in poses]),
        sigma=np.full(count * len(poses), SIGMA),
        descriptors=np.tile(looks(np.random.default_rng(0), count), (len(poses), 1)),
    )
