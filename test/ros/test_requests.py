"""Hints and requests: initialpose, global localization, relocalize, and a SLAM that asks for a pose."""

from __future__ import annotations

import numpy as np
import pytest
from geometry_msgs.msg import PoseWithCovarianceStamped
from std_srvs.srv import Empty, Trigger

from dimm_ros.geometry import poses
from dimm_ros.msg import LocalizationStatus
from dimm_ros.ros.messages import to_pose, to_pose_with_covariance

from .robot import BASE_FROM_CAMERA, WORLD_FROM_CAMERA, KnownPose, rotated
from .waiting import PATIENCE

MAP_FROM_BASE = WORLD_FROM_CAMERA @ poses.invert(BASE_FROM_CAMERA)
SECOND = 10**9


@pytest.fixture
def stream(make_robot):
    """A robot that stands still, and a function that sends it an image a second: ``send(count)`` returns their
    statuses.
    """

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
    assert [status.state for status in statuses] == [LocalizationStatus.UNINITIALIZED] * 2 + [
        LocalizationStatus.LOCALIZED
    ]
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


def test_a_hint_in_a_frame_with_a_leading_slash(make_robot) -> None:
    """In the map's header and in the message; either of them names the same frame."""
    localizer = KnownPose()
    localizer.frame_id = "/hall"
    robot = make_robot(localizer=localizer)
    for frame in ("/hall", "hall"):
        hint(robot, MAP_FROM_BASE, frame)


def test_a_hint_that_is_wrong_does_no_harm(stream) -> None:
    robot, send = stream()
    hint(robot, rotated(0.0, 0.0, 2.0, 30.0, 30.0, 0.0), sigma=0.1)
    assert [status.accepted for status in send(3)] == [False, False, True]
    np.testing.assert_allclose(robot.collector.answers[-1].map_from_body, MAP_FROM_BASE, atol=1e-9)


@pytest.mark.parametrize(
    "frame, pose, words",
    [
        ("attic", np.eye(4), "its frame is 'attic', the map's is 'hall'"),
        ("hall", np.full((4, 4), np.nan), "not finite"),
    ],
)
def test_a_hint_that_cannot_be_used_is_named(stream, frame, pose, words) -> None:
    robot, send = stream()
    publisher = robot.session.node.create_publisher(PoseWithCovarianceStamped, "initialpose", 1)
    robot.wait(publisher.get_subscription_count)
    message = PoseWithCovarianceStamped()
    message.header.frame_id = frame
    message.pose.pose = to_pose(np.eye(4))
    message.pose.pose.position.x = float(pose[0, 3])
    publisher.publish(message)
    assert robot.collector.wait_for(
        lambda: any(words in one.message.reason for one in robot.collector.reports), PATIENCE
    )
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


def reinitialize(robot) -> None:
    call(robot, Empty, "/reinitialize_global_localization")


ASK = {
    "reinitialize": reinitialize,
    "relocalize": lambda robot: call(robot, Trigger, "/localizer/relocalize"),
    "hint": lambda robot: hint(robot, MAP_FROM_BASE),
}


def under_way(robot) -> int:
    """An image that the network has begun with; it goes on when ``robot.localizer.free`` is set. Returns its stamp."""
    robot.localizer.free.clear()
    robot.localizer.entered.clear()
    stamp = robot.localize()
    assert robot.localizer.entered.wait(PATIENCE)
    return stamp


def sent_by_timer(robot) -> list[str]:
    """Parents of the transforms that the node's timer sends, in three of its rounds."""
    transforms, broadcaster = robot.node._transforms, robot.node._pipeline._broadcaster
    sent, rounds, send, again = [], [], transforms.send, broadcaster.send
    transforms.send = lambda parent, *rest: (sent.append(parent), send(parent, *rest))
    broadcaster.send = lambda *arguments: (again(*arguments), rounds.append(1))
    robot.wait(lambda: len(rounds) >= 3)
    transforms.send, broadcaster.send = send, again
    return sent


@pytest.mark.parametrize("what", list(ASK))
def test_an_image_under_way_is_left_out(make_robot, what) -> None:
    """It was begun with what is to be forgotten: no pose, state or transform comes of it, and the next is answered."""
    robot = make_robot(tf_rate=100.0, tf_timeout=10.0)
    first = robot.localize()
    robot.answer_of(first)
    stamp = under_way(robot)
    ASK[what](robot)
    robot.localizer.free.set()
    status = robot.report_of(stamp).message
    assert not status.accepted and "began anew" in status.reason and (status.answered, status.dropped) == (1, 1)
    forgotten = what == "reinitialize"  # the others leave the transform
    assert status.state == (LocalizationStatus.UNINITIALIZED if forgotten else LocalizationStatus.LOCALIZED)
    assert set(sent_by_timer(robot)) == (set() if forgotten else {"hall"})
    later = robot.localize()
    robot.answer_of(later)
    assert [answer.stamp_ns for answer in robot.collector.answers] == [first, later]
    assert set(sent_by_timer(robot)) == {"hall"}


def test_what_is_under_way_when_time_begins_anew_is_left_out(make_robot) -> None:
    """And so is the image of the time before that waits for its turn."""
    robot = make_robot(max_image_age=0.0)
    first = robot.localize(1)
    robot.answer_of(first)
    stamp = under_way(robot)
    count = robot.node._rig.cameras[0].image.count
    robot.send_image(stamp + SECOND, 7)
    robot.wait(lambda: robot.node._rig.cameras[0].image.count > count)
    worker, pipeline = robot.node._worker, robot.node._pipeline
    forget = pipeline.forget

    def forget_and_go_on(**options) -> None:
        """The worker gets on before the first image of the new time is handed over."""
        forget(**options)
        robot.localizer.free.set()
        robot.wait(lambda: worker._waiting is None and not worker._busy)

    pipeline.forget = forget_and_go_on
    earlier = robot.send_image(stamp - 100 * SECOND, 9)
    assert "began anew" in robot.report_of(stamp).message.reason
    status = robot.report_of(earlier).message
    assert (status.received, status.answered, status.dropped) == (4, 2, 2)
    robot.answer_of(earlier)
    assert [answer.stamp_ns for answer in robot.collector.answers] == [first, earlier]
    assert robot.localizer.seen == [1, 0, 9]


@pytest.mark.parametrize("what", list(ASK))
def test_windows_are_forgotten(make_robot, what) -> None:
    """A window's earlier images were linked to what is to be forgotten; a hint says that the robot may be elsewhere."""
    robot = make_robot(window=3, tf_timeout=10.0)
    start = robot.now_ns() - 20 * SECOND
    for index in range(4):
        if index == 2:
            ASK[what](robot)
        robot.send_tf(start + index * SECOND)
        if not index:
            robot.send_info()
        robot.answer_of(robot.send_image(start + index * SECOND))
    assert [count for count, _, _ in robot.localizer.joint] == [1, 2, 1, 2]
