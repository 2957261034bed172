"""The cameras' topics: calibration that is kept, and an image that waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rclpy.clock import Clock, ClockType
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from dimm_ros.data.camera_info import camera_from_info, is_rectified
from dimm_ros.errors import InputError
from dimm_ros.geometry.camera import Camera
from dimm_ros.ros.messages import stamp_ns
from dimm_ros.ros.subscriptions import watch
from dimm_ros.ros.tf import bare

if TYPE_CHECKING:
    from rclpy.node import Node

    from dimm_ros.ros.parameters import NodeConfig

#: How long the first image waits for the first camera_info.
PATIENCE_S = 0.5

#: A camera that was silent for so long is not waited for; one that was never heard gets more time.
_ALIVE_S, _FIRST_S = 0.5, 3.0


@dataclass(frozen=True)
class ImageWithInfo:
    """An image message and the calibration that was in force when it came.

    Attributes:
        name: the camera's, empty for the only one.
        message: the image.
        camera: its calibration, None when there is none to use.
        error: why not, one sentence.
    """

    name: str
    message: Image | CompressedImage
    camera: Camera | None
    error: str

    @property
    def stamp_ns(self) -> int:
        """The image's stamp."""
        return stamp_ns(self.message.header.stamp)

    @property
    def frame(self) -> str:
        """The image's frame."""
        return bare(self.message.header.frame_id)


def why_untimely(stamp_ns: int, now_ns: int, limit_s: float) -> str:
    """Why an image of this stamp is not worth localizing now, one sentence; empty when it is.

    Args:
        stamp_ns: the image's stamp.
        now_ns: the node's clock.
        limit_s: ``max_image_age``, into the past and into the future; 0 for none.
    """
    age = (now_ns - stamp_ns) * 1e-9
    if now_ns == 0:
        return "use_sim_time is set, but nothing is published on /clock."
    if limit_s > 0 and age > limit_s:
        hint = " (to replay a bag set use_sim_time and publish its clock)" if age > 60 else ""
        return f"The image is {age:.2f} s old, more than max_image_age ({limit_s:g} s){hint}."
    if limit_s > 0 and age < -limit_s:
        ahead = f"The image is dated {-age:.2f} s in the future"
        return f"{ahead}; synchronise the clocks of the camera's computer and this one."
    return ""


class StampClocks:
    """Notices that time began anew (a bag loops, a simulation resets): a camera's stamps go back.

    Cameras are compared each with itself, since their clocks may differ; and only by timely stamps, since a wrong one,
    a minute ahead, would make the next right one look like a jump back.
    """

    def __init__(self) -> None:
        self._last_ns: dict[str, int] = {}

    def jumped_back(self, images: Sequence[ImageWithInfo], now_ns: int, limit_s: float, jump_s: float) -> bool:
        """Whether these images say so.

        Args:
            images: of one time.
            now_ns, limit_s: see ``why_untimely``.
            jump_s: how far back is a jump.
        """
        timely = {image.name: image.stamp_ns for image in images if not why_untimely(image.stamp_ns, now_ns, limit_s)}
        jumped = any(stamp < self._last_ns.get(name, stamp) - jump_s * 1e9 for name, stamp in timely.items())
        if jumped:
            self._last_ns.clear()
        self._last_ns |= timely
        return jumped


class CameraInput:
    """Subscribes to the images and the camera_info of one camera; all on the executor's thread.

    Args:
        node: makes the subscriptions.
        name: prefix of the topics, empty for ``image`` and ``camera_info`` themselves.
        config: image transport and QoS.
        on_image_with_info: called with every image.

    Attributes:
        image, info: the subscriptions, which can explain their silence; no info where the focal length is unknown.
        camera: the latest calibration, None when there is none to use.
        error: what is wrong with the latest camera_info, empty when nothing is.
    """

    def __init__(
        self, node: Node, name: str, config: NodeConfig, on_image_with_info: Callable[[ImageWithInfo], None]
    ) -> None:
        self._node, self.name, self._on_image_with_info = node, name, on_image_with_info
        self.camera: Camera | None = None
        self.error = ""
        self._held: Image | CompressedImage | None = None
        self._patience = node.create_timer(PATIENCE_S, self._on_patience, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._patience.cancel()
        self._patient = True
        prefix = f"{name}/" if name else ""
        reliability = (
            ReliabilityPolicy.RELIABLE if config.image_reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
        )
        # Sensor data, latest only: an image that waits is an image too old.
        qos = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=reliability)
        best_effort = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
        image_type = CompressedImage if config.image_transport == "compressed" else Image
        # The calibration of an uncalibrated camera would be a wrong one.
        self.info = (
            watch(node, f"{prefix}camera_info", CameraInfo, best_effort, self._on_info)
            if config.focal == "known"
            else None
        )
        self.image = watch(node, f"{prefix}image", image_type, qos, self._on_image)

    def destroy(self) -> None:
        """Take the subscriptions off the node."""
        self._held = None
        self._node.destroy_timer(self._patience)
        for watched in filter(None, (self.image, self.info)):
            self._node.destroy_subscription(watched.subscription)

    def explain(self) -> str:
        """Why nothing can be localized yet: one or two sentences on the topics that are silent."""
        text = self.image.explain(self._node)
        return f"{text} {self.info.explain(self._node)}" if self.lacks_info else text

    @property
    def lacks_info(self) -> bool:
        """Whether a calibration is needed and none has come, not even a bad one."""
        return self.info is not None and self.camera is None and not self.error

    @property
    def alive(self) -> bool:
        """Whether images come, or may be about to."""
        return self.image.silent_s < (_ALIVE_S if self.image.count else _FIRST_S)

    def _on_image(self, message: Image | CompressedImage) -> None:
        self.image.heard(stamp_ns(message.header.stamp))
        if self.lacks_info and self._patient:
            if self._held is None:
                self._patience.reset()
            self._held = message
        else:
            self._pass_on(message)

    def _on_info(self, message: CameraInfo) -> None:
        self.info.heard(stamp_ns(message.header.stamp))
        try:
            camera, error = camera_from_info(message, is_rectified(self.image.topic)), ""
        except InputError as problem:
            camera, error = None, str(problem)
        if camera != self.camera and camera is not None:
            self._node.get_logger().info(
                f"Camera{f' {self.name!r}' if self.name else ''}: {camera.width}x{camera.height}, "
                f"focal length {camera.fx:.1f} {camera.fy:.1f} px, {camera.distortion_model}."
            )
        if error and error != self.error:
            self._node.get_logger().error(f"camera_info on '{self.info.topic}' cannot be used: {error}")
        self.error, self.camera = error, camera
        self._release()

    def _on_patience(self) -> None:
        self._patient = False
        self._release()

    def _release(self) -> None:
        self._patience.cancel()
        held, self._held = self._held, None
        if held is not None:
            self._pass_on(held)

    def _pass_on(self, message: Image | CompressedImage) -> None:
        error = self.info.explain(self._node) if self.lacks_info else self.error
        self._on_image_with_info(ImageWithInfo(self.name, message, self.camera, error))


class Rig:
    """Brings together what several cameras saw at one time; on the executor's thread.

    A set is complete when every camera that is alive is in it. A camera that has stopped is not waited for; one that is
    merely late costs its place.

    Args:
        node, config, names: of the cameras, see ``CameraInput``.
        on_images: called with each set, the latest image last.

    Attributes:
        cameras: one for each name.
    """

    def __init__(
        self,
        node: Node,
        config: NodeConfig,
        names: Sequence[str],
        on_images: Callable[[tuple[ImageWithInfo, ...]], None],
    ) -> None:
        self._tolerance_ns, self._on_images = round(config.sync_tolerance * 1e9), on_images
        self._waiting: dict[str, ImageWithInfo] = {}
        self.cameras = [CameraInput(node, name, config, self._on_image_with_info) for name in names]

    def destroy(self) -> None:
        """Take the subscriptions off the node."""
        self._waiting.clear()
        for camera in self.cameras:
            camera.destroy()

    def _on_image_with_info(self, image: ImageWithInfo) -> None:
        waiting = self._waiting
        if image.name in waiting or any(
            abs(image.stamp_ns - other.stamp_ns) > self._tolerance_ns for other in waiting.values()
        ):
            self._pass_on()
        waiting[image.name] = image
        if all(camera.name in waiting or not camera.alive for camera in self.cameras):
            self._pass_on()

    def _pass_on(self) -> None:
        images = tuple(sorted(self._waiting.values(), key=lambda image: image.stamp_ns))
        self._waiting.clear()
        if images:
            self._on_images(images)
