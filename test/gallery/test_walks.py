"""Walks and odometry: smooth, different, and drifting as they say."""

from __future__ import annotations

import numpy as np
import pytest

from dimm_ros.gallery.odometry import drifting_odometry
from dimm_ros.gallery.trajectory import START_NS, camera_mount, trajectory
from dimm_ros.geometry import poses


def to_nearest(test: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (m) and angle (degrees) of every test pose to every training pose, (T, N) each."""
    distance = np.linalg.norm(test[:, None, :3, 3] - train[None, :, :3, 3], axis=-1)
    angle = np.stack(
        [poses.rotation_angle_deg(np.broadcast_to(pose[:3, :3], (len(train), 3, 3)), train[:, :3, :3]) for pose in test]
    )
    return distance, angle


@pytest.mark.parametrize("style", ["handheld", "robot"])
@pytest.mark.parametrize("seeds", [(0, 1), (1, 2), (3, 7)])
def test_two_walks_differ_but_see_the_same(style, seeds):
    train, test = (trajectory(seed, seconds, 8, style=style)[1] for seed, seconds in zip(seeds, (80, 30)))
    distance, angle = to_nearest(test, train)
    repeated = ((distance < 0.02) & (angle < 1.0)).any(axis=1).mean()
    assert repeated < 0.1, "most test poses must be new"
    helpful = ((distance < 0.4) & (angle < 20.0)).any(axis=1).mean()
    assert helpful > 0.95, "yet a training view must be near"


@pytest.mark.parametrize("style", ["handheld", "robot"])
def test_motion_is_smooth_and_stays_in_the_room(style):
    stamps, walk = trajectory(4, 60, 50, style=style)
    assert (
        stamps.dtype == np.int64
        and stamps[0] == START_NS
        and np.all(np.diff(stamps) == 20_000_000)
        and len(stamps) == 3001
    )
    speed = np.linalg.norm(np.diff(walk[:, :3, 3], axis=0), axis=1) * 50
    turn = poses.rotation_angle_deg(walk[:-1, :3, :3], walk[1:, :3, :3]) * 50
    assert 0.2 < speed.mean() < 0.8 and speed.max() < 1.2 and turn.max() < 90
    acceleration = np.linalg.norm(np.diff(walk[:, :3, 3], n=2, axis=0), axis=1) * 50**2
    assert acceleration.max() < 5
    np.testing.assert_allclose(
        np.swapaxes(walk[:, :3, :3], 1, 2) @ walk[:, :3, :3], np.broadcast_to(np.eye(3), (len(walk), 3, 3)), atol=1e-12
    )
    forward = walk[:-1, :3, 0]
    moving = np.einsum("ni,ni->n", forward, np.diff(walk[:, :3, 3], axis=0)) > 0
    assert moving.mean() > 0.95  # it walks where it looks
    if style == "robot":
        assert not walk[:, 2, 3].any() and np.allclose(walk[:, 2, 2], 1, atol=1e-12)
    else:
        assert np.ptp(walk[:, 2, 3]) > 0.1 and np.degrees(np.arccos(walk[:, 2, 2])).max() > 3


def test_a_seed_is_a_walk():
    np.testing.assert_array_equal(trajectory(6, 10, 10)[1], trajectory(6, 10, 10)[1])
    with pytest.raises(ValueError, match="positive"):
        trajectory(6, 0, 10)


def test_camera_mount_looks_forward_and_down():
    mount = camera_mount((0.1, 0.2, 0.3), pitch_down_deg=10, yaw_deg=90)
    # optical z
    np.testing.assert_allclose(mount[:3, 2], [0, np.cos(np.radians(10)), -np.sin(np.radians(10))], atol=1e-12)
    np.testing.assert_allclose(mount[:3, 0], [1, 0, 0], atol=1e-12)  # optical x: to the right of a view along +y
    assert mount[2, 1] < -0.9 and np.linalg.det(mount[:3, :3]) == pytest.approx(1)


def test_odometry_without_errors_is_the_walk_itself():
    stamps, walk = trajectory(1, 20, 20)
    odometry = drifting_odometry(stamps, walk, 0, scale_error=0, yaw_walk_deg=0, yaw_bias_deg=0)
    offset = walk @ poses.invert(odometry)
    np.testing.assert_allclose(offset, np.broadcast_to(offset[0], offset.shape), atol=1e-9)
    np.testing.assert_allclose(odometry[0, :3, 3], 0, atol=1e-12)
    assert odometry[0, 1, 0] == pytest.approx(0, abs=1e-12) and odometry[0, 0, 0] > 0.9


def test_odometry_drifts_in_heading_and_scale_only():
    stamps, walk = trajectory(1, 120, 20)
    yaws, lengths = [], []
    for seed in range(40):
        odometry = drifting_odometry(stamps, walk, seed, scale_error=0.02, yaw_walk_deg=0.5, yaw_bias_deg=0)
        map_from_odom = walk @ poses.invert(odometry)
        np.testing.assert_allclose(map_from_odom[:, 2, 2], 1, atol=1e-9)  # gravity is kept
        angles = np.unwrap(np.arctan2(map_from_odom[:, 1, 0], map_from_odom[:, 0, 0]))
        yaws.append(np.degrees(angles[-1] - angles[0]))
        steps = [np.linalg.norm(np.diff(poses_[:, :3, 3], axis=0), axis=1).sum() for poses_ in (odometry, walk)]
        lengths.append(steps[0] / steps[1] - 1)
    assert 0.6 < np.std(yaws) / (0.5 * np.sqrt(120)) < 1.5
    assert 0.6 < np.std(lengths) / 0.02 < 1.5


def test_relative_motion_of_odometry_is_locally_right():
    stamps, walk = trajectory(2, 60, 10)
    odometry = drifting_odometry(stamps, walk, 5)
    true, seen = (poses.invert(chain[:-10]) @ chain[10:] for chain in (walk, odometry))  # over one second
    distance, angle = poses.pose_errors(seen, true)
    assert distance.max() < 0.06 and angle.max() < 2.5
    drift = poses.pose_errors(walk[0] @ poses.invert(odometry[0]) @ odometry[-1:], walk[-1:])[0]
    assert drift[0] > 0.02
