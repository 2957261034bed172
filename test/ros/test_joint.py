"""Several images for one pose: cameras on one base, and a window of frames linked by odometry."""

from __future__ import annotations

import numpy as np
import pytest

from dimm_ros.geometry import poses
from dimm_ros.msg import LocalizationStatus
from dimm_ros.ros.messages import to_transform

from .robot import BASE_FROM_CAMERA, ODOM_FROM_BASE, WORLD_FROM_CAMERA, KnownPose, rotated

SECOND = 10**9
FRONT, LEFT = BASE_FROM_CAMERA, rotated(0.1, 0.2, 1.5, -0.2, 0.3, 0.4)


@pytest.fixture
def rig(make_robot):
    """A robot with two cameras, front and left, calibrated and mounted."""

    def make(**parameters):
        robot = make_robot(cameras=["front", "left"], localizer=KnownPose(), **parameters)
        for name, mount in (("front", FRONT), ("left", LEFT)):
            robot.send_info(name)
            robot.send_static("base_link", f"{name}_optical", mount)
        return robot

    return make


def shoot(robot, stamp: int, *names: str, value: int = 0) -> None:
    for name in names:
        robot.send_image(stamp, value, name=name, frame=f"{name}_optical")


def test_cameras_are_solved_jointly(rig) -> None:
    robot = rig(tf_mode="none")
    stamp = robot.now_ns()
    shoot(robot, stamp, "front", "left")
    answer = robot.answer_of(stamp)
    np.testing.assert_allclose(answer.map_from_body, WORLD_FROM_CAMERA, atol=1e-12)  # the solver's pose is the base's
    ((count, relative, newest),) = robot.localizer.joint
    assert (count, newest) == (2, 2)
    assert {tuple(np.round(pose[:3, 3], 6)) for pose in relative} == {tuple(FRONT[:3, 3]), tuple(LEFT[:3, 3])}
    status = robot.report_of(stamp).message
    assert status.accepted and status.received == 1 and status.reason == ""


def test_motion_between_two_cameras_images_is_odometrys(rig) -> None:
    robot = rig(tf_mode="map_odom", sync_tolerance=0.1)
    early = robot.now_ns()
    late = early + SECOND // 20
    moved = ODOM_FROM_BASE @ rotated(0.0, 0.0, 0.1, 0.2, 0.0, 0.0)
    from tf2_msgs.msg import TFMessage

    for stamp, pose in (
        (early - SECOND, ODOM_FROM_BASE),
        (early, ODOM_FROM_BASE),
        (late, moved),
        (late + SECOND, moved),
    ):
        robot._tf.publish(TFMessage(transforms=[to_transform("odom", "base_link", stamp, pose)]))
    shoot(robot, early, "front")
    shoot(robot, late, "left")
    robot.answer_of(late)
    relative = robot.localizer.joint[0][1]
    np.testing.assert_allclose(relative[0], poses.invert(moved) @ ODOM_FROM_BASE @ FRONT, atol=1e-6)
    np.testing.assert_allclose(relative[1], LEFT, atol=1e-9)


def test_a_camera_that_cannot_be_used_is_left_out_and_named(rig) -> None:
    robot = rig(tf_mode="none")
    stamp = robot.now_ns()
    robot.send_image(stamp, name="front", frame="front_optical")
    robot.send_image(stamp, name="left", frame="left_optical", encoding="rgb9")
    status = robot.report_of(stamp).message
    assert status.accepted and "Camera 'left' is left out" in status.reason and "rgb9" in status.reason
    assert robot.localizer.joint[0][0] == 1


def test_a_camera_that_stops_is_not_waited_for(rig) -> None:
    robot = rig(tf_mode="none")
    shoot(robot, robot.now_ns(), "front", "left")
    robot.wait(lambda: robot.localizer.joint)
    left = robot.node._rig.cameras[1]
    robot.wait(lambda: not left.alive)
    stamp = robot.now_ns()
    shoot(robot, stamp, "front")
    np.testing.assert_allclose(robot.answer_of(stamp).map_from_body, WORLD_FROM_CAMERA @ poses.invert(FRONT), atol=1e-9)
    assert len(robot.localizer.joint) == 1  # the first, of both
    assert robot.says("No left/image arrives on '/left/image'")


def test_images_that_do_not_belong_together(rig) -> None:
    robot = rig(tf_mode="none")
    first = robot.now_ns()
    shoot(robot, first, "front")
    robot.wait(lambda: robot.node._rig.cameras[0].image.count == 1)
    second = first + SECOND // 5
    shoot(robot, second, "front", "left")
    robot.answer_of(second)
    assert robot.localizer.joint[-1][0] == 2


def test_window_is_linked_by_odometry(make_robot) -> None:
    robot = make_robot(window=3, localizer=KnownPose())
    start = robot.now_ns() - 20 * SECOND
    step = rotated(0.0, 0.0, 0.2, 0.5, 0.0, 0.0)
    odometry = [
        ODOM_FROM_BASE,
        ODOM_FROM_BASE @ step,
        ODOM_FROM_BASE @ step @ step,
        ODOM_FROM_BASE @ step @ step @ step,
    ]
    robot.send_info()
    for index, odom_from_base in enumerate(odometry):
        stamp = start + index * SECOND
        robot.send_tf(stamp, odom_from_base)
        robot.answer_of(robot.send_image(stamp))
    assert [(count, newest) for count, _, newest in robot.localizer.joint] == [(1, 1), (2, 1), (3, 1), (3, 1)]
    back = poses.invert(step)
    expected = [back @ back @ BASE_FROM_CAMERA, back @ BASE_FROM_CAMERA, BASE_FROM_CAMERA]
    np.testing.assert_allclose(robot.localizer.joint[-1][1], expected, atol=1e-9)


def test_rejected_images_do_not_enter_the_window(make_robot) -> None:
    robot = make_robot(window=3, localizer=KnownPose())
    start = robot.now_ns() - 20 * SECOND
    robot.send_info()
    for index, reason in enumerate(["", "The view is covered.", "", ""]):
        stamp = start + index * SECOND
        robot.send_tf(stamp)
        robot.localizer.reason = reason
        assert robot.report_of(robot.send_image(stamp)).message.accepted == (not reason)
    assert [count for count, _, _ in robot.localizer.joint] == [1, 2, 2, 3]


def test_old_images_are_left_out_of_the_window(make_robot) -> None:
    """Odometry has drifted since: an image of 4 s ago counts, one of 6 s ago does not."""
    robot = make_robot(window=3, tf_timeout=10.0, localizer=KnownPose())
    start = robot.now_ns() - 20 * SECOND
    robot.send_info()
    for seconds in (0, 2, 6, 12):
        robot.send_tf(start + seconds * SECOND)
        robot.answer_of(robot.send_image(start + seconds * SECOND))
    assert [count for count, _, _ in robot.localizer.joint] == [1, 2, 2, 1]


def test_cameras_whose_clocks_differ_do_not_begin_anew_at_every_set(rig) -> None:
    """The left one is dated 1.2 s back: never of one set with the front one, which the gate lets pass alone."""
    robot = rig(gate__enabled=True, tf_mode="map_odom", tf_timeout=10.0)
    cleared = []
    robot.node._transforms.clear = lambda: cleared.append(1)
    start, stamps = robot.now_ns() - 20 * SECOND, []
    robot.send_tf(start - 5 * SECOND)
    robot.send_tf(start + 15 * SECOND)
    for index in range(6):
        for name, late in (("front", 0), ("left", 6 * SECOND // 5)):
            stamps.append(start + index * SECOND - late)
            count = sum(camera.image.count for camera in robot.node._rig.cameras)
            shoot(robot, stamps[-1], name)
            robot.wait(lambda count=count: sum(camera.image.count for camera in robot.node._rig.cameras) > count)
            if len(stamps) > 1:  # the newest waits for the other camera
                robot.report_of(stamps[-2])
    statuses = [robot.report_of(stamp).message for stamp in stamps[:-1]]
    assert [status.accepted for status in statuses[::2]] == [False, False, True, True, True, True]
    assert all("synchronise the cameras' clocks" in status.reason for status in statuses[1::2])
    assert not cleared and statuses[-1].state == LocalizationStatus.LOCALIZED


def test_window_without_odometry_is_one_image(make_robot) -> None:
    robot = make_robot(window=3, tf_mode="map_base", localizer=KnownPose())
    robot.send_static("base_link", "camera_optical_frame", BASE_FROM_CAMERA)
    robot.send_info()
    for _ in range(3):
        robot.answer_of(robot.send_image())
    assert [count for count, _, _ in robot.localizer.joint] == [1, 1, 1]


def test_covariance_scale(make_robot) -> None:
    robot = make_robot(covariance_scale=100.0, base_frame="", tf_mode="none")
    robot.send_info()
    answer = robot.answer_of(robot.send_image())
    floor = np.diag([0.01**2] * 3 + [np.radians(0.3) ** 2] * 3)
    np.testing.assert_allclose(answer.covariance, np.maximum(100.0 * robot.localizer.covariance, floor), rtol=1e-6)


def test_uncalibrated_camera(make_robot) -> None:
    """Its focal length is the median of what some images say; until then no pose is published. Nobody needs
    camera_info.
    """
    localizer = KnownPose()
    localizer.focals = iter([52.0, 90.0, 49.0, 50.0, 51.0, 50.5, 50.5])
    robot = make_robot(focal="unknown", base_frame="", tf_mode="none", localizer=localizer)
    start = robot.now_ns() - 20 * SECOND
    statuses = [robot.report_of(robot.send_image(start + index * SECOND)).message for index in range(5)]
    assert [status.accepted for status in statuses] == [False] * 4 + [True]
    assert (
        "The focal length is being found: 2 of 5 images" in statuses[1].reason
        and "camera_info" not in statuses[1].reason
    )
    assert localizer.cameras[-1].fx == pytest.approx(51.0)
    robot.answer_of(robot.send_image(start + 5 * SECOND))  # too soon to ask again
    assert localizer.cameras[-1].fx == pytest.approx(51.0)
    robot.answer_of(robot.send_image(start + 7 * SECOND))
    assert localizer.cameras[-1].fx == pytest.approx(np.exp(np.mean(np.log([50.5, 51.0]))), rel=1e-6)
