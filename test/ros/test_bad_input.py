"""Bad input to the node: each is one clear sentence in the status, and the node goes on."""

from __future__ import annotations

import array
import re

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Log
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from dimm_ros.msg import LocalizationStatus
from dimm_ros.replay.session import LocalSession
from dimm_ros.scene_map import SceneMap

from .robot import BASE_FROM_CAMERA, KnownPose
from .waiting import PATIENCE


def recovers(robot) -> None:
    """The next good image is answered."""
    assert robot.report_of(robot.localize()).message.accepted


def test_no_map_file(make_robot, tmp_path) -> None:
    robot = make_robot(real=True, ready=False, map=str(tmp_path / "none.safetensors"))
    assert robot.says("does not exist", 60.0)
    status = robot.collector.reports[-1].message
    assert "none.safetensors" in status.reason and "dimm map" in status.reason
    assert (
        status.state == LocalizationStatus.UNINITIALIZED and not status.accepted and robot.node.state == "unconfigured"
    )


def test_no_map_given(make_robot, session) -> None:
    diagnostics = []
    session.node.create_subscription(DiagnosticArray, "/diagnostics", diagnostics.append, 10)
    robot = make_robot(real=True, ready=False)
    robot.wait(lambda: diagnostics and diagnostics[-1].status[0].level == b"\x02")
    assert robot.says("set the parameter 'map'") and robot.node.state == "unconfigured"


@pytest.mark.parametrize(
    "change, words",
    [
        ({"k": [0.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]}, "focal length"),
        ({"k": [float("nan"), 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]}, "NaN"),
        ({"distortion_model": "cylinder"}, "cylinder"),
        ({"width": 0}, "image size"),
    ],
    ids=["zero focal length", "NaN", "unknown distortion model", "zero width"],
)
def test_bad_camera_info(make_robot, change, words) -> None:
    robot = make_robot()
    robot.send_info(**change)
    status = robot.report_of(robot.send_image()).message
    assert words in status.reason and not status.accepted
    recovers(robot)


def test_image_of_another_size_than_camera_info(make_robot) -> None:
    robot = make_robot()
    robot.send_info(width=32, height=24)
    status = robot.report_of(robot.send_image()).message
    assert "64x48" in status.reason and "32x24" in status.reason
    recovers(robot)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"encoding": "rgb9"}, "rgb9"),
        ({"encoding": "32FC1"}, "not a picture"),
        ({"data": array.array("B", bytes(100))}, "truncated"),
        ({"data": array.array("B")}, "truncated"),
        ({"step": 5}, "step"),
        ({"height": 0}, "empty image"),
    ],
    ids=["unknown encoding", "depth", "truncated", "no data", "short step", "no rows"],
)
def test_bad_image(make_robot, change, words) -> None:
    robot = make_robot()
    robot.send_info()
    status = robot.report_of(robot.send_image(**change)).message
    assert words in status.reason and not status.accepted
    recovers(robot)


def test_damaged_compressed_image(make_robot) -> None:
    robot = make_robot(image_transport="compressed")
    robot.send_info()
    status = robot.report_of(robot.send_compressed("jpeg", b"\xff\xd8\xff rubbish")).message
    assert "cannot be decoded" in status.reason and not status.accepted


def test_no_camera_info(make_robot) -> None:
    robot = make_robot()
    status = robot.report_of(robot.send_image()).message
    assert "camera_info" in status.reason and "'/camera_info'" in status.reason
    recovers(robot)


def test_no_extrinsics_in_tf(make_robot) -> None:
    robot = make_robot(tf_timeout=0.05)
    robot.send_info()
    status = robot.report_of(robot.send_image()).message
    assert "'camera_optical_frame'" in status.reason and "'base_link'" in status.reason and not status.accepted
    recovers(robot)


def test_no_odometry_in_tf(make_robot) -> None:
    robot = make_robot(tf_timeout=0.05)
    robot.send_static("base_link", "camera_optical_frame", BASE_FROM_CAMERA)
    robot.send_info()
    status = robot.report_of(robot.send_image()).message
    assert status.accepted and status.state == LocalizationStatus.DEGRADED
    assert "'odom'" in status.reason and "map_odom" in status.reason
    assert not [one for one in robot.collector.broadcasts if one.parent == "hall"]
    recovers(robot)


def test_old_image(make_robot) -> None:
    robot = make_robot(max_image_age=PATIENCE)  # the good one may take its time
    robot.send_info()
    status = robot.report_of(robot.send_image(robot.now_ns() - 1000 * 10**9)).message
    age = float(re.search(r"The image is ([\d.]+) s old, more than max_image_age", status.reason)[1])
    assert 1000 <= age < 1000 + PATIENCE and status.dropped == 1
    recovers(robot)


def test_image_from_the_future(make_robot) -> None:
    robot = make_robot(max_image_age=1.0)
    robot.send_info()
    status = robot.report_of(robot.send_image(robot.now_ns() + 1000 * 10**9)).message
    assert "future" in status.reason and "clocks" in status.reason


def test_covariance_that_is_not_finite(make_robot) -> None:
    robot = make_robot()
    good = robot.localizer.covariance
    robot.localizer.covariance = good * float("nan")
    status = robot.report_of(robot.localize()).message
    assert "not finite" in status.reason and not status.accepted and not robot.collector.answers
    robot.localizer.covariance = good
    recovers(robot)


def test_a_bug_does_not_end_the_node(make_robot) -> None:
    robot = make_robot()
    good = robot.localizer.localize

    def broken(image, camera):
        raise ZeroDivisionError("division by zero")

    robot.localizer.localize = broken
    status = robot.report_of(robot.localize()).message
    assert "Unexpected ZeroDivisionError" in status.reason
    robot.localizer.localize = good
    recovers(robot)


def test_a_bug_beside_the_image_does_not_end_the_worker(make_robot, session) -> None:
    """One that nothing on the worker's thread expects: the status cannot be published."""
    lines = []
    session.node.create_subscription(Log, "/rosout", lambda line: lines.append(line.msg), 100)
    robot = make_robot()
    robot.wait(lambda: session.node.count_publishers("/rosout"))
    good = robot.node._reporter.publish

    def broken(status):
        robot.node._reporter.publish = good
        raise ZeroDivisionError("division by zero")

    robot.node._reporter.publish = broken
    robot.answer_of(robot.localize())  # the pose is out before
    robot.wait(lambda: any("ZeroDivisionError: division by zero" in line for line in lines))
    recovers(robot)


def test_maps_that_cannot_be_announced_fail_to_load(make_robot) -> None:
    """Loading ends whatever happens, or configure would wait for ever."""
    localizer = KnownPose()
    localizer.frame_id = None
    robot = make_robot(localizer=localizer, ready=False)
    assert robot.says("Unexpected AttributeError")
    assert robot.node.state == "unconfigured"


def test_no_image_is_missed_while_one_is_under_way(make_robot, session, monkeypatch) -> None:
    """A player that waits for each answer is silent meanwhile; one that is silent while another is not is named."""
    monkeypatch.setattr("dimm_ros.ros.node._WATCHDOG_S", 0.1)
    monkeypatch.setattr("dimm_ros.ros.cameras._FIRST_S", 0.0)
    rounds = []
    session.node.create_subscription(DiagnosticArray, "/diagnostics", rounds.append, 10)
    robot = make_robot(cameras=["front", "left"], tf_mode="none")
    robot.send_static("base_link", "camera_optical_frame", BASE_FROM_CAMERA)
    robot.send_info("front")
    robot.localizer.free.clear()
    stamp = robot.send_image(name="front")
    assert robot.localizer.entered.wait(PATIENCE)
    rounds.clear()
    robot.wait(lambda: len(rounds) >= 2)  # one may have been due when the image came
    before = len(robot.collector.reports)
    robot.wait(lambda: len(rounds) >= 10)
    assert len(robot.collector.reports) == before

    def left_is_named() -> bool:
        robot.send_image(name="front")
        said = [one.message.reason for one in robot.collector.reports[before:]]
        return any("'/left/image'" in reason and "'/front/image'" not in reason for reason in said)

    robot.wait(left_is_named)
    robot.localizer.free.set()
    robot.report_of(stamp)
    assert robot.says("No front/image arrives on '/front/image'")


def test_silence_names_the_topic(make_robot) -> None:
    robot = make_robot()
    said = lambda: [one.message.reason for one in robot.collector.reports if "No image arrives" in one.message.reason]  # noqa: E731
    assert robot.collector.wait_for(said, PATIENCE)
    assert "'/image' (1 publisher, none so far)" in said()[0]
    stamp = robot.localize()
    robot.answer_of(stamp)
    assert robot.collector.wait_for(
        lambda: "1 messages so far" in said()[-1] and f"{stamp * 1e-9:.3f}" in said()[-1], PATIENCE
    )


def test_topic_of_another_type_is_named(make_robot, session) -> None:
    robot = make_robot(base_frame="", tf_mode="none", image_reliability="reliable")
    robot.session.node.destroy_publisher(robot._images)
    with LocalSession("driver", session.domain_id) as driver:
        driver.node.create_publisher(CompressedImage, "image", 1)
        said = lambda: [one.message.reason for one in robot.collector.reports if "it carries" in one.message.reason]  # noqa: E731
        assert robot.collector.wait_for(said, PATIENCE)
    assert "it carries sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image" in said()[-1]
    assert "image_transport" in said()[-1]


def test_incompatible_qos_is_named(session, make_robot) -> None:
    robot = make_robot(image_reliability="reliable")
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    session.node.create_publisher(Image, "image", best_effort)

    def said():
        return [one.message.reason for one in robot.collector.reports if "QoS is incompatible" in one.message.reason]

    assert robot.collector.wait_for(said, PATIENCE)
    assert "RELIABILITY" in said()[-1] and "best_effort" in said()[-1]


def refused(make_robot, path) -> str:
    """The sentence with which the node refuses a map; it stays alive."""
    robot = make_robot(real=True, ready=False, map=str(path), device="cpu")
    latest = lambda: robot.collector.reports[-1].message if robot.collector.reports else None  # noqa: E731
    assert robot.collector.wait_for(lambda: latest() and "being loaded" not in latest().reason, PATIENCE)
    status = latest()
    assert status.state == LocalizationStatus.UNINITIALIZED and not status.accepted and status.map_name == ""
    assert "\n" not in status.reason and robot.node.state == "unconfigured"
    return status.reason


def test_truncated_map(make_robot, small_map, tmp_path) -> None:
    whole = small_map.read_bytes()
    path = tmp_path / "half.safetensors"
    path.write_bytes(whole[: len(whole) // 2])
    reason = refused(make_robot, path)
    assert "half.safetensors" in reason and "damaged" in reason


def test_file_that_is_no_map(make_robot, tmp_path) -> None:
    path = tmp_path / "notes.safetensors"
    path.write_text("not a map")
    assert "damaged or not a map" in refused(make_robot, path)


def test_map_for_other_weights(make_robot, small_map, tmp_path) -> None:
    scene_map = SceneMap.load(small_map)
    scene_map.header = scene_map.header.model_copy(update={"encoder_sha256": "0" * 64})
    path = tmp_path / "other.safetensors"
    scene_map.save(path)
    reason = refused(make_robot, path)
    assert "000000" in reason or "weights" in reason
