"""Subscriptions that can explain why nothing arrives: sentences that name the resolved topic, its publishers and the
last stamp.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rclpy.qos import QoSProfile, qos_policy_name_from_kind

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble's name of it
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node


@dataclass
class Watched:
    """A subscription that can explain its silence.

    Attributes:
        name: what it carries, such as "image".
        type_name: expected type, such as "sensor_msgs/msg/Image".
        count: messages so far.
        last_ns: stamp of the last message.
        incompatible: names of QoS policies that kept publishers from connecting.
    """

    name: str
    type_name: str
    count: int = 0
    last_ns: int | None = None
    arrived: float = field(default_factory=time.monotonic)
    incompatible: set[str] = field(default_factory=set)
    subscription: object = None

    def heard(self, nanoseconds: int) -> None:
        """A message arrived with this stamp."""
        self.count += 1
        self.last_ns = nanoseconds
        self.arrived = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds (steady clock) since the last message, or since the subscription was made."""
        return time.monotonic() - self.arrived

    @property
    def topic(self) -> str:
        """Resolved name of the topic."""
        return self.subscription.topic_name

    def explain(self, node: Node) -> str:
        """One sentence on why nothing arrives."""
        publishers = node.get_publishers_info_by_topic(self.topic)
        number = f"{len(publishers)} publisher{'' if len(publishers) == 1 else 's'}"
        past = (
            f"{self.count} messages so far, the last stamped {self.last_ns * 1e-9:.3f}" if self.count else "none so far"
        )
        start = f"No {self.name} arrives on '{self.topic}' ({number}, {past})"
        others = sorted({publisher.topic_type for publisher in publishers} - {self.type_name})
        if not publishers:
            return f"{start}: start the camera driver or remap '{self.name}' to its topic."
        if others and len(others) == len({publisher.topic_type for publisher in publishers}):
            hint = "; set the parameter image_transport" if "Image" in self.type_name else ""
            return f"{start}: it carries {', '.join(others)}, not {self.type_name}{hint}."
        if self.incompatible:
            return (
                f"{start}: the publisher's QoS is incompatible ({', '.join(sorted(self.incompatible))}); set "
                f"image_reliability to best_effort."
            )
        return f"{start}: the publisher is silent or its large messages are lost, see docs/ros.md on the DDS profile."


def watch(node: Node, name: str, message_type: type, qos: QoSProfile, callback: Callable) -> Watched:
    """Subscribe to a topic; QoS that keeps a publisher from connecting is logged and remembered."""
    module = message_type.__module__.split(".")[0]
    watched = Watched(name, f"{module}/msg/{message_type.__name__}")

    def on_incompatible(event) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        watched.incompatible.add(policy)
        node.get_logger().error(
            f"A publisher on '{watched.topic}' has an incompatible QoS policy, {policy}: no message of it will arrive; "
            "set image_reliability to best_effort."
        )

    events = SubscriptionEventCallbacks(incompatible_qos=on_incompatible)
    try:
        watched.subscription = node.create_subscription(message_type, name, callback, qos, event_callbacks=events)
    except UnsupportedEventTypeError:  # some middlewares cannot tell
        watched.subscription = node.create_subscription(message_type, name, callback, qos)
    return watched
