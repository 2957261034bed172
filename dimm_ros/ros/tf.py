"""TF: tf2_ros where it is installed, the same behaviour on a ``TransformTree`` where it is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from dimm_ros.data.transform_tree import TransformTree
from dimm_ros.errors import TransformError, TransformStampError
from dimm_ros.ros.messages import from_transform, stamp_ns, to_transform

if TYPE_CHECKING:
    from geometry_msgs.msg import TransformStamped
    from rclpy.node import Node

#: How much of TF is remembered, seconds: a slow computer's images are answered late.
CACHE_S = 30.0

#: QoS of /tf and /tf_static, as in tf2_ros.
DYNAMIC_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)
STATIC_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def bare(frame: str) -> str:
    """A frame's name without the leading slash that ROS 1 knew and tf2 refuses."""
    return frame.lstrip("/")


class Transforms(Protocol):
    """TF as the node uses it."""

    def lookup(self, target: str, source: str, nanoseconds: int, timeout_s: float) -> np.ndarray:
        """(4, 4) target_from_source at a time, waiting for data that is still to come.

        Not to be called on the executor's thread, which brings that data.

        Raises:
            TransformError: nothing links the frames; the sentence names what is there.
            TransformStampError: they are linked, but not at this time.
        """

    def send(self, parent: str, child: str, nanoseconds: int, parent_from_child: np.ndarray) -> None:
        """Broadcast a transform on /tf."""

    def clear(self) -> None:
        """Forget dynamic transforms, after a jump back in time."""

    def destroy(self) -> None:
        """Take the subscriptions and the publisher off the node."""


def make_transforms(node: Node) -> NodeTransforms:
    """TF of a node, by tf2_ros if it can be imported."""
    try:
        import tf2_ros  # noqa: F401
    except ImportError:
        return TreeTransforms(node)
    return Tf2Transforms(node)


class NodeTransforms:
    """Listener and broadcaster: one subscription of each topic for all that listen; subclasses keep what is heard.

    Messages are deserialised in Python, once for each subscription, while the network waits for the interpreter: so
    tf2_ros's own listener is not used beside this one.
    """

    def __init__(self, node: Node) -> None:
        from tf2_msgs.msg import TFMessage

        self._node, self._message = node, TFMessage
        self._arrived = threading.Condition()
        self._watchers: list[Callable[[TransformStamped, bool], None]] = []
        group = MutuallyExclusiveCallbackGroup()
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", self._on_dynamic, DYNAMIC_QOS, callback_group=group),
            node.create_subscription(TFMessage, "/tf_static", self._on_static, STATIC_QOS, callback_group=group),
        ]
        self._publisher = node.create_publisher(TFMessage, "/tf", DYNAMIC_QOS)

    def watch(self, callback: Callable[[TransformStamped, bool], None]) -> None:
        """Have a function called with every transform and whether it is static, on the executor's thread."""
        self._watchers.append(callback)

    def lookup(self, target: str, source: str, nanoseconds: int, timeout_s: float) -> np.ndarray:
        # By a steady clock: the node's stands still while a simulation is paused.
        deadline = time.monotonic() + timeout_s
        with self._arrived:
            while True:
                try:
                    return self._find(bare(target), bare(source), nanoseconds)
                except TransformError:
                    remaining = deadline - time.monotonic()
                    if remaining <= 0:
                        raise
                self._arrived.wait(remaining)

    def send(self, parent: str, child: str, nanoseconds: int, parent_from_child: np.ndarray) -> None:
        self._publisher.publish(self._message(transforms=[to_transform(parent, child, nanoseconds, parent_from_child)]))

    def clear(self) -> None:
        with self._arrived:
            self._forget()

    def destroy(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._node.destroy_publisher(self._publisher)

    def _on_dynamic(self, message) -> None:
        self._on(message, static=False)

    def _on_static(self, message) -> None:
        self._on(message, static=True)

    def _on(self, message, static: bool) -> None:
        with self._arrived:
            for transform in message.transforms:
                self._keep(transform, static)
            self._arrived.notify_all()
        for watcher in self._watchers:
            for transform in message.transforms:
                watcher(transform, static)

    def _find(self, target: str, source: str, nanoseconds: int) -> np.ndarray:
        """As ``lookup``, at once."""
        raise NotImplementedError

    def _keep(self, transform: TransformStamped, static: bool) -> None:
        """Remember a transform."""
        raise NotImplementedError

    def _forget(self) -> None:
        """As ``clear``."""
        raise NotImplementedError


class TreeTransforms(NodeTransforms):
    """TF kept in a ``TransformTree``, without tf2_ros."""

    def __init__(self, node: Node) -> None:
        self._tree = TransformTree(max_age_s=CACHE_S)
        self._statics: dict[str, TransformStamped] = {}
        self._warned: set[str] = set()
        super().__init__(node)

    def _find(self, target: str, source: str, nanoseconds: int) -> np.ndarray:
        return self._tree.lookup(target, source, nanoseconds)

    def _keep(self, transform: TransformStamped, static: bool) -> None:
        header = transform.header
        try:
            pose = from_transform(transform.transform)
            self._tree.add(header.frame_id, transform.child_frame_id, stamp_ns(header.stamp), pose, static)
        except (TransformError, ValueError) as error:  # ValueError: a quaternion of zero length
            text = f"Transform '{header.frame_id}' -> '{transform.child_frame_id}' is ignored: {error}"
            if text not in self._warned:
                self._warned.add(text)
                self._node.get_logger().warning(text)
            return
        if static:
            self._statics[bare(transform.child_frame_id)] = transform

    def _forget(self) -> None:
        self._tree.clear()
        for transform in tuple(self._statics.values()):
            self._keep(transform, static=True)


class Tf2Transforms(NodeTransforms):
    """TF kept in tf2's buffer."""

    def __init__(self, node: Node) -> None:
        import tf2_ros
        from rclpy.duration import Duration
        from rclpy.time import Time

        self._tf2, self._time = tf2_ros, Time
        # Without the node: with it the buffer makes a service, which nothing takes off the node again.
        self._buffer = tf2_ros.Buffer(cache_time=Duration(seconds=CACHE_S))
        super().__init__(node)

    def _find(self, target: str, source: str, nanoseconds: int) -> np.ndarray:
        try:
            found = self._buffer.lookup_transform(target, source, self._time(nanoseconds=nanoseconds))
        except self._tf2.ExtrapolationException as error:
            self._check_link(target, source)
            said = f"TF links '{target}' and '{source}', but not at the image's time: {error}"
            raise TransformStampError(said) from error
        except self._tf2.TransformException as error:
            raise _not_linked(target, source, error) from error
        return from_transform(found.transform)

    def _check_link(self, target: str, source: str) -> None:
        """tf2 asks for stamps first, and may speak of extrapolation between two trees; not so for the latest time."""
        try:
            self._buffer.lookup_transform(target, source, self._time())
        except self._tf2.ExtrapolationException:
            pass  # linked, but at no time at all
        except self._tf2.TransformException as error:
            raise _not_linked(target, source, error) from error

    def _keep(self, transform: TransformStamped, static: bool) -> None:
        keep = self._buffer.set_transform_static if static else self._buffer.set_transform
        keep(transform, "default_authority")  # what tf2_ros's listener calls it

    def _forget(self) -> None:
        self._buffer.clear()  # tf2 keeps static transforms


def _not_linked(target: str, source: str, error: Exception) -> TransformError:
    return TransformError(f"TF does not link '{target}' to '{source}': {error}")
