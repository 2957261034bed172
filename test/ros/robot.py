"""A localizer node in this process with what feeds it and listens to it, and a known pose in place of the network."""

from __future__ import annotations

import array
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from dimm_ros.errors import InputError
from dimm_ros.geometry import poses
from dimm_ros.geometry.camera import Camera
from dimm_ros.localizer import Estimate
from dimm_ros.replay.collector import Collector, Report
from dimm_ros.replay.session import LocalSession
from dimm_ros.ros.messages import to_image, to_stamp, to_transform
from dimm_ros.ros.node import LocalizerNode
from dimm_ros.ros.tf import DYNAMIC_QOS, STATIC_QOS

from .waiting import PATIENCE

CAMERA_FRAME = "camera_optical_frame"
WIDTH, HEIGHT = 64, 48


def rotated(rx: float, ry: float, rz: float, x: float, y: float, z: float) -> np.ndarray:
    """(4, 4) pose of a rotation vector and a translation."""
    return poses.make_pose(poses.exp_so3(np.array([rx, ry, rz])), np.array([x, y, z]))


BASE_FROM_CAMERA = rotated(-1.2, 1.2, -1.2, 0.3, 0.1, 0.5)
ODOM_FROM_BASE = rotated(0.0, 0.0, 0.4, 5.0, -2.0, 0.0)
WORLD_FROM_CAMERA = rotated(0.5, -0.7, 0.2, 1.0, 2.0, 3.0)


def eventually(condition: Callable[[], object], timeout_s: float = PATIENCE) -> bool:
    """Whether something that no message announces happens in time."""
    gate = threading.Event()
    for _ in range(int(timeout_s / 0.01)):
        if condition():
            return True
        gate.wait(0.01)
    return False


def wait(condition: Callable[[], object], timeout_s: float = PATIENCE) -> None:
    """Wait for something that no message announces."""
    assert eventually(condition, timeout_s), "timed out"


class KnownPose:
    """Stands in for a map and its network in tests of the node's mechanics: answers every image with one known pose.

    Attributes:
        name, frame_id: of the map.
        world_from_camera, covariance, reason: of the answers; a reason rejects.
        only: the first pixel's values that are accepted; None accepts all.
        seen, cameras: first pixels of the images so far, and the calibrations they came with.
        focals: what the images of an uncalibrated camera say.
        joint: (number of images, relative poses, how many of them are new) of each joint solution.
    """

    name, frame_id, can_track = "known", "hall", False
    map = SimpleNamespace(mapped_poses=lambda: None, landmarks=None)  # that knows no view

    def __init__(self, only: set[int] | None = None) -> None:
        self.only = only
        self.world_from_camera = WORLD_FROM_CAMERA.copy()
        self.covariance = np.diag([1e-4, 2e-4, 3e-4, 1e-5, 2e-5, 3e-5])
        self.reason = ""
        self.seen: list[int] = []
        self.cameras: list[Camera] = []
        self.joint: list[tuple[int, list[np.ndarray], int]] = []
        self.focals: Iterator[float] = iter(())
        self.warmed, self.opened = False, 0
        self.free = threading.Event()
        self.entered = threading.Event()
        self.free.set()
        self.solver = self.acceptance = None

    def open(self, map_path: str, **options: Any) -> KnownPose:
        self.options, self.opened = options, self.opened + 1
        return self

    def warm_up(self, camera: Camera) -> None:
        self.warmed = True

    def localize(self, image: np.ndarray, camera: Camera) -> Estimate:
        return self._estimate(self.observe_all([image], [camera]))

    def localize_unknown_focal(self, image: np.ndarray) -> tuple[Estimate, Camera]:
        focal = next(self.focals)
        height, width = image.shape[:2]
        return self.localize(image, Camera(width, height, focal, focal, 31.5, 23.5)), Camera(
            width, height, focal, focal, 31.5, 23.5
        )

    def observe_all(self, images: list[np.ndarray], cameras: list[Camera]) -> list[int]:
        self.entered.set()
        assert self.free.wait(PATIENCE)
        for image, camera in zip(images, cameras, strict=True):
            if image.shape[:2] != (camera.height, camera.width):
                raise InputError(
                    f"The image is {image.shape[1]}x{image.shape[0]}, camera_info says {camera.width}x{camera.height}."
                )
        values = [int(image[0, 0, 0]) for image in images]
        self.seen += values
        self.cameras += cameras
        return values

    def solve_window(self, observations: list[int], relative: list[np.ndarray], newest: int = 1) -> Estimate:
        self.joint.append((len(observations), list(relative), newest))
        return self._estimate(observations[-newest:])

    def _estimate(self, values: list[int]) -> Estimate:
        reason = self.reason
        if self.only is not None and not set(values) <= self.only:
            reason = f"The view is not of {self.name}."
        stages = {"prepare": 1.0, "encode": 5.0, "head": 1.0, "solve": 2.0, "total": 9.0}
        return Estimate(
            world_from_camera=self.world_from_camera.copy(),
            covariance=self.covariance,
            accepted=not reason,
            reason=reason,
            inliers=90,
            rays=100,
            stage_ms=stages,
        )


class Robot:
    """A localizer node in this process, and what feeds it and listens to it."""

    BASE_FROM_CAMERA = BASE_FROM_CAMERA

    def __init__(
        self, session: LocalSession, localizer: KnownPose | None, parameters: dict[str, Any], start: bool = True
    ) -> None:
        self.session, self.localizer = session, localizer
        self.collector = Collector(session.node)
        node = session.node
        # One process cannot have two types on a topic.
        self.image_type = CompressedImage if parameters.get("image_transport") == "compressed" else Image
        self._all_images, self._all_infos = {}, {}
        for name in parameters.get("cameras", [""]):
            prefix = f"{name}/" if name else ""
            self._all_images[name] = node.create_publisher(self.image_type, f"{prefix}image", 5)
            self._all_infos[name] = node.create_publisher(CameraInfo, f"{prefix}camera_info", qos_profile_sensor_data)
        self._images, self._infos = next(iter(self._all_images.values())), next(iter(self._all_infos.values()))
        self._tf = node.create_publisher(TFMessage, "/tf", DYNAMIC_QOS)
        self._tf_static = node.create_publisher(TFMessage, "/tf_static", STATIC_QOS)
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        # tests change localizer.open
        opener = (lambda entry, **options: localizer.open(entry, **options)) if localizer else None
        self.node = LocalizerNode(
            open_localizer=opener, context=session.context, use_global_arguments=False, parameter_overrides=overrides
        )
        if start:
            self.node.start()
        session.add(self.node)

    def wait(self, condition, timeout_s: float = PATIENCE) -> None:
        """As the function of that name."""
        wait(condition, timeout_s)

    def wait_ready(self) -> None:
        """Wait until the node is active and its subscriptions are connected."""
        self.wait(lambda: self.node.state == "active")
        infos = self._all_infos.values() if self.node.get_parameter("focal").value == "known" else ()
        publishers = [*self._all_images.values(), *infos]
        self.wait(lambda: all(publisher.get_subscription_count() for publisher in publishers))

    def now_ns(self) -> int:
        return self.session.node.get_clock().now().nanoseconds

    def send_info(self, name: str | None = None, **changes: Any) -> None:
        """Publish a good camera_info of a camera (the first) with some fields changed, and wait until the node has
        it.
        """
        info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob", d=[0.0] * 5)
        info.k = [50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]
        for field, value in changes.items():
            setattr(info, field, value)
        name = next(iter(self._all_infos)) if name is None else name
        watched = next(camera for camera in self.node._rig.cameras if camera.name == name).info
        before = watched.count
        self._all_infos[name].publish(info)
        self.wait(lambda: watched.count > before)

    def send_tf(self, stamp_ns: int, odom_from_base: np.ndarray = ODOM_FROM_BASE) -> None:
        """Publish base_link -> camera (static) and odom -> base_link around a stamp."""
        self.send_static("base_link", CAMERA_FRAME, BASE_FROM_CAMERA)
        for offset in (-(10**8), 10**8):
            self._tf.publish(
                TFMessage(transforms=[to_transform("odom", "base_link", stamp_ns + offset, odom_from_base)])
            )

    def send_static(self, parent: str, child: str, pose: np.ndarray) -> None:
        self._tf_static.publish(TFMessage(transforms=[to_transform(parent, child, 0, pose)]))

    def send_image(
        self,
        stamp_ns: int | None = None,
        value: int = 0,
        *,
        name: str | None = None,
        frame: str = CAMERA_FRAME,
        **changes: Any,
    ) -> int:
        """Publish an image of a camera (the first) whose first pixel has a value; returns its stamp."""
        stamp_ns = self.now_ns() if stamp_ns is None else stamp_ns
        picture = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)  # it shows something
        picture[0, 0] = value
        message = to_image(picture, frame, stamp_ns)
        for field, content in changes.items():
            setattr(message, field, content)
        message.header.stamp = to_stamp(stamp_ns)
        (self._images if name is None else self._all_images[name]).publish(message)
        return stamp_ns

    def send_compressed(self, format: str, data: bytes) -> int:
        """Publish a compressed image; returns its stamp."""
        stamp_ns = self.now_ns()
        message = CompressedImage(format=format, data=array.array("B", data))
        message.header.stamp, message.header.frame_id = to_stamp(stamp_ns), CAMERA_FRAME
        self._images.publish(message)
        return stamp_ns

    def report_of(self, stamp_ns: int) -> Report:
        """The status of an image."""
        assert self.collector.wait_for(lambda: self.collector.report_of(stamp_ns), PATIENCE), "no status for the image"
        return self.collector.report_of(stamp_ns)

    def says(self, words: str, timeout_s: float = PATIENCE) -> bool:
        """Wait until the latest status has these words."""
        latest = lambda: self.collector.reports and words in self.collector.reports[-1].message.reason  # noqa: E731
        return self.collector.wait_for(latest, timeout_s)

    def answer_of(self, stamp_ns: int):
        """The pose of an image."""
        found = lambda: next((one for one in self.collector.answers if one.stamp_ns == stamp_ns), None)  # noqa: E731
        assert self.collector.wait_for(found, PATIENCE), f"no pose: {self.report_of(stamp_ns).message.reason}"
        return found()

    def localize(self, value: int = 0, odom_from_base: np.ndarray = ODOM_FROM_BASE) -> int:
        """Feed everything that one image needs; returns its stamp."""
        stamp = self.now_ns()
        self.send_tf(stamp, odom_from_base)
        self.send_info()
        return self.send_image(stamp, value)
