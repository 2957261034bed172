"""Where the tracker says that a body should be, against integrals and odometry of its own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from dimm_ros.config import GateConfig
from dimm_ros.geometry.poses import make_pose
from dimm_ros.tracking.tracker import Tracker

CONFIG = GateConfig()
START = 1_760_000_000_000_000_000
COVARIANCE = np.diag([1e-4, 2e-4, 3e-4, 1e-5, 2e-5, 3e-5])


def random_pose(rng: np.random.Generator) -> np.ndarray:
    return make_pose(Rotation.random(random_state=rng).as_matrix(), rng.normal(size=3))


def at(seconds: float) -> int:
    return START + round(seconds * 1e9)


def test_nothing_is_predicted_before_anything_is_believed() -> None:
    tracker = Tracker()
    assert tracker.predict(START, None, CONFIG) is None and tracker.predict(START, np.eye(4), CONFIG) is None
    tracker.believe(START, np.eye(4), COVARIANCE, None, full=True)
    assert tracker.predict(at(0.1), None, CONFIG) is None  # one pose has no velocity
    tracker.forget()
    assert tracker.predict(at(0.1), np.eye(4), CONFIG) is None and tracker.due(at(0.1), 10.0)


def test_odometry_moves_the_last_pose() -> None:
    """map_from_odom is the same before and after, whatever the two frames are."""
    rng = np.random.default_rng(0)
    map_from_odom, before, after = (random_pose(rng) for _ in range(3))
    tracker = Tracker()
    tracker.believe(START, map_from_odom @ before, COVARIANCE, before, full=True)
    predicted = tracker.predict(at(0.2), after, CONFIG)
    np.testing.assert_allclose(predicted.map_from_body, map_from_odom @ after, atol=1e-9)


def test_odometrys_drift_makes_it_less_sure() -> None:
    """As the gate's own figures say, of a metre travelled while turning by half a radian."""
    tracker, moved = Tracker(), make_pose(Rotation.from_rotvec([0, 0, 0.5]).as_matrix(), [1.0, 0, 0])
    tracker.believe(START, np.eye(4), np.zeros((6, 6)), np.eye(4), full=True)
    covariance = tracker.predict(at(0.3), moved, CONFIG).covariance
    np.testing.assert_allclose(np.diag(covariance)[:3], CONFIG.odometry_drift**2)
    turned = np.radians(CONFIG.odometry_turn_drift_deg) + CONFIG.odometry_turn_scale * 0.5
    np.testing.assert_allclose(np.diag(covariance)[3:], turned**2)
    still = tracker.predict(at(0.3), np.eye(4), CONFIG).covariance
    np.testing.assert_allclose(np.diag(still), np.repeat([0.01, np.radians(0.5)], 3) ** 2)


def test_an_unsure_rotation_makes_a_pose_ahead_unsure() -> None:
    """The last pose's own errors, carried along the motion: against samples of them."""
    rng, last = np.random.default_rng(1), random_pose(np.random.default_rng(2))
    moved = make_pose(Rotation.from_rotvec([0.1, 0.2, -0.1]).as_matrix(), [0.6, -0.2, 0.3])
    covariance = np.diag([1e-4, 4e-4, 1e-4, 4e-3, 9e-3, 1e-3])
    tracker = Tracker()
    tracker.believe(START, last, covariance, np.eye(4), full=True)
    predicted = tracker.predict(at(0.2), moved, CONFIG)
    drift = predicted.covariance.copy()
    tracker.forget()
    tracker.believe(START, last, np.zeros((6, 6)), np.eye(4), full=True)
    drift -= tracker.predict(at(0.2), moved, CONFIG).covariance
    errors = rng.multivariate_normal(np.zeros(6), covariance, 20_000)
    centres = last[:3, 3] + errors[:, :3] + Rotation.from_rotvec(errors[:, 3:]).apply(last[:3, :3] @ moved[:3, 3])
    samples = np.hstack([centres, errors[:, 3:]])
    np.testing.assert_allclose(drift, np.cov(samples.T), atol=1.5e-4)


def test_without_odometry_the_velocity_is_kept() -> None:
    """Along a helix: the body turns and advances evenly, and goes on so."""
    rng = np.random.default_rng(3)
    start, turn, advance = random_pose(rng), np.array([0.2, -0.1, 0.9]), np.array([0.5, 0.1, -0.2])

    def body(seconds: float) -> np.ndarray:
        cross = np.array([[0, -turn[2], turn[1]], [turn[2], 0, -turn[0]], [-turn[1], turn[0], 0]])
        twist = np.zeros((4, 4))
        twist[:3, :3], twist[:3, 3] = cross, advance
        return start @ expm(seconds * twist)

    tracker = Tracker()
    for seconds in (0.0, 0.1):
        tracker.believe(at(seconds), body(seconds), np.zeros((6, 6)), None, full=False)
    for ahead in (0.05, 0.1, 0.2):
        predicted = tracker.predict(at(0.1 + ahead), None, CONFIG)
        # Exact over the same time; over another one the chord for the arc.
        np.testing.assert_allclose(
            predicted.map_from_body[:3, 3], body(0.1 + ahead)[:3, 3], atol=1e-9 if ahead == 0.1 else 6e-3
        )
        np.testing.assert_allclose(predicted.map_from_body[:3, :3], body(0.1 + ahead)[:3, :3], atol=1e-9)
    soon, later = (np.diag(tracker.predict(at(0.1 + ahead), None, CONFIG).covariance) for ahead in (0.05, 0.4))
    assert (later > soon).all() and later[0] == pytest.approx((0.5 * 1.0 * 0.4**2) ** 2)
    # Odometry of now without that of then is no odometry.
    np.testing.assert_array_equal(
        tracker.predict(at(0.2), np.eye(4), CONFIG).map_from_body, tracker.predict(at(0.2), None, CONFIG).map_from_body
    )


def test_what_is_too_old_or_not_later_is_not_predicted() -> None:
    tracker = Tracker()
    for seconds in (0.0, 0.1):
        tracker.believe(at(seconds), np.eye(4), COVARIANCE, np.eye(4), full=True)
    for seconds, known in ((0.1, False), (0.05, False), (0.11, True), (0.59, True), (0.61, False)):
        for odometry in (None, np.eye(4)):
            assert (tracker.predict(at(seconds), odometry, CONFIG) is not None) == known
    # Two poses that are far apart in time tell no velocity.
    tracker.believe(at(0.8), np.eye(4), COVARIANCE, np.eye(4), full=True)
    assert tracker.predict(at(0.9), None, CONFIG) is None and tracker.predict(at(0.9), np.eye(4), CONFIG) is not None


def test_a_clock_that_was_set_back_is_a_new_beginning() -> None:
    tracker = Tracker()
    for seconds in (5.0, 5.1, 1.0):
        tracker.believe(at(seconds), np.eye(4), COVARIANCE, None, full=False)
    assert tracker.predict(at(1.1), None, CONFIG) is None  # the velocity from 5.1 to 1.0 is none
    tracker.believe(at(1.1), np.eye(4), COVARIANCE, None, full=False)
    assert tracker.predict(at(1.2), None, CONFIG) is not None


def test_a_full_localization_is_due_after_its_time() -> None:
    tracker = Tracker()
    assert tracker.due(START, 1.0)
    tracker.believe(START, np.eye(4), COVARIANCE, None, full=True)
    assert not tracker.due(at(0.5), 1.0)
    tracker.believe(at(0.9), np.eye(4), COVARIANCE, None, full=False)  # a tracked image is no full one
    assert not tracker.due(at(0.99), 1.0) and tracker.due(at(1.0), 1.0)
    assert tracker.due(at(-0.1), 1.0)  # the clock went back
