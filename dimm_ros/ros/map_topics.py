"""The loaded map for eyes: its views and landmarks, latched, so that RViz shows them whenever it is started."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import Point
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from dimm_ros.geometry.camera import Camera
from dimm_ros.pictures.shown import frustum
from dimm_ros.ros.messages import to_cloud
from dimm_ros.ros.reporter import publish, sentence
from dimm_ros.ros.worker import LatestWorker

if TYPE_CHECKING:
    from dimm_ros.ros.lifecycle import ManagedNode
    from dimm_ros.scene_map import SceneMap

#: The latest map, for whoever listens later, too.
LATCHED_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)

#: What a view is drawn as: the map does not know its camera.
_USUAL_CAMERA = Camera(4, 3, 3.0, 3.0, 1.5, 1.0)
_DEPTH = 0.1  # of a view's pyramid, metres


class MapTopics:
    """``~/map/views`` (visualization_msgs/MarkerArray) and ``~/map/landmarks`` (sensor_msgs/PointCloud2), both
    transient local. Drawn and published on a thread of their own: a large map's take seconds, and no pose waits for
    them.

    Args:
        node: makes the publishers.
    """

    def __init__(self, node: ManagedNode) -> None:
        self._node = node
        self._lock, self._closed = threading.Lock(), False  # nothing is published once the publishers are gone
        self._views = node.create_publisher(MarkerArray, "~/map/views", LATCHED_QOS)
        self._landmarks = node.create_publisher(PointCloud2, "~/map/landmarks", LATCHED_QOS)
        self._worker = LatestWorker[tuple["SceneMap", str]](lambda: None, self._draw, "map_topics", self._on_error)
        self._worker.start()

    def publish(self, scene_map: SceneMap, frame: str) -> None:
        """Show a map, soon, in place of the one before.

        Args:
            scene_map: the map.
            frame: of its poses.
        """
        self._worker.submit((scene_map, frame))

    def destroy(self) -> None:
        """Take the publishers off the node; what is being drawn is dropped."""
        self._worker.stop(timeout=0.0)
        with self._lock:
            self._closed = True
            for publisher in (self._views, self._landmarks):
                self._node.destroy_publisher(publisher)

    def _draw(self, shown: tuple[SceneMap, str]) -> None:
        scene_map, frame = shown
        views = view_markers(scene_map.mapped_poses(), frame)
        landmarks = to_cloud(landmark_places(scene_map), frame, 0)
        with self._lock:
            if not self._closed:
                publish(self._node, self._views, views)
                publish(self._node, self._landmarks, landmarks)

    def _on_error(self, error: Exception) -> None:
        self._node.get_logger().error(f"The map cannot be shown: {sentence(error)}")


def landmark_places(scene_map: SceneMap) -> np.ndarray:
    """(L, 3) places of a map's landmarks, metres; none of a map that has no landmarks, or hides them in lines."""
    landmarks = scene_map.landmarks
    if landmarks is None or landmarks.kind != "points":
        return np.empty((0, 3))
    return landmarks.exact_places + scene_map.header.origin


def view_markers(poses: np.ndarray | None, frame: str) -> MarkerArray:
    """Mapped views as small pyramids, with what was shown before removed; stamped 0, so that TF's latest counts.

    Args:
        poses: (N, 4, 4) world_from_camera; None where the map remembers no view.
        frame: of the poses.
    """
    markers = MarkerArray(markers=[Marker(action=Marker.DELETEALL)])
    markers.markers[0].header.frame_id = frame
    if poses is None:
        return markers
    marker = Marker(ns="views", id=0, type=Marker.LINE_LIST, action=Marker.ADD)
    marker.header.frame_id = frame
    marker.pose.orientation.w = 1.0
    marker.scale.x = 0.003
    marker.color = ColorRGBA(r=0.2, g=0.6, b=1.0, a=0.7)
    ends = np.concatenate([frustum(_USUAL_CAMERA, pose, _DEPTH) for pose in poses])
    marker.points = [Point(x=x, y=y, z=z) for x, y, z in ends.tolist()]
    markers.markers.append(marker)
    return markers
