"""A second publisher of the localizer's transform, or a second parent of the robot, is noticed and named."""

from __future__ import annotations

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from tf2_msgs.msg import TFMessage

from dimm_ros.replay.session import LocalSession
from dimm_ros.ros.messages import to_transform
from dimm_ros.ros.tf import DYNAMIC_QOS, STATIC_QOS, make_transforms
from dimm_ros.ros.tf_conflicts import KEEP_S, ConflictDetector, WatchedTransforms

from .robot import rotated, wait

OURS = rotated(0.0, 0.0, 0.3, 1.0, 2.0, 0.0)
OTHER = rotated(0.0, 0.0, 0.3, 1.0, 2.01, 0.0)
STEP = 50_000_000


def talking(detector: ConflictDetector, count: int = 10, **foreign: object) -> None:
    """We publish map -> odom at 20 Hz and hear it back; somebody else's transforms come between."""
    for index in range(count):
        detector.sent("map", "odom", index * STEP, OURS)
        detector.heard("map", "odom", index * STEP, OURS, index * 0.05)
        if foreign:
            detector.heard(
                foreign["parent"],
                foreign["child"],
                foreign.get("stamp", lambda i: i * STEP + 1)(index),
                OTHER,
                index * 0.05,
                bool(foreign.get("static")),
            )


class TestDetector:
    def test_our_own_transforms_are_no_conflict(self) -> None:
        detector = ConflictDetector("odom", "base_link")
        talking(detector)
        assert detector.conflict(0.5) == ""

    @pytest.mark.parametrize(
        "stamp", [lambda index: index * STEP + 1, lambda index: index * STEP], ids=["other stamps", "the same stamps"]
    )
    def test_second_publisher_of_our_transform(self, stamp) -> None:
        detector = ConflictDetector("odom", "base_link")
        talking(detector, parent="/map", child="/odom", stamp=stamp)
        sentence = detector.conflict(0.5)
        assert "'map' -> 'odom'" in sentence and "tf_mode to none" in sentence
        assert detector.conflict(0.5 + KEEP_S) == ""  # it has stopped

    def test_second_parent_of_our_frame(self) -> None:
        detector = ConflictDetector("odom", "base_link")
        talking(detector, parent="world", child="odom")
        sentence = detector.conflict(0.5)
        assert "'odom' the parent 'world'" in sentence and "'map' -> 'odom'" in sentence

    def test_said_before_our_first_pose(self) -> None:
        detector = ConflictDetector("odom", "base_link")
        for index in range(5):
            detector.heard("map", "odom", index, OTHER, index * 0.1)
        assert "'map' -> 'odom'" in detector.conflict(0.5)

    def test_static_transform_stays_a_conflict(self) -> None:
        detector = ConflictDetector("odom", "base_link")
        detector.heard("map", "odom", 0, OTHER, 0.0, static=True)
        detector.clear()
        assert "static transform" in detector.conflict(1000.0)

    def test_a_late_message_of_an_ended_node_is_forgiven(self) -> None:
        detector = ConflictDetector("odom", "base_link")
        detector.heard("map", "odom", 1, OTHER, 0.0)
        detector.heard("map", "odom", 2, OTHER, 0.0)
        talking(detector)
        assert detector.conflict(0.5) == ""

    def test_two_parents_of_the_robot(self) -> None:
        detector = ConflictDetector("odom", "base_link")
        for index in range(5):
            detector.heard("odom", "base_link", index, OURS, index * 0.1)
        assert detector.conflict(0.5) == ""  # odometry is the robot's parent, as it should be
        detector.heard("map", "base_link", 9, OTHER, 0.5)
        sentence = detector.conflict(0.6)
        assert "'base_link' two parents, 'map' and 'odom'" in sentence
        detector.clear()
        assert detector.conflict(0.6) == ""

    def test_other_frames_do_not_matter(self) -> None:
        detector = ConflictDetector("odom", "base_link")
        assert detector.watches("/odom") and detector.watches("base_link")
        assert (
            not detector.watches("camera_optical_frame")
            and not detector.watches("")
            and not ConflictDetector("", "").watches("")
        )


@pytest.mark.parametrize("topic, qos", [("/tf", DYNAMIC_QOS), ("/tf_static", STATIC_QOS)])
def test_over_tf(session, topic, qos) -> None:
    """Our own broadcasts come back and are known; another node's are not, and that node is named."""
    transforms = WatchedTransforms(make_transforms(session.node), session.node, "map_odom", "odom", "base_link")
    back = []
    session.node.create_subscription(TFMessage, "/tf", back.append, DYNAMIC_QOS)
    with LocalSession("amcl", session.domain_id) as other:
        publisher = other.node.create_publisher(TFMessage, topic, qos)
        for index in range(20):
            transforms.send("map", "odom", index * STEP, OURS)
        wait(lambda: len(back) >= 20)
        assert transforms.conflict() == ""

        def heard() -> str:
            publisher.publish(
                TFMessage(transforms=[to_transform("map", "odom", 7, OTHER), to_transform("x", "y", 7, np.eye(4))])
            )
            return transforms.conflict()

        wait(heard)
        assert "'map' -> 'odom'" in transforms.conflict() and "amcl" in transforms.conflict()
    transforms.destroy()


def test_the_node_says_so(make_robot, session) -> None:
    """In status and in /diagnostics, naming both frames, who publishes TF and what to do; and no longer when it has
    stopped.
    """
    diagnostics = []
    session.node.create_subscription(DiagnosticArray, "/diagnostics", diagnostics.append, 10)
    robot = make_robot()
    robot.answer_of(robot.localize())
    said = lambda: diagnostics[-1].status[0] if diagnostics else DiagnosticStatus()  # noqa: E731
    robot.wait(lambda: said().level == DiagnosticStatus.OK and said().message == "LOCALIZED")
    with LocalSession("slam_toolbox", session.domain_id) as other:
        publisher = other.node.create_publisher(TFMessage, "/tf", DYNAMIC_QOS)

        def heard() -> bool:
            publisher.publish(TFMessage(transforms=[to_transform("hall", "odom", robot.now_ns(), OTHER)]))
            return "'hall' -> 'odom' too" in robot.report_of(robot.localize()).message.reason

        robot.wait(heard)
        robot.wait(lambda: said().level == DiagnosticStatus.WARN and "'hall' -> 'odom'" in said().message)
        assert "slam_toolbox" in said().message and "tf_mode to none" in said().message
    robot.wait(lambda: robot.report_of(robot.localize()).message.reason == "")
