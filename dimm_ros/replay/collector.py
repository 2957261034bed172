"""Gathers what the localizer publishes, with the time each message came: for replays, the demo and tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from tf2_msgs.msg import TFMessage

from dimm_ros.msg import LocalizationStatus
from dimm_ros.ros.messages import from_pose, from_transform, stamp_ns
from dimm_ros.ros.tf import DYNAMIC_QOS

if TYPE_CHECKING:
    from rclpy.node import Node


@dataclass(frozen=True)
class PublishedPose:
    """A published pose.

    Attributes:
        stamp_ns: the image's stamp.
        received_s: when it came, ``time.monotonic()``.
        frame_id: the map frame.
        map_from_body: (4, 4).
        covariance: (6, 6), ROS order.
    """

    stamp_ns: int
    received_s: float
    frame_id: str
    map_from_body: np.ndarray
    covariance: np.ndarray


@dataclass(frozen=True)
class Report:
    """A status message, and when it arrived (``time.monotonic()``)."""

    stamp_ns: int
    received_s: float
    message: LocalizationStatus


@dataclass(frozen=True)
class Broadcast:
    """A transform of /tf, and when it arrived (``time.monotonic()``)."""

    parent: str
    child: str
    stamp_ns: int
    received_s: float
    parent_from_child: np.ndarray


class Collector:
    """Subscribes to a localizer's topics on a node that the caller spins; thread safe.

    Args:
        node: the node to subscribe on; its namespace is the localizer's, or the topics say where it is.
        pose_topic, status_topic: the localizer's.
    """

    def __init__(self, node: Node, pose_topic: str = "localization_pose", status_topic: str = "status") -> None:
        self._changed = threading.Condition(threading.RLock())
        self._answers: list[PublishedPose] = []
        self._reports: list[Report] = []
        self._broadcasts: list[Broadcast] = []
        node.create_subscription(PoseWithCovarianceStamped, pose_topic, self._on_pose, 100)
        self._status = node.create_subscription(LocalizationStatus, status_topic, self._on_status, 100)
        node.create_subscription(TFMessage, "/tf", self._on_tf, DYNAMIC_QOS)

    @property
    def answers(self) -> tuple[PublishedPose, ...]:
        """Poses so far."""
        with self._changed:
            return tuple(self._answers)

    @property
    def reports(self) -> tuple[Report, ...]:
        """Status messages so far."""
        with self._changed:
            return tuple(self._reports)

    @property
    def broadcasts(self) -> tuple[Broadcast, ...]:
        """Transforms of /tf so far, the player's own included."""
        with self._changed:
            return tuple(self._broadcasts)

    def wait_for(self, condition: Callable[[], object], timeout_s: float) -> bool:
        """Wait until a condition on what was gathered holds; checked with every message that comes."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            return bool(self._changed.wait_for(condition, max(0.0, deadline - time.monotonic())))

    def report_of(self, nanoseconds: int) -> Report | None:
        """The status of the image with this stamp, once it is there."""
        with self._changed:
            return next((report for report in reversed(self._reports) if report.stamp_ns == nanoseconds), None)

    def _on_pose(self, message: PoseWithCovarianceStamped) -> None:
        covariance = np.array(message.pose.covariance, dtype=np.float64).reshape(6, 6)
        header = message.header
        answer = PublishedPose(
            stamp_ns=stamp_ns(header.stamp),
            received_s=time.monotonic(),
            frame_id=header.frame_id,
            map_from_body=from_pose(message.pose.pose),
            covariance=covariance,
        )
        self._add(self._answers, answer)

    def _on_status(self, message: LocalizationStatus) -> None:
        self._add(self._reports, Report(stamp_ns(message.header.stamp), time.monotonic(), message))

    def _on_tf(self, message: TFMessage) -> None:
        for transform in message.transforms:
            header = transform.header
            matrix = from_transform(transform.transform)
            now = time.monotonic()
            self._add(
                self._broadcasts,
                Broadcast(header.frame_id, transform.child_frame_id, stamp_ns(header.stamp), now, matrix),
            )

    def _add(self, gathered: list, item: object) -> None:
        with self._changed:
            gathered.append(item)
            self._changed.notify_all()
