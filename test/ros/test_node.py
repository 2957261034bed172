"""The node's mechanics: topics, stamps, frames, TF modes, states and counts; a known pose stands in for the network."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Log
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import RegionOfInterest

from dimm_ros.geometry import poses
from dimm_ros.msg import LocalizationStatus
from dimm_ros.ros.messages import to_stamp

from .robot import BASE_FROM_CAMERA, CAMERA_FRAME, ODOM_FROM_BASE, WORLD_FROM_CAMERA, KnownPose
from .waiting import PATIENCE

MAP_FROM_BASE = WORLD_FROM_CAMERA @ poses.invert(BASE_FROM_CAMERA)


def test_pose_of_the_base_with_the_images_stamp(make_robot) -> None:
    robot = make_robot()
    stamp = robot.localize()
    answer = robot.answer_of(stamp)
    assert answer.frame_id == "hall"  # the map's own frame
    np.testing.assert_allclose(answer.map_from_body, MAP_FROM_BASE, atol=1e-12)
    assert np.isfinite(answer.covariance).all() and np.linalg.eigvalsh(answer.covariance).min() > 0
    np.testing.assert_array_equal(answer.covariance, answer.covariance.T)


def test_status_of_an_accepted_image(make_robot) -> None:
    robot = make_robot()
    status = robot.report_of(robot.localize()).message
    assert status.accepted and status.reason == "" and status.state == LocalizationStatus.LOCALIZED
    assert (status.inliers, status.rays, status.map_name, status.header.frame_id) == (90, 100, "known", "hall")
    assert status.inlier_ratio == pytest.approx(0.9)
    assert status.total_ms >= 9.0 and status.encode_ms == 5.0 and status.image_age_ms > 0
    assert (status.received, status.answered, status.rejected, status.dropped) == (1, 1, 0, 0)


def test_map_odom_transform_closes_the_chain(make_robot) -> None:
    robot = make_robot(transform_tolerance=0.25)
    stamp = robot.localize()
    robot.answer_of(stamp)
    ours = lambda: [one for one in robot.collector.broadcasts if one.parent == "hall"]  # noqa: E731
    assert robot.collector.wait_for(lambda: len(ours()) >= 3, PATIENCE)  # published again by the timer
    np.testing.assert_allclose(ours()[0].parent_from_child @ ODOM_FROM_BASE, MAP_FROM_BASE, atol=1e-9)
    stamps = [one.stamp_ns for one in ours()]
    assert {one.child for one in ours()} == {"odom"}
    assert all(np.diff(stamps) > 0) and stamps[0] - stamp >= 0.25e9


def test_map_base_transform(make_robot) -> None:
    robot = make_robot(tf_mode="map_base", map_frame="world")
    stamp = robot.now_ns()
    robot.send_static("base_link", "camera_optical_frame", BASE_FROM_CAMERA)
    robot.send_info()
    robot.send_image(stamp)
    assert robot.answer_of(stamp).frame_id == "world"
    ours = lambda: [one for one in robot.collector.broadcasts if one.parent == "world"]  # noqa: E731
    assert robot.collector.wait_for(ours, PATIENCE)
    assert ours()[0].child == "base_link"
    np.testing.assert_allclose(ours()[0].parent_from_child, MAP_FROM_BASE, atol=1e-9)


def test_map_base_does_not_give_the_base_a_second_parent(make_robot) -> None:
    robot = make_robot(tf_mode="map_base")
    status = robot.report_of(robot.localize()).message
    assert status.accepted and status.state == LocalizationStatus.DEGRADED
    assert "second parent" in status.reason and "tf_mode to map_odom" in status.reason
    assert not [one for one in robot.collector.broadcasts if one.parent == "hall"]


def test_tf_mode_none_leaves_tf_alone(make_robot) -> None:
    robot = make_robot(tf_mode="none", tf_rate=100.0)
    robot.answer_of(robot.localize())
    robot.answer_of(robot.localize())
    assert not [one for one in robot.collector.broadcasts if one.parent == "hall"]


def test_nothing_is_published_before_the_first_accepted_pose(make_robot) -> None:
    localizer = KnownPose()
    localizer.reason = "Only 3% of the rays agree."
    robot = make_robot(localizer=localizer, tf_rate=100.0)
    status = robot.report_of(robot.localize()).message
    assert (
        not status.accepted and status.reason == localizer.reason and status.state == LocalizationStatus.UNINITIALIZED
    )
    assert (status.inliers, status.rejected) == (90, 1)
    localizer.reason = ""
    accepted = robot.localize()
    robot.answer_of(accepted)
    assert [one.stamp_ns for one in robot.collector.answers] == [accepted]
    first = next(
        one
        for one in robot.collector.reports
        if not one.message.accepted and one.message.reason == "Only 3% of the rays agree."
    )
    assert not [one for one in robot.collector.broadcasts if one.parent == "hall" and one.received_s < first.received_s]


def test_camera_pose_without_a_base_frame(make_robot) -> None:
    robot = make_robot(base_frame="", tf_mode="none")
    robot.send_info()
    np.testing.assert_allclose(robot.answer_of(robot.send_image()).map_from_body, WORLD_FROM_CAMERA, atol=1e-12)


def test_latest_frame_wins(make_robot) -> None:
    localizer = KnownPose()
    robot = make_robot(localizer=localizer, base_frame="", tf_mode="none", max_image_age=0.0)
    robot.send_info()
    localizer.free.clear()
    robot.send_image(value=1)
    assert localizer.entered.wait(PATIENCE)  # the worker is busy with the first
    for value in (2, 3, 4):
        count = robot.node._rig.cameras[0].image.count
        last = robot.send_image(value=value)
        robot.wait(lambda count=count: robot.node._rig.cameras[0].image.count > count)
    localizer.free.set()
    status = robot.report_of(last).message
    assert localizer.seen == [1, 4]
    assert (status.received, status.answered, status.dropped) == (4, 2, 2)


def test_image_before_the_first_camera_info_waits_for_it(make_robot, monkeypatch) -> None:
    monkeypatch.setattr("dimm_ros.ros.cameras.PATIENCE_S", 20.0)
    robot = make_robot(base_frame="", tf_mode="none")
    robot.send_image(value=1)
    camera = robot.node._rig.cameras[0]
    robot.wait(lambda: camera.image.count == 1)
    stamp = robot.send_image(value=2)
    robot.wait(lambda: camera.image.count == 2)
    assert not robot.localizer.seen and camera.camera is None
    robot.send_info()
    robot.answer_of(stamp)
    assert robot.localizer.seen == [2]  # the newest


def test_region_of_interest_binning_and_zoom_reach_the_solver(make_robot) -> None:
    robot = make_robot(base_frame="", tf_mode="none")
    full = {"width": 128, "height": 96, "k": [100.0, 0.0, 63.5, 0.0, 100.0, 47.5, 0.0, 0.0, 1.0]}
    for changes, focal, centre in [
        ({}, 50.0, 31.5),
        ({**full, "binning_x": 2, "binning_y": 2}, 50.0, 31.5),
        ({**full, "roi": RegionOfInterest(x_offset=10, y_offset=20, width=64, height=48)}, 100.0, 53.5),
        ({"k": [80.0, 0.0, 31.5, 0.0, 80.0, 23.5, 0.0, 0.0, 1.0]}, 80.0, 31.5),  # the lens was turned
    ]:
        robot.send_info(**changes)
        robot.answer_of(robot.send_image())
        camera = robot.localizer.cameras[-1]
        assert (camera.width, camera.height, camera.fx, camera.cx) == (64, 48, focal, centre)


def test_states_follow_what_happens(make_robot) -> None:
    localizer = KnownPose()
    robot = make_robot(localizer=localizer, lost_after=1.0)
    assert robot.report_of(robot.localize()).message.state == LocalizationStatus.LOCALIZED
    localizer.reason = "The view is covered."
    assert robot.report_of(robot.localize()).message.state == LocalizationStatus.DEGRADED
    lost = lambda: robot.collector.reports[-1].message.state == LocalizationStatus.LOST  # noqa: E731
    assert robot.collector.wait_for(lost, PATIENCE)  # by the watchdog
    localizer.reason = ""
    assert robot.report_of(robot.localize()).message.state == LocalizationStatus.LOCALIZED


def test_compressed_images(make_robot) -> None:
    robot = make_robot(image_transport="compressed", base_frame="", tf_mode="none")
    robot.send_info()
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[..., 2] = 77  # red, in OpenCV's order
    robot.answer_of(robot.send_compressed("rgb8; png compressed bgr8", cv2.imencode(".png", picture)[1].tobytes()))
    assert robot.localizer.seen == [77]


def test_simulated_time(make_robot, session) -> None:
    clock = session.node.create_publisher(Clock, "/clock", 1)
    robot = make_robot(use_sim_time=True, base_frame="", tf_mode="none")
    robot.send_info()
    waiting = robot.report_of(robot.send_image(50 * 10**9)).message
    assert "nothing is published on /clock" in waiting.reason and waiting.dropped == 1
    robot.wait(clock.get_subscription_count)
    clock.publish(Clock(clock=to_stamp(51 * 10**9)))
    robot.wait(lambda: robot.node.get_clock().now().nanoseconds == 51 * 10**9)
    status = robot.report_of(robot.send_image(51 * 10**9 - 10**8)).message
    assert status.accepted and status.image_age_ms == pytest.approx(100.0)


def test_time_that_begins_anew_forgets_the_pose(make_robot) -> None:
    robot = make_robot(max_image_age=0.0)
    first = robot.localize()
    robot.answer_of(first)
    earlier = first - 100 * 10**9
    robot.send_image(earlier)  # its odometry is not known yet
    status = robot.report_of(earlier).message
    assert status.accepted and "is not" in status.reason  # static extrinsics survive, map -> odom waits for odometry
    assert status.state == LocalizationStatus.DEGRADED


def test_one_stamp_in_the_future_changes_nothing(make_robot) -> None:
    """It is dropped, and the next good image is no jump back."""
    robot = make_robot(gate__enabled=True)
    cleared = []
    robot.node._transforms.clear = lambda: cleared.append(1)
    assert [robot.report_of(robot.localize()).message.accepted for _ in range(3)] == [False, False, True]
    future = robot.report_of(robot.send_image(robot.now_ns() + 60 * 10**9)).message
    assert "in the future" in future.reason and future.dropped == 1 and future.state == LocalizationStatus.LOCALIZED
    after = robot.report_of(robot.localize()).message
    assert after.accepted and after.state == LocalizationStatus.LOCALIZED and not cleared


def test_frames_with_a_leading_slash(make_robot) -> None:
    """As ROS 1 wrote them, in parameters, images and maps; tf2 refuses them."""
    localizer = KnownPose()
    localizer.frame_id = "/hall"
    robot = make_robot(localizer=localizer, odom_frame="/odom", base_frame="/base_link")
    assert robot.report_of(robot.send_image()).message.header.frame_id == "hall"  # rejected, without camera_info
    stamp = robot.now_ns()
    robot.send_tf(stamp)
    robot.send_info()
    robot.send_image(stamp, frame=f"/{CAMERA_FRAME}")
    answer = robot.answer_of(stamp)
    assert answer.frame_id == "hall" and robot.report_of(stamp).message.header.frame_id == "hall"
    np.testing.assert_allclose(answer.map_from_body, MAP_FROM_BASE, atol=1e-12)
    robot.wait(lambda: ("hall", "odom") in {(one.parent, one.child) for one in robot.collector.broadcasts})


def test_a_camera_frame_with_a_leading_slash_is_published_without(make_robot) -> None:
    robot = make_robot(base_frame="", tf_mode="map_base")
    robot.send_info()
    robot.answer_of(robot.send_image(frame=f"/{CAMERA_FRAME}"))
    robot.wait(lambda: {(one.parent, one.child) for one in robot.collector.broadcasts} == {("hall", CAMERA_FRAME)})


def test_the_log_says_when_the_robot_is_found_and_lost(make_robot, session) -> None:
    lines = []
    session.node.create_subscription(Log, "/rosout", lambda line: lines.append(line.msg), 100)
    robot = make_robot(lost_after=1.0)
    robot.wait(lambda: session.node.count_publishers("/rosout"))
    said = lambda: [line for line in lines if line.startswith(("Localized", "Lost"))]  # noqa: E731
    for count in (1, 3):
        robot.localize()
        robot.answer_of(robot.localize())
        robot.wait(lambda count=count: len(said()) >= count)
        robot.wait(lambda count=count: len(said()) >= count + 1)
    assert [line.split(".")[0] for line in said()] == ["Localized in map 'known'", "Lost: no pose for 1 s"] * 2
    assert said()[1].startswith("Lost: no pose for 1 s. No image arrives on '/image'")


def test_live_parameters_reach_the_localizer(make_robot) -> None:
    robot = make_robot(acceptance__min_inlier_ratio=0.4)
    assert robot.localizer.options["acceptance"].min_inlier_ratio == 0.4
    good, bad, fixed = robot.node.set_parameters(
        [
            Parameter("acceptance.min_inlier_ratio", value=0.7),
            Parameter("solver.hypotheses", value=1),
            Parameter("tf_mode", value="none"),
        ]
    )
    assert good.successful and not bad.successful and not fixed.successful
    assert robot.localizer.acceptance.min_inlier_ratio == 0.7
    assert robot.localizer.solver.hypotheses == 64


def test_diagnostics(make_robot, session) -> None:
    received = []
    session.node.create_subscription(DiagnosticArray, "/diagnostics", received.append, 10)
    robot = make_robot()
    robot.localize()
    last = lambda: {one.key: one.value for one in received[-1].status[0].values} if received else {}  # noqa: E731
    robot.wait(lambda: last().get("state") == "LOCALIZED")
    assert last()["answered"] == "1" and last()["map"] == "known"
    assert received[-1].status[0].level == b"\x00"
