"""From accepted poses to the transform of ``tf_mode``, published again and again."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from dimm_ros.errors import TransformError
from dimm_ros.geometry import poses
from dimm_ros.ros.tf import Transforms


@dataclass(frozen=True)
class _Current:
    parent: str
    child: str
    parent_from_child: np.ndarray
    made_ns: int


class PoseBroadcaster:
    """Keeps the latest transform and broadcasts it; nothing before the first accepted pose. Thread safe.

    Args:
        transforms: TF.
        mode: ``map_odom``, ``map_base`` or ``none``.
        odom_frame: the odometry's frame, for ``map_odom``.
    """

    def __init__(self, transforms: Transforms, mode: str, odom_frame: str) -> None:
        self._transforms, self._mode, self._odom_frame = transforms, mode, odom_frame
        self._lock = threading.Lock()
        self._current: _Current | None = None
        self._sent_ns = 0

    def update(
        self,
        map_frame: str,
        body_frame: str,
        map_from_body: np.ndarray,
        stamp_ns: int,
        now_ns: int,
        timeout_s: float,
        odom_from_body: np.ndarray | None = None,
    ) -> None:
        """Take over an accepted pose.

        Args:
            map_frame, body_frame: frames of the pose.
            map_from_body: (4, 4) at the image's stamp.
            stamp_ns: the image's stamp.
            now_ns: the node's clock.
            timeout_s: how long to wait for the odometry at that stamp.
            odom_from_body: (4, 4) at that stamp, where it is known already.

        Raises:
            TransformError: the odometry is not in TF at the stamp (``map_odom``), or the body already has a parent in
            TF
                (``map_base``, before its first broadcast).
        """
        if self._mode == "none":
            return
        if self._mode == "map_odom":
            if odom_from_body is None:
                odom_from_body = self._transforms.lookup(self._odom_frame, body_frame, stamp_ns, timeout_s)
            current = _Current(map_frame, self._odom_frame, map_from_body @ poses.invert(odom_from_body), now_ns)
        else:
            self._refuse_second_parent(body_frame, stamp_ns)
            current = _Current(map_frame, body_frame, map_from_body, now_ns)
        with self._lock:
            self._current = current

    def send(self, now_ns: int, tolerance_s: float, keep_s: float) -> None:
        """Broadcast the latest transform, dated ``tolerance_s`` into the future.

        In ``map_odom`` the odometry carries the robot on, so the correction stays good; a ``map_base`` pose older than
        ``keep_s`` is no longer true and is not repeated.
        """
        with self._lock:
            current = self._current
            stamp = now_ns + round(tolerance_s * 1e9)
            if current is None or stamp <= self._sent_ns:  # tf2 warns about repeated stamps
                return
            if self._mode == "map_base" and now_ns - current.made_ns > keep_s * 1e9:
                return
            self._sent_ns = stamp
            self._transforms.send(current.parent, current.child, stamp, current.parent_from_child)

    def clear(self) -> None:
        """Forget the transform: nothing is broadcast until the next accepted pose."""
        with self._lock:
            self._current, self._sent_ns = None, 0

    def _refuse_second_parent(self, body_frame: str, stamp_ns: int) -> None:
        if self._current is not None:
            return
        try:
            self._transforms.lookup(self._odom_frame, body_frame, stamp_ns, 0.0)
        except TransformError:
            return
        raise TransformError(
            f"TF already links '{self._odom_frame}' to '{body_frame}', so tf_mode map_base would give '{body_frame}' "
            "a second parent; set tf_mode to map_odom."
        )
