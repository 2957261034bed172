"""TF: tf2_ros where it is installed, the same behaviour on a ``TransformTree`` where it is not."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from dimm_ros.data.transform_tree import TransformTree
from dimm_ros.errors import TransformError, TransformStampError
from dimm_ros.ros.messages import from_transform, stamp_ns, to_transform

if TYPE_CHECKING:
    from rclpy.node import Node

#: How much of TF is remembered, seconds: a slow computer's images are answered late.
CACHE_S = 30.0

#: QoS of /tf and /tf_static, as in tf2_ros.
DYNAMIC_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)
STATIC_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Transforms(Protocol):
    """What the node needs of TF."""

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


def make_transforms(node: Node) -> Transforms:
    """TF of a node, by tf2_ros if it can be imported."""
    try:
        import tf2_ros  # noqa: F401
    except ImportError:
        return TreeTransforms(node)
    return Tf2Transforms(node)


class TreeTransforms:
    """Buffer, listener and broadcaster in one, without tf2_ros."""

    def __init__(self, node: Node) -> None:
        from tf2_msgs.msg import TFMessage

        self._node, self._message = node, TFMessage
        self._tree = TransformTree(max_age_s=CACHE_S)
        self._statics: dict[str, object] = {}
        self._arrived = threading.Condition()
        self._warned: set[str] = set()
        group = MutuallyExclusiveCallbackGroup()
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", self._on_dynamic, DYNAMIC_QOS, callback_group=group),
            node.create_subscription(TFMessage, "/tf_static", self._on_static, STATIC_QOS, callback_group=group),
        ]
        self._publisher = node.create_publisher(TFMessage, "/tf", DYNAMIC_QOS)

    def lookup(self, target: str, source: str, nanoseconds: int, timeout_s: float) -> np.ndarray:
        deadline = time.monotonic() + timeout_s
        with self._arrived:
            while True:
                try:
                    return self._tree.lookup(target, source, nanoseconds)
                except TransformError:
                    remaining = deadline - time.monotonic()
                    if remaining <= 0:
                        raise
                self._arrived.wait(remaining)

    def send(self, parent: str, child: str, nanoseconds: int, parent_from_child: np.ndarray) -> None:
        self._publisher.publish(self._message(transforms=[to_transform(parent, child, nanoseconds, parent_from_child)]))

    def clear(self) -> None:
        with self._arrived:
            self._tree.clear()
            for transform in self._statics.values():
                self._add(transform, static=True)

    def destroy(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._node.destroy_publisher(self._publisher)

    def _on_dynamic(self, message) -> None:
        with self._arrived:
            for transform in message.transforms:
                self._add(transform, static=False)
            self._arrived.notify_all()

    def _on_static(self, message) -> None:
        with self._arrived:
            for transform in message.transforms:
                if self._add(transform, static=True):
                    self._statics[transform.child_frame_id.lstrip("/")] = transform
            self._arrived.notify_all()

    def _add(self, transform, static: bool) -> bool:
        header = transform.header
        try:
            self._tree.add(header.frame_id, transform.child_frame_id, stamp_ns(header.stamp), from_transform(transform.transform), static)
        except (TransformError, ValueError) as error:  # ValueError: a quaternion of zero length
            text = f"Transform '{header.frame_id}' -> '{transform.child_frame_id}' is ignored: {error}"
            if text not in self._warned:
                self._warned.add(text)
                self._node.get_logger().warning(text)
            return False
        return True


class Tf2Transforms:
    """The same by tf2_ros."""

    def __init__(self, node: Node) -> None:
        import tf2_ros
        from rclpy.duration import Duration
        from rclpy.time import Time

        self._tf2, self._time = tf2_ros, Time
        self._buffer = tf2_ros.Buffer(cache_time=Duration(seconds=CACHE_S), node=node)
        self._listener = tf2_ros.TransformListener(self._buffer, node, spin_thread=False)
        self._broadcaster = tf2_ros.TransformBroadcaster(node, DYNAMIC_QOS)
        self._node = node

    def lookup(self, target: str, source: str, nanoseconds: int, timeout_s: float) -> np.ndarray:
        # Waits by a steady clock: tf2's own timeout goes by the node's, which stands still while a simulation is paused.
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                found = self._buffer.lookup_transform(target, source, self._time(nanoseconds=nanoseconds))
                break
            except self._tf2.ExtrapolationException as error:
                failure = TransformStampError(f"TF links '{target}' and '{source}', but not at the image's time: {error}")
            except self._tf2.TransformException as error:
                failure = TransformError(f"TF does not link '{target}' to '{source}': {error}")
            if time.monotonic() >= deadline:
                raise failure
            time.sleep(0.005)
        return from_transform(found.transform)

    def send(self, parent: str, child: str, nanoseconds: int, parent_from_child: np.ndarray) -> None:
        self._broadcaster.sendTransform(to_transform(parent, child, nanoseconds, parent_from_child))

    def clear(self) -> None:
        self._buffer.clear()  # tf2 keeps static transforms

    def destroy(self) -> None:
        self._listener.unregister()
        self._node.destroy_publisher(self._broadcaster.pub_tf)
