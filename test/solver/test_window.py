"""Covariance of several images' joint pose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dimm_ros.geometry.covariance import lever
from dimm_ros.geometry.poses import exp_so3, make_pose
from dimm_ros.solver.window import calibrated_covariance, effective_images, redundancy

seeds = st.integers(0, 2**31 - 1)
property_test = settings(max_examples=30, deadline=None)


def _poses(rng: np.random.Generator, count: int, spread: float) -> np.ndarray:
    return np.array(
        [make_pose(exp_so3(spread * rng.standard_normal(3)), spread * rng.standard_normal(3)) for _ in range(count)]
    )


@property_test
@given(seed=seeds, count=st.integers(1, 8), spread=st.floats(0.0, 3.0))
def test_redundancy_lies_between_independence_and_one_view(seed: int, count: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    poses, weights = _poses(rng, count, spread), rng.integers(1, 500, count)
    value = redundancy(poses, weights)
    assert 1.0 <= value <= count + 1e-9
    moved = make_pose(Rotation.random(random_state=rng).as_matrix(), rng.standard_normal(3)) @ poses
    assert redundancy(moved, weights) == pytest.approx(value)


def test_a_standing_camera_learns_nothing_new_and_a_far_one_all() -> None:
    still = np.tile(np.eye(4), (6, 1, 1))
    assert redundancy(still, np.full(6, 300)) == pytest.approx(6.0)
    far = still.copy()
    far[:, 0, 3] = 10.0 * np.arange(6)
    assert redundancy(far, np.full(6, 300)) == pytest.approx(1.0)
    assert redundancy(still, np.array([300, 0, 0, 0, 0, 0])) == pytest.approx(1.0)  # five saw nothing
    assert redundancy(still, np.zeros(6)) == 1.0


@property_test
@given(seed=seeds, position=st.floats(0.01, 0.5), rotation=st.floats(0.01, 0.3))
def test_the_shared_error_at_the_camera_does_not_depend_on_where_the_base_is(
    seed: int, position: float, rotation: float
) -> None:
    rng = np.random.default_rng(seed)
    root, arm = rng.standard_normal((6, 6)), rng.standard_normal(3)
    at_camera = 1e-4 * (root @ root.T + 0.1 * np.eye(6))
    at_base = lever(-arm) @ at_camera @ lever(-arm).T
    expected = lever(-arm) @ calibrated_covariance(at_camera, np.zeros(3), position, rotation) @ lever(-arm).T
    np.testing.assert_allclose(calibrated_covariance(at_base, arm, position, rotation), expected, rtol=1e-6, atol=1e-9)
    # A third of the patches: three times the covariance of independent rays, which are that much less alike.
    np.testing.assert_allclose(
        calibrated_covariance(3 * at_base, arm, position, rotation, sampled_fraction=1 / 3),
        expected,
        rtol=1e-6,
        atol=1e-9,
    )
    doubled = calibrated_covariance(at_base, arm, position, rotation, redundant=2.0)
    np.testing.assert_allclose(doubled, 2.0 * expected, rtol=1e-6, atol=1e-9)


def test_the_shared_error_of_k_equal_images() -> None:
    """K images of one view say as much as one, K independent ones as the mean of K errors: their covariance is a
    Kth.
    """
    nothing, weights = np.zeros((6, 6)), np.full(4, 300.0)
    one = calibrated_covariance(nothing, np.zeros(3), 0.1, 0.02)
    np.testing.assert_allclose(np.diag(one), [0.01] * 3 + [0.0004] * 3)
    still, far = np.tile(np.eye(4), (4, 1, 1)), np.tile(np.eye(4), (4, 1, 1))
    far[:, 0, 3] = 10.0 * np.arange(4)
    for poses, expected in ((still, one), (far, one / 4)):
        joint = calibrated_covariance(
            nothing, np.zeros(3), 0.1, 0.02, redundancy(poses, weights), effective_images(weights)
        )
        np.testing.assert_allclose(joint, expected, rtol=1e-6)
    assert effective_images(np.array([300, 0, 0])) == 1.0 and effective_images(np.zeros(3)) == 1.0


def test_a_lever_turns_rotation_into_a_shift() -> None:
    arm, turn = np.array([0.5, -0.2, 1.0]), np.array([1e-5, 2e-5, -1e-5])
    moved = lever(arm) @ np.concatenate([[0.1, 0.2, 0.3], turn])
    np.testing.assert_allclose(moved[:3] - [0.1, 0.2, 0.3], exp_so3(turn) @ arm - arm, atol=1e-9)
    np.testing.assert_array_equal(moved[3:], turn)
