"""The package's log records in ROS's log."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node

_THROTTLE_S = 5.0
_REMEMBERED = 256  # kinds of sentences


class _RosHandler(logging.Handler):
    """Python's log records of dimm_ros in ROS's log: which weights were found, and where."""

    def __init__(self, node: Node) -> None:
        super().__init__(logging.INFO)
        self._logger = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)


def forward_log(node: Node) -> None:
    """Send the package's log records to a node's log."""
    log = logging.getLogger("dimm_ros")
    log.handlers = [handler for handler in log.handlers if not isinstance(handler, _RosHandler)] + [_RosHandler(node)]
    log.setLevel(logging.INFO)


class Throttle:
    """Warnings on a node's log, each kind of sentence (its first words) at most once in a while."""

    def __init__(self, node: Node) -> None:
        self._logger = node.get_logger()
        self._last: dict[str, float] = {}

    def warn(self, text: str) -> None:
        """Log a warning, unless its like was logged a moment ago."""
        key, now = text[:24], time.monotonic()
        if now - self._last.get(key, float("-inf")) >= _THROTTLE_S:
            if len(self._last) >= _REMEMBERED:
                self._last.clear()
            self._last[key] = now
            self._logger.warning(text)
