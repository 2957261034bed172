"""Topics for eyes: the ray residuals over the camera image, and the predicted rays in the map for rviz."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import Point
from rclpy.duration import Duration
from sensor_msgs.msg import Image
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from dimm_ros.pictures.ray_picture import LIMIT_DEG, ray_lines, ray_residual_picture, residual_colours
from dimm_ros.ros.messages import to_image, to_stamp

if TYPE_CHECKING:
    from rclpy.node import Node

    from dimm_ros.localizer import Estimate

#: Pictures and markers a second at most: they are for people.
RATE_HZ = 5.0

_RAY_LENGTH = 0.5  # metres
_LIFETIME_S = 2.0


class DebugTopics:
    """``~/debug/rays`` (sensor_msgs/Image) and ``~/debug/markers`` (visualization_msgs/MarkerArray), published only
    while they have subscribers.

    Args:
        node: makes the publishers.
        rate_hz: most messages a second on each topic.
    """

    def __init__(self, node: Node, rate_hz: float = RATE_HZ) -> None:
        self._node, self._period = node, 1.0 / rate_hz
        self._rays = node.create_publisher(Image, "~/debug/rays", 1)
        self._markers = node.create_publisher(MarkerArray, "~/debug/markers", 1)
        self._made: dict[object, float] = {}

    def publish(
        self, image: np.ndarray, estimate: Estimate, camera_frame: str, map_frame: str, nanoseconds: int
    ) -> None:
        """Show what was made of an image, accepted or not.

        Args:
            image: (H, W, 3) uint8 RGB.
            estimate: of this image.
            camera_frame: the image's optical frame.
            map_frame: frame of the rays.
            nanoseconds: the image's stamp.
        """
        if self._due(self._rays):
            self._rays.publish(to_image(ray_residual_picture(image, estimate), camera_frame, nanoseconds))
        if estimate.world_rays is not None and self._due(self._markers):
            self._markers.publish(ray_markers(estimate, map_frame, nanoseconds))

    def destroy(self) -> None:
        """Take the publishers off the node."""
        for publisher in (self._rays, self._markers):
            self._node.destroy_publisher(publisher)

    def _due(self, publisher) -> bool:
        now = time.monotonic()
        if not publisher.get_subscription_count() or now - self._made.get(publisher, -np.inf) < self._period:
            return False
        self._made[publisher] = now
        return True


def ray_markers(estimate: Estimate, frame: str, nanoseconds: int, limit_deg: float = LIMIT_DEG) -> MarkerArray:
    """The predicted rays as lines, each from its point nearest to the solved camera centre, coloured by its angle
    residual.

    A sharp fan means that the rays agree on one centre. Patches without a ray are left out.
    """
    markers = MarkerArray()
    lines, known = ray_lines(estimate, _RAY_LENGTH)
    residual = (
        np.full(len(lines), np.nan)
        if estimate.angle_residual_deg is None
        else estimate.angle_residual_deg.ravel()[known]
    )
    colours = np.repeat(residual_colours(residual, limit_deg) / 255.0, 2, axis=0)

    marker = Marker(ns="rays", id=0, type=Marker.LINE_LIST, action=Marker.ADD)
    marker.header.stamp, marker.header.frame_id = to_stamp(nanoseconds), frame
    marker.lifetime = Duration(seconds=_LIFETIME_S).to_msg()
    marker.pose.orientation.w = 1.0
    marker.scale.x = 0.004
    marker.points = [Point(x=x, y=y, z=z) for x, y, z in lines.reshape(-1, 3).tolist()]
    marker.colors = [ColorRGBA(r=r, g=g, b=b, a=0.8) for r, g, b in colours.tolist()]
    markers.markers = [marker]
    return markers
