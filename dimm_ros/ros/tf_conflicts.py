"""Notices that another node publishes the transform that the localizer publishes, or gives the robot a second
parent.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from dimm_ros.ros.messages import from_transform, stamp_ns
from dimm_ros.ros.tf import NodeTransforms, bare

if TYPE_CHECKING:
    from geometry_msgs.msg import TransformStamped
    from rclpy.node import Node

#: A conflict on /tf is over when it was not seen for this long, seconds.
KEEP_S = 3.0

_REMEMBERED = 4096  # sent transforms; they come back within moments
_FOREIGN = 3  # messages of another node before a warning: one may be a late one of a node that has just ended


class ConflictDetector:
    """Compares what is heard on TF with what was sent; without ROS's middleware, thread safe. Times are a steady
    clock's, seconds.

    Args:
        child: the frame whose parent the localizer publishes; empty when it publishes none.
        robot: the robot's frame, whose parent another node publishes; empty to leave it out.
    """

    def __init__(self, child: str, robot: str) -> None:
        self._child, self._robot = bare(child), bare(robot)
        self._ours = ("", "")
        self._lock = threading.Lock()
        self._sent: OrderedDict[tuple[str, str, int], np.ndarray] = OrderedDict()
        self._foreign: dict[
            str, tuple[int, float]
        ] = {}  # parent of child -> messages, time of the last (infinite when static)
        self._parents: dict[str, float] = {}  # parent of robot -> time of the last

    def clear(self) -> None:
        """Forget what was sent and what was heard on /tf; static transforms stay."""
        with self._lock:
            self._ours = ("", "")
            self._sent.clear()
            self._foreign = {parent: seen for parent, seen in self._foreign.items() if seen[1] == np.inf}
            self._parents = {parent: at for parent, at in self._parents.items() if at == np.inf}

    def watches(self, child: str) -> bool:
        """Whether transforms to this frame matter."""
        child = bare(child)
        return bool(child) and child in (self._child, self._robot)

    def sent(self, parent: str, child: str, nanoseconds: int, parent_from_child: np.ndarray) -> None:
        """To be called before a transform is published."""
        with self._lock:
            self._child, self._ours = bare(child), (bare(parent), bare(child))
            self._sent[(*self._ours, nanoseconds)] = parent_from_child
            while len(self._sent) > _REMEMBERED:
                self._sent.popitem(last=False)

    def heard(
        self, parent: str, child: str, nanoseconds: int, parent_from_child: np.ndarray, now: float, static: bool = False
    ) -> None:
        """A transform to a watched frame was heard, ours among others."""
        parent, child = bare(parent), bare(child)
        with self._lock:
            own = self._sent.get((parent, child, nanoseconds))
            if own is not None and np.allclose(own, parent_from_child, atol=1e-6):
                return
            at = np.inf if static else now
            if child == self._child:
                count, last = self._foreign.get(parent, (0, -np.inf))
                count = (count if now - last <= KEEP_S else 0) + (_FOREIGN if static else 1)
                self._foreign[parent] = (count, max(at, last))
            else:
                self._parents[parent] = max(at, self._parents.get(parent, -np.inf))

    def conflict(self, now: float) -> str:
        """One sentence on what is wrong and what to do, empty when nothing is."""
        with self._lock:
            parents = sorted(
                parent for parent, (count, at) in self._foreign.items() if count >= _FOREIGN and now - at <= KEEP_S
            )
            robot = sorted(parent for parent, at in self._parents.items() if now - at <= KEEP_S)
            own_parent, child = self._ours
        if parents and own_parent in ("", *parents):
            which = own_parent or parents[0]
            return (
                f"Somebody else publishes the transform '{which}' -> '{self._child}' too, so the robot jumps between "
                "two poses: "
                "stop that publisher (AMCL, SLAM, an EKF, a static transform, a bag's recorded TF) or set tf_mode to "
                "none."
            )
        if parents:
            return (
                f"TF gives '{child}' the parent '{parents[0]}' while this node publishes '{own_parent}' -> '{child}', "
                "and a frame has one parent: "
                "stop the other publisher or set tf_mode to none."
            )
        if len(robot) > 1:
            return (
                f"TF gives '{self._robot}' two parents, '{robot[0]}' and '{robot[1]}', so its pose jumps: stop one of "
                f"their publishers."
            )
        return ""


class WatchedTransforms:
    """A node's TF that also notices conflicts: remembers what it sends and listens to everybody's.

    Args:
        transforms: what is wrapped.
        node: whose graph tells who publishes TF.
        mode: ``map_odom``, ``map_base`` or ``none``.
        odom_frame, base_frame: of the node's parameters.
    """

    def __init__(self, transforms: NodeTransforms, node: Node, mode: str, odom_frame: str, base_frame: str) -> None:
        self._transforms, self._node = transforms, node
        child = {"map_odom": odom_frame, "map_base": base_frame, "none": ""}[mode]
        self._detector = ConflictDetector(child, "" if mode == "map_base" else base_frame)
        transforms.watch(self._on_transform)

    def lookup(self, target: str, source: str, nanoseconds: int, timeout_s: float) -> np.ndarray:
        return self._transforms.lookup(target, source, nanoseconds, timeout_s)

    def send(self, parent: str, child: str, nanoseconds: int, parent_from_child: np.ndarray) -> None:
        self._detector.sent(parent, child, nanoseconds, parent_from_child)
        self._transforms.send(parent, child, nanoseconds, parent_from_child)

    def clear(self) -> None:
        self._detector.clear()
        self._transforms.clear()

    def destroy(self) -> None:
        self._transforms.destroy()

    def conflict(self) -> str:
        """One sentence while another node publishes the localizer's transform, naming the nodes that publish TF;
        empty when all is well.
        """
        sentence = self._detector.conflict(time.monotonic())
        if not sentence:
            return ""
        infos = (info for topic in ("/tf", "/tf_static") for info in self._node.get_publishers_info_by_topic(topic))
        others = sorted({info.node_name for info in infos} - {self._node.get_name()})
        return f"{sentence} Nodes that publish TF: {', '.join(others)}." if others else sentence

    def _on_transform(self, transform: TransformStamped, static: bool) -> None:
        if not self._detector.watches(transform.child_frame_id):
            return
        header = transform.header
        try:
            pose = from_transform(transform.transform)
        except ValueError:  # a quaternion of zero length; what keeps TF says so
            return
        stamp, now = stamp_ns(header.stamp), time.monotonic()
        self._detector.heard(header.frame_id, transform.child_frame_id, stamp, pose, now, static)
