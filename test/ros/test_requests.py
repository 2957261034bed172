"""Hints and requests: initialpose, global localization, relocalize, and a SLAM that asks for a pose."""

from __future__ import annotations

import numpy as np
import pytest
from geometry_msgs.msg import PoseWithCovarianceStamped
from std_srvs.srv import Empty, Trigger

from dimm_ros.geometry import poses
from dimm_ros.msg import LocalizationStatus
from dimm_ros.ros.messages import to_pose, to_pose_with_covariance

from .robot import BASE_FROM_CAMERA, WORLD_FROM_CAMERA, rotated

MAP_FROM_BASE = WORLD_FROM_CAMERA @ poses.invert(BASE_FROM_CAMERA)
SECOND = 10**9


@pytest.fixture
def stream(make_robot):
    """A robot that stands still, and a function that sends it an image a second: ``send(count)`` returns their statuses."""

    def make(**parameters):
        robot = make_robot(**{"gate__enabled": True, **parameters})
        state = {"next": robot.now_ns() - 25 * SECOND}
        robot.send_info()

        def send(count: int = 1) -> list[LocalizationStatus]:
            statuses = []
            for _ in range(count):
                stamp, state["next"] = state["next"], state["next"] + SECOND
                robot.send_tf(stamp)
                statuses.append(robot.report_of(robot.send_image(stamp)).message)
            return statuses

        return robot, send

    return make


def call(robot, kind, name: str):
    client = robot.session.node.create_client(kind, name)
    assert client.wait_for_service(10.0)
    future = client.call_async(kind.Request())
    robot.wait(future.done)
    return future.result()


def hint(robot, pose: np.ndarray, frame: str = "hall", sigma: float = 0.5) -> None:
    """Publish on initialpose and wait until the node has it."""
    publisher = robot.session.node.create_publisher(PoseWithCovarianceStamped, "initialpose", 1)
    robot.wait(publisher.get_subscription_count)
    before = robot.node._pipeline._hint
    publisher.publish(to_pose_with_covariance(frame, robot.now_ns(), pose, np.diag(np.full(6, sigma**2))))
    robot.wait(lambda: robot.node._pipeline._hint is not before)


def test_a_first_fix_needs_agreement_and_a_jump_too(stream) -> None:
    robot, send = stream()
    statuses = send(3)
    assert [status.accepted for status in statuses] == [False, False, True]
    assert [status.state for status in statuses] == [LocalizationStatus.UNINITIALIZED] * 2 + [LocalizationStatus.LOCALIZED]
    assert "1 of 3 estimates agree" in statuses[0].reason
    elsewhere = rotated(0.0, 0.0, 1.0, 5.0, 0.0, 0.0) @ WORLD_FROM_CAMERA
    robot.localizer.world_from_camera = elsewhere
    statuses = send(2)
    assert not any(status.accepted for status in statuses) and statuses[0].state == LocalizationStatus.DEGRADED
    assert "from where the last pose and odometry put it" in statuses[0].reason
    assert send()[0].accepted
    jumped = robot.collector.answers[-1].map_from_body
    np.testing.assert_allclose(jumped, elsewhere @ poses.invert(BASE_FROM_CAMERA), atol=1e-9)
    assert len(robot.collector.answers) == 2


def test_a_wrong_pose_now_and_then_is_never_published(stream) -> None:
    robot, send = stream()
    send(3)
    for index in range(4):
        robot.localizer.world_from_camera = rotated(0.0, 0.0, index + 1.0, 3.0 * index, 1.0, 0.0) @ WORLD_FROM_CAMERA
        assert not send()[0].accepted
        robot.localizer.world_from_camera = WORLD_FROM_CAMERA
        assert send()[0].accepted
    for answer in robot.collector.answers:
        np.testing.assert_allclose(answer.map_from_body, MAP_FROM_BASE, atol=1e-9)


def test_a_hint_that_agrees_spares_an_image(stream) -> None:
    robot, send = stream()
    hint(robot, MAP_FROM_BASE)
    assert [status.accepted for status in send(2)] == [False, True]


def test_a_hint_that_is_wrong_does_no_harm(stream) -> None:
    robot, send = stream()
    hint(robot, rotated(0.0, 0.0, 2.0, 30.0, 30.0, 0.0), sigma=0.1)
    assert [status.accepted for status in send(3)] == [False, False, True]
    np.testing.assert_allclose(robot.collector.answers[-1].map_from_body, MAP_FROM_BASE, atol=1e-9)


@pytest.mark.parametrize("frame, pose, words", [
    ("attic", np.eye(4), "its frame is 'attic', the map's is 'hall'"), ("hall", np.full((4, 4), np.nan), "not finite"),
])
def test_a_hint_that_cannot_be_used_is_named(stream, frame, pose, words) -> None:
    robot, send = stream()
    publisher = robot.session.node.create_publisher(PoseWithCovarianceStamped, "initialpose", 1)
    robot.wait(publisher.get_subscription_count)
    message = PoseWithCovarianceStamped()
    message.header.frame_id = frame
    message.pose.pose = to_pose(np.eye(4))
    message.pose.pose.position.x = float(pose[0, 3])
    publisher.publish(message)
    assert robot.collector.wait_for(lambda: any(words in one.message.reason for one in robot.collector.reports), 10.0)
    assert [status.accepted for status in send(3)] == [False, False, True]


def test_global_localization_forgets_everything(stream) -> None:
    robot, send = stream()
    assert send(3)[-1].accepted
    call(robot, Empty, "/reinitialize_global_localization")
    statuses = send(3)
    assert [status.accepted for status in statuses] == [False, False, True]
    assert statuses[0].state == LocalizationStatus.UNINITIALIZED


def test_relocalize_checks_anew(stream) -> None:
    robot, send = stream()
    assert send(3)[-1].accepted
    answer = call(robot, Trigger, "/localizer/relocalize")
    assert answer.success and answer.message
    statuses = send(3)
    assert [status.accepted for status in statuses] == [False, False, True]
    assert statuses[0].state == LocalizationStatus.DEGRADED  # the transform goes on


def test_a_slam_that_asks_gets_the_next_pose_once(stream) -> None:
    robot, send = stream()
    node, received = robot.session.node, []
    node.create_subscription(PoseWithCovarianceStamped, "visual_slam/initial_pose", received.append, 10)
    asking = node.create_publisher(PoseWithCovarianceStamped, "visual_slam/trigger_hint", 10)
    robot.wait(lambda: asking.get_subscription_count() and robot.node.count_subscribers("visual_slam/initial_pose"))
    send(3)
    asking.publish(PoseWithCovarianceStamped())
    robot.wait(lambda: robot.node._requests.wanted)
    send(1)
    robot.wait(lambda: received)
    assert received[0].header.frame_id == "hall"
    answers = {answer.stamp_ns for answer in robot.collector.answers}
    assert received[0].header.stamp.sec * SECOND + received[0].header.stamp.nanosec in answers
    send(2)
    assert len(received) == 1
