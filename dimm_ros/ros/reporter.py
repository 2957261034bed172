"""``status`` and ``/diagnostics``: what became of each image, and once a second how things are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy

from dimm_ros.errors import DimmError
from dimm_ros.msg import LocalizationStatus
from dimm_ros.ros.health import Health, LocalizationState
from dimm_ros.ros.logs import Throttle
from dimm_ros.ros.messages import to_stamp

if TYPE_CHECKING:
    from dimm_ros.estimate import Estimate
    from dimm_ros.ros.lifecycle import ManagedNode
    from dimm_ros.ros.parameters import NodeConfig

_LEVEL = {
    LocalizationState.LOCALIZED: DiagnosticStatus.OK,
    LocalizationState.DEGRADED: DiagnosticStatus.WARN,
    LocalizationState.UNINITIALIZED: DiagnosticStatus.WARN,
    LocalizationState.LOST: DiagnosticStatus.ERROR,
}


class Reporter:
    """Publishes on a node what ``Health`` counts; it is there in every lifecycle state, to say why nothing else is.

    Args:
        node: makes the publishers.
        health: the counts and the state.
        config: gives the parameters in force.

    Attributes:
        map_name, map_frame: of the current map, empty when none is loaded.
        trouble: what is wrong beside the images, one sentence; every status says it.
        last_reason: of the latest status.
        extras: called for further values of ``/diagnostics``.
    """

    def __init__(self, node: ManagedNode, health: Health, config: Callable[[], NodeConfig]) -> None:
        self._node, self._health, self._config = node, health, config
        self._log = Throttle(node)
        self._status = node.create_publisher(LocalizationStatus, "status", 10)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.map_name = self.map_frame = self.trouble = self.last_reason = ""
        self._found, self._found_lock = False, threading.Lock()
        self.extras: list[Callable[[], Mapping[str, object]]] = []
        self._seen: dict[str, str] = {"inliers": ""}

    def now_ns(self) -> int:
        """The node's clock."""
        return self._node.get_clock().now().nanoseconds

    def new_status(self, nanoseconds: int) -> LocalizationStatus:
        """A status to be filled in."""
        status = LocalizationStatus(map_name=self.map_name)
        status.header.stamp = to_stamp(max(0, nanoseconds))
        status.header.frame_id = self._config().map_frame or self.map_frame
        return status

    def publish(self, status: LocalizationStatus) -> None:
        """Publish a status with the counts and the state of now."""
        counts = self._health.counts
        status.received, status.answered, status.rejected, status.dropped = (
            counts.received,
            counts.answered,
            counts.rejected,
            counts.dropped,
        )
        status.reason = " ".join(filter(None, (status.reason, self.trouble)))
        self.last_reason = status.reason
        status.state = int(self._state())
        publish(self._node, self._status, status)
        if status.reason:
            self._log.warn(status.reason)

    def _state(self) -> LocalizationState:
        """The state of now; that the robot was found, and that it was lost, goes to the log."""
        lost_after = self._config().lost_after
        state = self._health.state(self.now_ns(), lost_after)
        found = state in (LocalizationState.LOCALIZED, LocalizationState.DEGRADED)
        with self._found_lock:  # statuses come from two threads
            before, self._found = self._found, found
        if found and not before:
            self._node.get_logger().info(f"Localized in map '{self.map_name}'.")
        elif before and state is LocalizationState.LOST:
            why = " ".join(filter(None, (f"Lost: no pose for {lost_after:g} s.", self.last_reason)))
            self._node.get_logger().warning(why)
        return state

    def saw(self, estimate: Estimate) -> None:
        """What ``/diagnostics`` tells of the latest estimate, accepted or not; ``novelty`` is the out-of-map score,
        where the map has one.
        """
        seen = {"inliers": f"{estimate.inliers} of {estimate.rays} rays", "rests on": estimate.basis}
        if estimate.landmark_matches:
            seen["landmarks"] = f"{estimate.landmarks} of {estimate.landmark_matches} matched"
        if estimate.novelty is not None:
            seen["novelty"] = f"{estimate.novelty:.2f}"
        self._seen = seen

    def say(self, reason: str) -> None:
        """Publish a status that belongs to no image."""
        status = self.new_status(self.now_ns())
        status.reason = reason
        self.publish(status)

    def diagnose(self, reason: str, *, failed: bool = False) -> None:
        """Publish ``/diagnostics``.

        Args:
            reason: one sentence, empty when all is well.
            failed: an error, whatever the state is.
        """
        state, counts = self._state(), self._health.counts
        level = (
            DiagnosticStatus.ERROR
            if failed
            else max(_LEVEL[state], DiagnosticStatus.WARN if self.trouble else DiagnosticStatus.OK)
        )
        values = {
            "state": state.name,
            "lifecycle": self._node.state,
            "map": self.map_name,
            **self._seen,
            **vars(counts),
        }
        values |= {name: f"{value:.1f}" for name, value in self._health.figures().items()}
        for extra in self.extras:
            values |= extra()
        status = DiagnosticStatus(
            level=level,
            name=f"{self._node.get_name()}: localization",
            hardware_id=self._node.get_fully_qualified_name(),
            message=reason or state.name,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = to_stamp(self.now_ns())
        publish(self._node, self._diagnostics, message)


def sentence(error: Exception) -> str:
    """Sentence for the user about an exception."""
    return (
        str(error)
        if isinstance(error, DimmError)
        else f"Unexpected {type(error).__name__}: {error} (a bug; the log has its trace)."
    )


def publish(node: ManagedNode, publisher, message) -> None:
    """Publish, also from the worker's thread while the process or the publisher comes to its end."""
    try:
        publisher.publish(message)
    except (_rclpy.RCLError, _rclpy.InvalidHandle):
        if node.context.ok() and node.state == "active":
            raise
