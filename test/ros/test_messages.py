"""Poses, covariances and images between messages and arrays."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dimm_ros.geometry import poses
from dimm_ros.ros.messages import (
    floor_covariance,
    from_pose,
    from_transform,
    stamp_ns,
    to_image,
    to_pose,
    to_pose_with_covariance,
    to_rgb,
    to_stamp,
    to_transform,
    transport_covariance,
)


def random_pose(rng: np.random.Generator) -> np.ndarray:
    return poses.make_pose(poses.exp_so3(rng.normal(size=3)), rng.normal(size=3) * 3)


def random_covariance(rng: np.random.Generator) -> np.ndarray:
    root = rng.normal(size=(6, 6)) * np.repeat([1e-3, 1e-3], 3)[:, None]
    return root @ root.T


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamp_round_trip(nanoseconds: int) -> None:
    assert stamp_ns(to_stamp(nanoseconds)) == nanoseconds


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_pose_round_trip(seed: int) -> None:
    pose = random_pose(np.random.default_rng(seed))
    np.testing.assert_allclose(from_pose(to_pose(pose)), pose, atol=1e-12)
    np.testing.assert_allclose(from_transform(to_transform("a", "b", 5, pose).transform), pose, atol=1e-12)


def test_covariance_moves_with_the_lever_arm() -> None:
    """Against the spread of bases of cameras that are drawn from the camera's covariance."""
    rng = np.random.default_rng(3)
    map_from_camera, camera_from_base = random_pose(rng), random_pose(rng)
    covariance = random_covariance(rng)
    base = map_from_camera @ camera_from_base
    samples = []
    for shift in rng.multivariate_normal(np.zeros(6), covariance, size=40_000):
        camera = poses.make_pose(poses.exp_so3(shift[3:]) @ map_from_camera[:3, :3], map_from_camera[:3, 3] + shift[:3])
        moved = camera @ camera_from_base
        samples.append([*(moved[:3, 3] - base[:3, 3]), *poses.rotation_vector(moved[:3, :3] @ base[:3, :3].T)])
    measured = np.cov(np.array(samples).T)
    predicted = transport_covariance(covariance, map_from_camera, camera_from_base)
    scale = np.sqrt(np.outer(np.diag(predicted), np.diag(predicted)))
    assert np.abs((measured - predicted) / scale).max() < 0.03
    assert np.abs((measured - covariance) / scale).max() > 0.3  # the lever arm matters here


@given(st.integers(0, 10**6), st.booleans())
@settings(max_examples=25, deadline=None)
def test_floor_leaves_no_direction_too_certain(seed: int, degenerate: bool) -> None:
    rng = np.random.default_rng(seed)
    covariance = np.zeros((6, 6)) if degenerate else random_covariance(rng) * 10 ** rng.uniform(-4, 4)
    floored = floor_covariance(covariance, 0.01, 0.02)
    np.testing.assert_array_equal(floored, floored.T)
    units = np.repeat([0.01, 0.02], 3)
    assert np.linalg.eigvalsh(floored / np.outer(units, units)).min() > 0.999
    # it never takes uncertainty away
    assert np.linalg.eigvalsh((floored - covariance) / np.outer(units, units)).min() > -1e-6


def test_floor_keeps_a_covariance_above_it() -> None:
    covariance = np.diag([0.1, 0.2, 0.3, 0.01, 0.02, 0.03])
    np.testing.assert_allclose(floor_covariance(covariance, 0.01, 0.01), covariance, rtol=1e-12)


def test_pose_with_covariance_is_in_ros_order() -> None:
    covariance = np.arange(36.0).reshape(6, 6)
    message = to_pose_with_covariance("map", 1_500_000_000_000_000_123, np.eye(4), covariance)
    assert message.header.frame_id == "map" and message.header.stamp.nanosec == 123
    np.testing.assert_array_equal(np.array(message.pose.covariance).reshape(6, 6), covariance)


def test_image_round_trip() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_rgb(to_image(image, "camera", 1)), image)


def test_stamps_beyond_what_a_message_holds() -> None:
    for damaged in ((2**31 - 1) * 10**9 + 2**32 - 1, -(2**31) * 10**9 - 1):
        cut = to_stamp(damaged)
        assert abs(cut.sec) >= 2**31 - 1 and stamp_ns(to_stamp(stamp_ns(cut))) == stamp_ns(cut)
