"""Between full localizations the node tracks landmarks from the pose that odometry predicts, and leaves it at any
doubt.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dimm_ros.estimate import Estimate
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import make_pose

from .robot import BASE_FROM_CAMERA, ODOM_FROM_BASE, KnownPose, Robot


class TrackedPose(KnownPose):
    """Answers ``track`` with the known pose as well, and keeps what it was predicted to be; ``lost`` rejects there
    alone.
    """

    can_track, lost = True, ""

    def __init__(self) -> None:
        super().__init__()
        self.predicted: list[tuple[np.ndarray, np.ndarray]] = []
        self.before: list[Estimate | None] = []
        self.tracked: list[Estimate] = []

    def track(
        self,
        image: np.ndarray,
        camera: Camera,
        predicted_pose: np.ndarray,
        covariance: np.ndarray,
        before: Estimate | None = None,
    ) -> Estimate:
        self.predicted.append((predicted_pose, covariance))
        self.before.append(before)
        estimate = replace(
            self._estimate([int(image[0, 0, 0])]),
            basis="landmarks",
            landmarks=40,
            landmark_matches=50,
            inliers=0,
            rays=0,
        )
        self.tracked.append(replace(estimate, accepted=not self.lost, reason=self.lost))
        return self.tracked[-1]


def _look(robot: Robot, stamp_ns: int, odom_from_base: np.ndarray = ODOM_FROM_BASE):
    """The status of an image taken at a stamp."""
    robot.send_tf(stamp_ns, odom_from_base)
    robot.send_image(stamp_ns)
    return robot.report_of(stamp_ns).message


def _started(make_robot, **parameters: object) -> tuple[Robot, int]:
    robot = make_robot(localizer=TrackedPose(), **parameters)
    robot.send_info()
    return robot, robot.now_ns() - 5 * 10**9


def test_landmarks_are_tracked_until_a_full_localization_is_due(make_robot) -> None:
    robot, first = _started(make_robot, track=0.5)
    reports = [_look(robot, first + milliseconds * 10**6) for milliseconds in (0, 200, 400, 600, 800)]
    assert [report.tracked for report in reports] == [False, True, True, False, True]
    assert all(report.accepted for report in reports) and len(robot.localizer.seen) == 2
    assert (reports[1].basis, reports[1].landmarks, reports[1].landmark_matches) == ("landmarks", 40, 50)
    assert (reports[0].basis, reports[0].landmarks) == ("rays", 0)


def test_landmarks_are_followed_from_the_image_just_before_alone(make_robot) -> None:
    """At a camera's rate from each tracked image into the next; not after a pause, nor from before a rejection."""
    robot, first = _started(make_robot)
    for milliseconds in (0, 33, 66, 100, 400, 433):
        _look(robot, first + milliseconds * 10**6)
    one, two, three, four, _ = robot.localizer.tracked
    assert [id(each) for each in robot.localizer.before] == [id(each) for each in (None, one, two, None, four)]
    robot.localizer.lost = "Too few landmarks."
    _look(robot, first + 466 * 10**6)
    robot.localizer.lost = ""
    _look(robot, first + 500 * 10**6)
    assert robot.localizer.before[-1] is None


def test_odometry_says_where_to_look(make_robot) -> None:
    robot, first = _started(make_robot)
    assert not _look(robot, first).tracked
    forward = make_pose(np.eye(3), np.array([0.1, 0.0, 0.0]))
    assert _look(robot, first + 300 * 10**6, ODOM_FROM_BASE @ forward).tracked
    predicted, covariance = robot.localizer.predicted[0]
    moved = robot.localizer.world_from_camera @ np.linalg.inv(BASE_FROM_CAMERA) @ forward @ BASE_FROM_CAMERA
    np.testing.assert_allclose(predicted, moved, atol=1e-6)
    assert (np.diag(covariance) > np.diag(robot.localizer.covariance)).all()


def test_what_cannot_be_tracked_is_localized_in_full_at_once(make_robot) -> None:
    robot, first = _started(make_robot)
    robot.localizer.lost = "Too few landmarks."
    reports = [_look(robot, first + milliseconds * 10**6) for milliseconds in (0, 200)]
    assert [report.tracked for report in reports] == [False, False] and all(report.accepted for report in reports)
    assert len(robot.localizer.predicted) == 1 and len(robot.localizer.seen) == 2


def test_nothing_is_tracked_after_a_reset_a_rejection_or_a_pause(make_robot) -> None:
    robot, first = _started(make_robot)
    assert [_look(robot, first + milliseconds * 10**6).tracked for milliseconds in (0, 100)] == [False, True]
    robot.node._pipeline.forget(everything=True)
    assert [_look(robot, first + milliseconds * 10**6).tracked for milliseconds in (200, 300)] == [False, True]
    robot.localizer.reason, robot.localizer.lost = "Elsewhere.", "Too few landmarks."
    assert not _look(robot, first + 400 * 10**6).accepted
    robot.localizer.reason = robot.localizer.lost = ""
    assert [_look(robot, first + milliseconds * 10**6).tracked for milliseconds in (500, 600)] == [False, True]
    assert not _look(robot, first + 1300 * 10**6).tracked  # 0.7 s later: anybody's guess


def test_zero_tracks_nothing(make_robot) -> None:
    robot, first = _started(make_robot, track=0.0)
    assert [_look(robot, first + milliseconds * 10**6).tracked for milliseconds in (0, 100)] == [False, False]
    assert not robot.localizer.predicted
