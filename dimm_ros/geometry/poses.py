"""Rigid poses as (4, 4) float64 matrices named ``target_from_source``: ``p_target = target_from_source @ p_source``."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation, Slerp


def make_pose(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(4, 4) pose of a (3, 3) rotation and a (3,) translation."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, translation
    return pose


def from_quaternion(translation: np.ndarray, xyzw: np.ndarray) -> np.ndarray:
    """(4, 4) pose of a (3,) translation and a quaternion in ROS order (x, y, z, w); it need not be normalised."""
    return make_pose(Rotation.from_quat(xyzw).as_matrix(), translation)


def to_quaternion(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Translation (3,) and quaternion (x, y, z, w) of a (4, 4) pose."""
    return pose[:3, 3].copy(), Rotation.from_matrix(pose[:3, :3]).as_quat()


def invert(pose: np.ndarray) -> np.ndarray:
    """source_from_target of target_from_source; works on (..., 4, 4) stacks."""
    rotation_t = np.swapaxes(pose[..., :3, :3], -1, -2)
    result = np.zeros_like(pose)
    result[..., :3, :3] = rotation_t
    result[..., :3, 3] = -(rotation_t @ pose[..., :3, 3:])[..., 0]
    result[..., 3, 3] = 1.0
    return result


def is_rigid(pose: np.ndarray, tolerance: float = 1e-4) -> bool:
    """Whether an array is one finite (4, 4) pose: an orthonormal right-handed rotation (up to single precision), a
    translation.
    """
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        return False
    rotation = pose[:3, :3]
    orthonormal = np.abs(rotation @ rotation.T - np.eye(3)).max() < tolerance and np.linalg.det(rotation) > 0
    return bool(orthonormal and np.abs(pose[3] - [0, 0, 0, 1]).max() < tolerance)


def exp_so3(vector: np.ndarray) -> np.ndarray:
    """(3, 3) rotation of a (3,) rotation vector in radians."""
    return Rotation.from_rotvec(vector).as_matrix()


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """(..., 3) rotation vectors in radians of (..., 3, 3) rotations, one or several; inverse of ``exp_so3``."""
    rotation = np.asarray(rotation, dtype=np.float64)
    twice = rotation[..., [2, 0, 1], [1, 2, 0]] - rotation[..., [1, 2, 0], [2, 0, 1]]  # 2 sin(angle) axis
    cosine = np.trace(rotation, axis1=-2, axis2=-1) / 2 - 0.5
    if not (cosine > -0.9).all():  # near half a turn that difference vanishes
        return Rotation.from_matrix(rotation).as_rotvec()
    sine = np.sqrt(np.einsum("...i,...i->...", twice, twice)) / 2
    return twice * (np.arctan2(sine, cosine) / np.maximum(2 * sine, 1e-150))[..., None]


def rotation_angle_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle in degrees between (..., 3, 3) rotations; exact near zero, where arccos of the trace is not."""
    relative = np.swapaxes(a, -1, -2) @ b
    return np.degrees(Rotation.from_matrix(relative.reshape(-1, 3, 3)).magnitude()).reshape(relative.shape[:-2])


def pose_errors(estimated: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Translation error (in the poses' unit) and rotation error (degrees) between (..., 4, 4) poses."""
    distance = np.linalg.norm(estimated[..., :3, 3] - true[..., :3, 3], axis=-1)
    return distance, rotation_angle_deg(estimated[..., :3, :3], true[..., :3, :3])


def pose_difference(estimated: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(6,) error of a (4, 4) pose in the axes it is in: x, y, z in its unit, and the rotation vector that turns the
    true one into it, radians.
    """
    turned = rotation_vector(estimated[:3, :3] @ true[:3, :3].T)
    return np.concatenate([estimated[:3, 3] - true[:3, 3], turned])


def moved(pose: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """(4, 4) pose that errs by (6,) of another, the other way round of ``pose_difference``."""
    return make_pose(exp_so3(difference[3:]) @ pose[:3, :3], pose[:3, 3] + difference[:3])


def interpolate(stamps: np.ndarray, poses: np.ndarray, at: float) -> np.ndarray:
    """Pose at a time between samples: linear in translation, constant angular velocity in rotation.

    Args:
        stamps: (N,) increasing times.
        poses: (N, 4, 4).
        at: a time within [stamps[0], stamps[-1]].

    Raises:
        ValueError: outside that interval; a pose is never extrapolated.
    """
    if not stamps[0] <= at <= stamps[-1]:
        raise ValueError(f"time {at} lies outside [{stamps[0]}, {stamps[-1]}]")
    right = int(np.searchsorted(stamps, at))
    if stamps[right] == at:
        return poses[right].copy()
    left = right - 1
    fraction = float(at - stamps[left]) / float(stamps[right] - stamps[left])
    pair = Rotation.from_matrix(poses[[left, right], :3, :3])
    translation = (1 - fraction) * poses[left, :3, 3] + fraction * poses[right, :3, 3]
    return make_pose(Slerp([0.0, 1.0], pair)(fraction).as_matrix(), translation)
