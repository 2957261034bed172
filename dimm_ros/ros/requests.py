"""Services and topics for requests to the localizer: begin anew, take a pose hint, give one to a SLAM."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from std_srvs.srv import Empty, Trigger

from dimm_ros.ros.messages import from_pose, stamp_ns
from dimm_ros.ros.pipeline import Hint
from dimm_ros.ros.reporter import Reporter, publish
from dimm_ros.ros.tf import bare

if TYPE_CHECKING:
    from dimm_ros.ros.lifecycle import ManagedNode


class Requests:
    """Topics and services of nav2's and cuVSLAM's conventions; each is answered at once, the work comes with the next
    image.

    ``initialpose`` is a hint, ``reinitialize_global_localization`` forgets all, ``~/relocalize`` checks anew while the
    transform goes on. cuVSLAM publishes ``visual_slam/trigger_hint`` when it cannot localize in its own map (an empty
    PoseWithCovarianceStamped; what it holds is not read) and waits for ``visual_slam/initial_pose``.

    Args:
        node: makes the topics.
        reporter: gets an error for a hint that cannot be used.
        frames: gives the frame of each loaded map by its name.
        forget: called to believe nothing any more; with True the published transform ends as well.
        take_hint: called with a hint.

    Attributes:
        wanted: whether a SLAM waits for a pose.
    """

    def __init__(
        self,
        node: ManagedNode,
        reporter: Reporter,
        frames: Callable[[], dict[str, str]],
        forget: Callable[[bool], None],
        take_hint: Callable[[Hint], None],
    ) -> None:
        self._node, self._reporter, self._frames, self._forget, self._take_hint = (
            node,
            reporter,
            frames,
            forget,
            take_hint,
        )
        self.wanted = False
        self._initial_pose = node.create_publisher(PoseWithCovarianceStamped, "visual_slam/initial_pose", 10)
        self._subscriptions = [
            node.create_subscription(PoseWithCovarianceStamped, "initialpose", self._on_initial_pose, 5),
            node.create_subscription(PoseWithCovarianceStamped, "visual_slam/trigger_hint", self._on_trigger_hint, 5),
        ]
        self._services = [
            node.create_service(Empty, "reinitialize_global_localization", self._on_reinitialize),
            node.create_service(Trigger, "~/relocalize", self._on_relocalize),
        ]

    def destroy(self) -> None:
        """Take all of it off the node."""
        for service in self._services:
            self._node.destroy_service(service)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._node.destroy_publisher(self._initial_pose)

    def pose_published(self, message: PoseWithCovarianceStamped) -> None:
        """A pose was believed: the SLAM that asked gets it. On the worker's thread."""
        if self.wanted:
            self.wanted = False
            publish(self._node, self._initial_pose, message)

    def _on_initial_pose(self, message: PoseWithCovarianceStamped) -> None:
        frame, frames = bare(message.header.frame_id), self._frames()
        names = [name for name, its in frames.items() if its == frame]
        covariance = np.array(message.pose.covariance, dtype=np.float64).reshape(6, 6)
        try:
            pose = from_pose(message.pose.pose)
        except ValueError:  # a quaternion of zero length, or NaN
            pose = np.full((4, 4), np.nan)
        if not names:
            known = ", ".join(f"'{one}'" for one in sorted(set(frames.values())))
            self._refuse(f"its frame is '{frame}', the map's is {known}")
        elif not (np.isfinite(pose).all() and np.isfinite(covariance).all()):
            self._refuse("it is not finite, or its quaternion has no length")
        else:
            stamp = stamp_ns(message.header.stamp) or self._reporter.now_ns()
            self._node.get_logger().info(
                f"Took a hint: {', '.join(f'{value:.2f}' for value in pose[:3, 3])} m in '{frame}'."
            )
            self._take_hint(Hint(pose, covariance, stamp, names[0] if len(names) == 1 else None))

    def _refuse(self, why: str) -> None:
        self._reporter.say(f"The pose on 'initialpose' is not used: {why}.")

    def _on_trigger_hint(self, message: PoseWithCovarianceStamped) -> None:
        self.wanted = True

    def _on_reinitialize(self, request: Empty.Request, response: Empty.Response) -> Empty.Response:
        self._forget(True)
        return response

    def _on_relocalize(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._forget(False)
        response.success, response.message = True, "The next images are localized without regard to earlier ones."
        return response
