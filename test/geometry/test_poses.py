"""Rigid poses: group laws, exponential map, interpolation, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from dimm_ros.geometry.poses import (
    exp_so3,
    from_quaternion,
    interpolate,
    invert,
    make_pose,
    moved,
    pose_difference,
    pose_errors,
    rotation_angle_deg,
    rotation_vector,
    to_quaternion,
)

PROPERTY = settings(max_examples=80, deadline=None)

translations = arrays(float, 3, elements=st.floats(-100, 100))
unit_vectors = (
    arrays(float, 3, elements=st.floats(-1, 1))
    .filter(lambda v: np.linalg.norm(v) > 0.1)
    .map(lambda v: v / np.linalg.norm(v))
)
#: Rotation vectors of up to half a turn, very small ones among them.
turns = st.builds(
    lambda axis, angle: axis * angle, unit_vectors, st.one_of(st.floats(0, math.pi - 1e-3), st.floats(0, 1e-7))
)
poses = st.builds(lambda turn, translation: make_pose(exp_so3(turn), translation), turns, translations)


def cross_matrix(v: np.ndarray) -> np.ndarray:
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])


@PROPERTY
@given(a_from_b=poses, b_from_c=poses)
def test_inverse(a_from_b: np.ndarray, b_from_c: np.ndarray) -> None:
    np.testing.assert_allclose(a_from_b @ invert(a_from_b), np.eye(4), atol=1e-12)
    np.testing.assert_allclose(invert(a_from_b @ b_from_c), invert(b_from_c) @ invert(a_from_b), atol=1e-11)
    stack = np.stack([a_from_b, b_from_c])
    np.testing.assert_array_equal(invert(stack), [invert(a_from_b), invert(b_from_c)])
    np.testing.assert_allclose(invert(stack[None])[0, 1], np.linalg.inv(b_from_c), atol=1e-11)


@PROPERTY
@given(turn=turns)
def test_exponential_and_logarithm(turn: np.ndarray) -> None:
    rotation = exp_so3(turn)
    np.testing.assert_allclose(rotation, expm(cross_matrix(turn)), atol=1e-12)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rotation_vector(rotation), turn, atol=1e-9)


@PROPERTY
@given(pose=poses, length=st.floats(0.1, 10), sign=st.sampled_from([-1.0, 1.0]))
def test_quaternions_of_any_length_and_sign(pose: np.ndarray, length: float, sign: float) -> None:
    translation, xyzw = to_quaternion(pose)
    assert np.linalg.norm(xyzw) == pytest.approx(1.0)
    np.testing.assert_allclose(from_quaternion(translation, sign * length * xyzw), pose, atol=1e-12)


def test_quaternions_are_in_ros_order() -> None:
    """A quarter turn about z carries x to y."""
    half = math.sqrt(0.5)
    pose = from_quaternion(np.array([1.0, 2.0, 3.0]), np.array([0, 0, half, half]))
    np.testing.assert_allclose(pose @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-12)


def test_to_quaternion_gives_a_copy() -> None:
    pose = np.eye(4)
    to_quaternion(pose)[0][:] = 7.0
    np.testing.assert_array_equal(pose, np.eye(4))


@PROPERTY
@given(pose=poses, turn=turns, shift=translations)
def test_errors_are_the_distance_and_the_angle_between(pose: np.ndarray, turn: np.ndarray, shift: np.ndarray) -> None:
    other = make_pose(pose[:3, :3] @ exp_so3(turn), pose[:3, 3] + shift)
    distance, angle = pose_errors(other, pose)
    assert distance == pytest.approx(np.linalg.norm(shift), abs=1e-9)
    # exact also for a millionth of a degree
    assert math.radians(angle) == pytest.approx(np.linalg.norm(turn), rel=1e-6, abs=1e-12)
    distances, angles = pose_errors(np.stack([other, pose]), np.stack([pose, pose]))
    np.testing.assert_allclose(distances, [distance, 0], atol=1e-12)
    np.testing.assert_allclose(angles, [angle, 0], atol=1e-10)


@PROPERTY
@given(a=turns, b=turns)
def test_angles_of_stacks(a: np.ndarray, b: np.ndarray) -> None:
    one, other = exp_so3(a), exp_so3(b)
    grid = rotation_angle_deg(np.stack([one, other])[:, None], np.stack([one, other])[None])
    assert grid.shape == (2, 2)
    np.testing.assert_allclose(grid, grid.T, atol=1e-9)
    np.testing.assert_allclose(np.diag(grid), 0, atol=1e-10)
    assert grid[0, 1] <= math.degrees(np.linalg.norm(a) + np.linalg.norm(b)) + 1e-6


@PROPERTY
@given(start=poses, end=poses, fraction=st.floats(0, 1))
def test_interpolation_turns_at_constant_speed_along_a_straight_line(
    start: np.ndarray, end: np.ndarray, fraction: float
) -> None:
    total = float(rotation_angle_deg(start[:3, :3], end[:3, :3]))
    assume(total < 179)  # at half a turn there is no one way
    at = 5.0 + 2.0 * fraction
    fraction = (at - 5.0) / 2.0
    between = interpolate(np.array([5.0, 7.0]), np.stack([start, end]), at)
    np.testing.assert_allclose(between[:3, 3], start[:3, 3] + fraction * (end[:3, 3] - start[:3, 3]), atol=1e-10)
    # scipy's matrix exponential of a share of the whole turn, about the axis that both ends share
    whole = Rotation.from_matrix(end[:3, :3] @ start[:3, :3].T).as_rotvec()
    np.testing.assert_allclose(between[:3, :3], expm(fraction * cross_matrix(whole)) @ start[:3, :3], atol=1e-9)
    np.testing.assert_allclose(between[3], [0, 0, 0, 1], atol=0)


def test_interpolation_takes_the_two_samples_around_a_time() -> None:
    stamps = np.array([0, 10, 30, 40], dtype=np.int64)
    samples = np.stack(
        [make_pose(exp_so3(np.array([0, 0, angle])), [x, 0, 0]) for x, angle in ((0, 0), (1, 0.2), (5, 0.8), (5, 0.8))]
    )
    middle = interpolate(stamps, samples, 20)
    np.testing.assert_allclose(middle, make_pose(exp_so3(np.array([0, 0, 0.5])), [3, 0, 0]), atol=1e-12)
    for stamp, sample in zip(stamps, samples, strict=True):
        result = interpolate(stamps, samples, stamp)
        np.testing.assert_array_equal(result, sample)
        result[:] = 0  # the samples are not handed out
    assert samples[:, 3, 3].tolist() == [1, 1, 1, 1]


def test_interpolation_is_exact_for_stamps_of_today_in_nanoseconds() -> None:
    """Nanoseconds since 1970 do not fit a double to the nanosecond; differences must be taken first."""
    start = 1_790_000_000_123_456_789
    stamps = np.array([start, start + 1000], dtype=np.int64)
    samples = np.stack([make_pose(np.eye(3), [0, 0, 0]), make_pose(np.eye(3), [1, 0, 0])])
    assert interpolate(stamps, samples, start + 250)[0, 3] == pytest.approx(0.25, abs=1e-12)


@pytest.mark.parametrize("at", [-0.001, 1.001])
def test_nothing_is_extrapolated(at: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        interpolate(np.array([0.0, 1.0]), np.stack([np.eye(4), np.eye(4)]), at)


@PROPERTY
@given(poses, poses)
def test_a_pose_that_errs_by_the_difference_is_the_other(pose: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_allclose(moved(pose, pose_difference(other, pose)), other, atol=1e-6 * (1 + np.abs(other).max()))
