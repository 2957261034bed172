"""dimm doctor --live over DDS: a healthy robot, and robots with one or more of the usual faults."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from dimm_ros.doctor.findings import Finding, Severity
from dimm_ros.doctor.live_ros import LiveOptions, examine_live
from dimm_ros.geometry import poses
from dimm_ros.replay.session import LocalSession
from dimm_ros.ros.messages import to_image, to_stamp, to_transform
from dimm_ros.ros.tf import DYNAMIC_QOS, STATIC_QOS

OPTICAL = poses.make_pose(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([0.2, 0, 0.5]))
RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
VOLATILE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)


@dataclass
class Faults:
    """What is wrong with a driver; the default is healthy."""

    image_offset_s: float = 0.0
    ageing: float = 0.0  # seconds a second
    every: int = 1  # only every so many images are sent
    info: dict = field(default_factory=dict)
    frame: str = "camera_optical_frame"
    mounting: np.ndarray | None = field(default_factory=lambda: OPTICAL)
    odometry: tuple[str, ...] = ("odom",)  # parents of base_link
    second_odometry_m: float = 0.0
    odometry_offset_s: float = 0.0
    static_qos: QoSProfile = field(default_factory=lambda: STATIC_QOS)
    covariance: float = 0.01


class Driver:
    """Publishes images, camera_info, TF and odometry at 20 Hz on the session's thread."""

    def __init__(self, session: LocalSession, faults: Faults) -> None:
        self._faults, self._node, self._tick = faults, session.node, 0
        self._image = self._node.create_publisher(Image, "/camera/image_raw", qos_profile_sensor_data)
        self._info = self._node.create_publisher(CameraInfo, "/camera/camera_info", qos_profile_sensor_data)
        self._tf = self._node.create_publisher(TFMessage, "/tf", DYNAMIC_QOS)
        self._odometry = self._node.create_publisher(Odometry, "/odom", 5)
        static = self._node.create_publisher(TFMessage, "/tf_static", faults.static_qos)
        if faults.mounting is not None:
            static.publish(TFMessage(transforms=[to_transform("base_link", faults.frame, 0, faults.mounting)]))
        self._begun = self._node.get_clock().now().nanoseconds
        self._timer = self._node.create_timer(0.05, self._publish)

    def _publish(self) -> None:
        faults, now = self._faults, self._node.get_clock().now().nanoseconds
        stamp = now + round(faults.image_offset_s * 1e9 - faults.ageing * (now - self._begun))
        info = CameraInfo(width=64, height=48, distortion_model="plumb_bob", d=[-0.1, 0.0, 0.0, 0.0, 0.0])
        info.k = [50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]
        for name, value in faults.info.items():
            setattr(info, name, value)
        info.header.stamp, info.header.frame_id = to_stamp(stamp), faults.frame
        self._info.publish(info)
        if self._tick % faults.every == 0:
            self._image.publish(to_image(np.full((48, 64, 3), 90, np.uint8), faults.frame, stamp))
        shift = faults.second_odometry_m if self._tick % 2 else 0.0
        moved = poses.make_pose(np.eye(3), np.array([0.01 * self._tick + shift, 0, 0]))
        late = now + round(faults.odometry_offset_s * 1e9)
        self._tf.publish(
            TFMessage(transforms=[to_transform(parent, "base_link", late, moved) for parent in faults.odometry])
        )
        odometry = Odometry()
        odometry.header.frame_id, odometry.pose.covariance = "odom", [faults.covariance] * 36
        self._odometry.publish(odometry)
        self._tick += 1


def heard(ask: Callable[[float], dict], check: Callable[[dict], None], seconds: float) -> None:
    """Listen until the right things were found: longer each time, since a busy computer hears less in a second."""
    while True:
        found = ask(seconds)
        try:
            check(found)
            return
        except (AssertionError, KeyError):
            if seconds > _LONGEST_S:
                raise
        seconds *= 2


_LONGEST_S = 30.0  # the last time listened is up to twice as long


def examined(**options) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine_live(LiveOptions(**options))}


def listen(
    session: LocalSession, faults: Faults, check: Callable[[dict[str, Finding]], None], seconds: float = 1.6
) -> None:
    """Have the doctor listen to a driver with faults, and check what it found."""
    Driver(session, faults)
    heard(lambda seconds: examined(seconds=seconds), check, seconds)


def problems(found: dict[str, Finding]) -> set[str]:
    return {check for check, finding in found.items() if finding.severity == Severity.PROBLEM}


def test_healthy_robot(session: LocalSession) -> None:
    def check(found: dict[str, Finding]) -> None:
        assert not problems(found), found
        mounting = "TF base_link -> camera_optical_frame"
        good = ("image topic", "camera_info topic", "QoS", "image stamps", "camera_info", "TF parents", "Python")
        for name in (*good, mounting):
            assert found[name].severity == Severity.OK, found[name]
        assert "looking 0 deg" in found[mounting].what
        assert "covariance" not in found and "map" not in found
        assert found["image topic"].figures["rate_hz"] > 5

    listen(session, Faults(), check)


def test_nothing_runs_and_the_map_is_not_there(session: LocalSession, tmp_path: Path) -> None:
    session.node.create_publisher(Image, "/front/image", qos_profile_sensor_data)

    def check(found: dict[str, Finding]) -> None:
        assert {"image topic", "camera_info topic", "TF odom -> base_link", "map"} <= problems(found)
        assert "/front/image" in found["image topic"].what and "absent.dimm" in found["map"].what

    heard(lambda seconds: examined(seconds=seconds, map_file=tmp_path / "absent.dimm"), check, 1.0)


def test_wrong_type_and_silent_publisher(session: LocalSession) -> None:
    session.node.create_publisher(CameraInfo, "/camera/image_raw", 5)
    session.node.create_publisher(CameraInfo, "/camera/camera_info", 5)

    def check(found: dict[str, Finding]) -> None:
        assert "carries sensor_msgs/msg/CameraInfo" in found["image topic"].what
        assert "nothing came" in found["camera_info topic"].what

    heard(lambda seconds: examined(seconds=seconds), check, 1.0)


def test_qos_that_does_not_fit(session: LocalSession) -> None:
    node = Node("viewer", context=session.context, use_global_arguments=False)
    session.add(node)
    node.create_subscription(Image, "/camera/image_raw", lambda message: None, RELIABLE)

    def check(found: dict[str, Finding]) -> None:
        assert "QoS" in problems(found)
        assert "/viewer gets nothing of /camera/image_raw" in found["QoS"].what
        assert "transient_local" in found["QoS"].what

    listen(session, Faults(static_qos=VOLATILE), check)
    node.destroy_node()


def test_images_lost_and_from_the_future_and_intrinsics_of_another_size(session: LocalSession) -> None:
    def check(found: dict[str, Finding]) -> None:
        lost = found["lost images"]
        assert lost.severity == Severity.WARNING and lost.figures["lost_by_camera_info"] > 0.5
        assert "in the future" in found["image stamps"].what
        assert "128x96, the images are 64x48" in found["camera_info"].what
        assert {"image stamps", "camera_info"} <= problems(found)
        assert found["covariance"].severity == Severity.WARNING and "/odom" in found["covariance"].what

    listen(session, Faults(image_offset_s=0.6, every=3, info={"width": 128, "height": 96}, covariance=0.0), check, 4.0)


def test_queue_that_ages_uncalibrated_camera_and_odometry_without_tf(session: LocalSession) -> None:
    def check(found: dict[str, Finding]) -> None:
        assert "ever later" in found["image stamps"].what
        assert "not calibrated" in found["camera_info topic"].what
        assert {"image stamps", "camera_info topic", "TF odom -> base_link"} <= problems(found)

    listen(session, Faults(ageing=0.6, info={"k": [0.0] * 9}, odometry=()), check, 2.5)


def test_body_axes_and_two_parents(session: LocalSession) -> None:
    def check(found: dict[str, Finding]) -> None:
        assert "not optical ones" in found["TF base_link -> camera_optical_frame"].what
        assert "base_footprint, odom" in found["TF parents"].what
        assert {"TF base_link -> camera_optical_frame", "TF parents"} <= problems(found)

    body = poses.make_pose(np.eye(3), np.array([0.2, 0, 0.5]))
    listen(session, Faults(mounting=body, odometry=("odom", "base_footprint")), check)


def test_two_publishers_of_one_transform_and_no_mounting(session: LocalSession) -> None:
    def check(found: dict[str, Finding]) -> None:
        assert "two nodes publish it" in found["TF publishers"].what
        assert {"TF publishers", "TF base_link -> camera_optical_frame"} <= problems(found)

    listen(session, Faults(second_odometry_m=0.5, mounting=None), check)


def test_stale_odometry(session: LocalSession) -> None:
    def check(found: dict[str, Finding]) -> None:
        assert problems(found) == {"TF odom -> base_link"} and "old when it comes" in found["TF odom -> base_link"].what

    listen(session, Faults(odometry_offset_s=-0.9), check)


def test_simulated_time_without_a_clock(session: LocalSession) -> None:
    node = Node(
        "planner",
        context=session.context,
        use_global_arguments=False,
        parameter_overrides=[Parameter("use_sim_time", value=True)],
    )
    session.add(node)

    def check(found: dict[str, Finding]) -> None:
        assert "simulated time" in problems(found) and "/planner wait for /clock" in found["simulated time"].what

    listen(session, Faults(image_offset_s=-1e8), check)
    node.destroy_node()


def test_two_clocks(session: LocalSession) -> None:
    node = Node("simulator", context=session.context, use_global_arguments=False)
    session.add(node)
    publishers = [one.create_publisher(Clock, "/clock", 5) for one in (session.node, node)]

    def check(found: dict[str, Finding]) -> None:
        assert publishers and "2 publishers" in found["simulated time"].what

    listen(session, Faults(), check)
    node.destroy_node()


@pytest.mark.parametrize(("faults", "code"), [(Faults(), 0), (Faults(mounting=None), 3)])
def test_command(session: LocalSession, faults: Faults, code: int) -> None:
    """In a process of its own, beside the robot's."""
    Driver(session, faults)
    environment = session.environment | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}

    def ask(seconds: float) -> dict:
        command = [sys.executable, "-m", "dimm_ros.cli.main", "doctor", "--live", "--seconds", str(seconds), "--json"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert result.returncode in (0, 3), result.stderr
        findings = {finding["check"]: finding for finding in json.loads(result.stdout)["findings"]}
        return findings | {"returncode": result.returncode}

    def check(found: dict) -> None:
        assert found["returncode"] == code, found
        assert found["image topic"]["severity"] == "ok"
        assert found["TF base_link -> camera_optical_frame"]["severity"] == ("problem" if code else "ok")

    heard(ask, check, 2.0)
