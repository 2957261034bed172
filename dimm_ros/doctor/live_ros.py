"""``dimm doctor --live``: listens to a running robot; ``dimm_ros.doctor.live`` and its neighbours judge."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import GetParameters
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.serialization import deserialize_message
from rclpy.task import Future
from rclpy.utilities import get_rmw_implementation_identifier
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from dimm_ros.data.camera_info import camera_from_info
from dimm_ros.doctor.findings import Finding
from dimm_ros.doctor.installation import check_map, check_python
from dimm_ros.doctor.live import CAMERA_INFO_TYPE, IMAGE_TYPES, Link, LiveTraffic, Stream, check_topics
from dimm_ros.doctor.live_tf import check_tf
from dimm_ros.errors import InputError, TransformError
from dimm_ros.geometry.camera import Camera
from dimm_ros.ros.health import LocalizationState
from dimm_ros.ros.messages import from_transform, stamp_ns

_NAME = "dimm_doctor"
_DISCOVERY_S = 3.0
_ASKED = 30  # nodes whose use_sim_time is asked for
_COVARIANCES = {
    "nav_msgs/msg/Odometry": Odometry,
    "geometry_msgs/msg/PoseWithCovarianceStamped": PoseWithCovarianceStamped,
}
_STATUS = "dimm_ros/msg/LocalizationStatus"
#: Connects to every publisher; deep, so that this process loses no message by itself.
_ANY = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=50,
    reliability=ReliabilityPolicy.BEST_EFFORT,
    durability=DurabilityPolicy.VOLATILE,
)
_LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=100,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


@dataclass(frozen=True)
class LiveOptions:
    """Topics and frames to listen to.

    Attributes:
        image, camera_info: topics; namespaces and ``~`` are not resolved further.
        base_frame, odom_frame: frames; an empty odom_frame means that there is no odometry.
        map_file: the map that the localizer is to load, if it is to be looked at.
        seconds: how long to listen.
    """

    image: str = "/camera/image_raw"
    camera_info: str = "/camera/camera_info"
    base_frame: str = "base_link"
    odom_frame: str = "odom"
    map_file: Path | None = None
    seconds: float = 5.0


def examine_live(options: LiveOptions, progress: Callable[[float], object] | None = None) -> list[Finding]:
    """Listen to the robot in this process's ROS domain, and judge.

    Args:
        options: topics and frames.
        progress: called with the seconds listened so far.
    """
    context = Context()
    rclpy.init(args=[], context=context, signal_handler_options=rclpy.SignalHandlerOptions.NO)
    node = Node(_NAME, context=context, use_global_arguments=False, start_parameter_services=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=_spin, args=(executor,), name=_NAME, daemon=True)
    thread.start()
    try:
        seen = _Listener(node, options).listen(progress or (lambda seconds: None))
    finally:
        context.try_shutdown()
        thread.join(10.0)
        executor.shutdown()
        node.destroy_node()
    found = check_topics(seen) + check_tf(seen, options.base_frame, options.odom_frame)
    return found + check_python(seen.environment) + check_map(options.map_file)


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass


@dataclass
class _Listener:
    """Subscriptions that fill an Observation; their callbacks run on the executor's thread."""

    node: Node
    options: LiveOptions
    seen: LiveTraffic = field(init=False)

    def __post_init__(self) -> None:
        self.seen = LiveTraffic(Stream(_absolute(self.options.image)), Stream(_absolute(self.options.camera_info)))
        self._lock = threading.Lock()
        self._clock_ns: int | None = None
        self._last: dict[str, tuple[type, bytes]] = {}
        self._clients: dict[str, Client] = {}
        self._answers: dict[str, Future] = {}

    def listen(self, progress: Callable[[float], object]) -> LiveTraffic:
        self._discover()
        self._subscribe()
        begun = time.monotonic()
        while (past := time.monotonic() - begun) < self.options.seconds:
            progress(past)
            self._ask_for_sim_time()
            time.sleep(min(0.2, self.options.seconds - past))
        progress(self.options.seconds)
        with self._lock:
            self.seen.listened_s = self.options.seconds
            self._read_graph()
            self._read_sim_time()
            self._read_last()
            self.seen.environment = _environment()
            return self.seen

    def _discover(self) -> None:
        """Wait until both topics are there, or for as long as discovery takes."""
        deadline = time.monotonic() + _DISCOVERY_S
        topics = (self.seen.image.topic, self.seen.info.topic)
        while time.monotonic() < deadline and not all(
            self.node.get_publishers_info_by_topic(topic) for topic in topics
        ):
            time.sleep(0.05)  # rclpy offers no event on this in Humble

    def _subscribe(self) -> None:
        node, types = self.node, dict(self.node.get_topic_names_and_types())
        image_types = set(types.get(self.seen.image.topic, ()))
        for name, message in (("sensor_msgs/msg/CompressedImage", CompressedImage), ("sensor_msgs/msg/Image", Image)):
            if name in image_types:
                node.create_subscription(
                    message, self.seen.image.topic, self._stream(self.seen.image, message), _ANY, raw=True
                )
                break
        if CAMERA_INFO_TYPE in types.get(self.seen.info.topic, ()):
            node.create_subscription(
                CameraInfo, self.seen.info.topic, self._stream(self.seen.info, CameraInfo), _ANY, raw=True
            )
        node.create_subscription(TFMessage, "/tf", lambda message: self._on_tf(message, False), _ANY)
        node.create_subscription(TFMessage, "/tf_static", lambda message: self._on_tf(message, True), _LATCHED)
        node.create_subscription(Clock, "/clock", self._on_clock, _ANY)
        self._subscribe_covariances(types)
        self._subscribe_status(types)

    def _subscribe_covariances(self, types: dict[str, list[str]]) -> None:
        for topic, kinds in sorted(types.items()):
            for kind, message in _COVARIANCES.items():
                if kind in kinds and self.node.get_publishers_info_by_topic(topic):
                    self.node.create_subscription(
                        message, topic, lambda message, topic=topic: self._on_covariance(topic, message), _ANY
                    )

    def _subscribe_status(self, types: dict[str, list[str]]) -> None:
        topics = [topic for topic, kinds in types.items() if _STATUS in kinds]
        if topics:
            from dimm_ros.msg import LocalizationStatus  # only there where dimm_ros was built

            self.node.create_subscription(LocalizationStatus, topics[0], self._on_status, _ANY)

    def _stream(self, stream: Stream, kind: type) -> Callable[[bytes], None]:
        """A callback on serialised messages: only the header is read, the rest would cost a copy of every image."""

        def on_message(data: bytes) -> None:
            now, arrived = self._now_ns(), time.monotonic()
            seconds, nanoseconds, length = struct.unpack_from("<iII" if data[1] & 1 else ">iII", data, 4)
            stamp = seconds * 10**9 + nanoseconds
            with self._lock:
                stream.stamps.append(stamp)
                stream.arrivals.append(arrived)
                stream.ages.append((now - stamp) * 1e-9)
                stream.frame_ids.add(bytes(data[16 : 16 + length]).rstrip(b"\0").decode("utf-8", "replace").lstrip("/"))
                stream.bytes = max(stream.bytes, len(data))
                self._last[stream.topic] = (kind, bytes(data))

        return on_message

    def _now_ns(self) -> int:
        """/clock where it runs, else this computer's time."""
        return time.time_ns() if self._clock_ns is None else self._clock_ns

    def _on_clock(self, message: Clock) -> None:
        with self._lock:
            self.seen.clock_count += 1
            self._clock_ns = stamp_ns(message.clock)

    def _on_tf(self, message: TFMessage, static: bool) -> None:
        now, arrived = self._now_ns(), time.monotonic()
        with self._lock:
            for transform in message.transforms:
                parent, child = transform.header.frame_id.lstrip("/"), transform.child_frame_id.lstrip("/")
                link = self.seen.links.setdefault(child, Link())
                link.parents[parent] = link.parents.get(parent, 0) + 1
                link.static |= static
                link.stamps.append(stamp_ns(transform.header.stamp))
                link.arrivals.append(arrived)
                link.ages.append((now - link.stamps[-1]) * 1e-9)
                try:
                    matrix = from_transform(transform.transform)
                    self.seen.tree.add(parent, child, link.stamps[-1], matrix, static)
                    link.positions.append(matrix[:3, 3])
                except (TransformError, ValueError):  # a quaternion of zero length
                    continue

    def _on_covariance(self, topic: str, message) -> None:
        covariance = np.array(message.pose.covariance)
        fault = "not finite" if not np.isfinite(covariance).all() else "zero" if not covariance.any() else ""
        with self._lock:
            if fault:
                self.seen.covariances[topic] = fault
            else:
                self.seen.covariances.pop(topic, None)

    def _on_status(self, message) -> None:
        with self._lock:
            self.seen.localizer = (LocalizationState(message.state).name, message.reason)

    def _read_graph(self) -> None:
        """Publishers, and subscribers that they do not suit."""
        seen, node = self.seen, self.node
        for stream in (seen.image, seen.info):
            publishers = node.get_publishers_info_by_topic(stream.topic)
            stream.types = {one.topic_type for one in publishers}
            stream.publishers = [_full_name(one) for one in publishers]
        for topic in (seen.image.topic, seen.info.topic, "/tf", "/tf_static"):
            seen.mismatches += self._mismatches(topic)
        seen.tf_publishers = [_full_name(one) for one in node.get_publishers_info_by_topic("/tf")]
        static = node.get_publishers_info_by_topic("/tf_static")
        seen.volatile_static = sorted(
            {_full_name(one) for one in static if one.qos_profile.durability == DurabilityPolicy.VOLATILE}
        )
        seen.clock_publishers = [_full_name(one) for one in node.get_publishers_info_by_topic("/clock")]
        for topic, kinds in node.get_topic_names_and_types():
            published = bool(node.get_publishers_info_by_topic(topic))
            if published and set(kinds) & set(IMAGE_TYPES):
                seen.image_topics.append(topic)
            if published and CAMERA_INFO_TYPE in kinds:
                seen.info_topics.append(topic)

    def _mismatches(self, topic: str) -> list[str]:
        result = []
        for publisher in self.node.get_publishers_info_by_topic(topic):
            for subscriber in self.node.get_subscriptions_info_by_topic(topic):
                if subscriber.node_name == _NAME:
                    continue
                verdict, reason = qos_check_compatible(publisher.qos_profile, subscriber.qos_profile)
                if verdict == QoSCompatibility.ERROR:
                    why = reason.removeprefix("ERROR: ").strip().rstrip(";.")
                    result.append(
                        f"{_full_name(subscriber)} gets nothing of {topic} from {_full_name(publisher)} ({why})"
                    )
        return sorted(set(result))

    def _ask_for_sim_time(self) -> None:
        """Ask each node once, as soon as its parameter service is there."""
        for name, namespace in self.node.get_node_names_and_namespaces()[:_ASKED]:
            full = f"{namespace.rstrip('/')}/{name}"
            if name == _NAME or full in self._answers:
                continue
            if full not in self._clients:
                self._clients[full] = self.node.create_client(GetParameters, f"{full}/get_parameters")
            if self._clients[full].service_is_ready():
                self._answers[full] = self._clients[full].call_async(GetParameters.Request(names=["use_sim_time"]))

    def _read_sim_time(self) -> None:
        for name, future in self._answers.items():
            if future.done() and future.exception() is None and future.result().values:
                (self.seen.simulated if future.result().values[0].bool_value else self.seen.real).append(name)

    def _read_last(self) -> None:
        """Sizes and intrinsics, from the last message of each topic."""
        for stream in (self.seen.image, self.seen.info):
            if stream.topic not in self._last:
                continue
            kind, data = self._last[stream.topic]
            message = deserialize_message(data, kind)
            if kind is CameraInfo:
                try:
                    self.seen.camera = camera_from_info(message)
                    stream.size = _size(self.seen.camera)
                except InputError as error:
                    stream.fault = str(error)
            elif kind is Image:
                stream.size = (message.width, message.height)
            else:
                self._read_compressed(stream, message)

    @staticmethod
    def _read_compressed(stream: Stream, message: CompressedImage) -> None:
        from dimm_ros.data.image_encoding import decode_compressed

        try:
            height, width = decode_compressed(message.format, message.data).shape[:2]
            stream.size = (width, height)
        except InputError as error:
            stream.fault = str(error)


def _absolute(topic: str) -> str:
    return topic if topic.startswith("/") else f"/{topic}"


def _full_name(endpoint) -> str:
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


def _size(camera: Camera) -> tuple[int, int]:
    return camera.width, camera.height


def _environment() -> dict[str, str]:
    """Facts about this process's middleware."""
    result = {"rmw": get_rmw_implementation_identifier(), "domain": os.environ.get("ROS_DOMAIN_ID", "0")}
    profiles = [os.environ.get(name) for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")]
    if "fastrtps" in result["rmw"] and not any(profiles):
        result["profile"] = (
            "FASTRTPS_DEFAULT_PROFILES_FILE (FASTDDS_DEFAULT_PROFILES_FILE from Kilted on) is not set here"
        )
    return result
