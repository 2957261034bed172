"""Localized images for Foxglove (and rviz): a ROS 2 bag of standard messages, one MCAP file that Foxglove opens as it
is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import Writer

from dimm_ros.data.message_writer import MessageWriter, qos, staged_bag
from dimm_ros.pictures.ray_picture import ray_residual_picture
from dimm_ros.pictures.shown import ACCEPTED, REJECTED, TRUE, ShownFrame, ShownRun, frustum

CAMERA, TRUE_CAMERA = "camera", "true_camera"
_LINE_LIST, _ADD = 5, 0  # visualization_msgs/Marker
_QUALITY = 90

TOPICS = {
    "/tf": "tf2_msgs/msg/TFMessage",
    "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
    "/camera/image/compressed": "sensor_msgs/msg/CompressedImage",
    "/rays/image/compressed": "sensor_msgs/msg/CompressedImage",
    "/pose": "geometry_msgs/msg/PoseWithCovarianceStamped",
    "/markers": "visualization_msgs/msg/MarkerArray",
    "/true_path": "nav_msgs/msg/Path",
    "/estimated_path": "nav_msgs/msg/Path",
    "/error/translation_m": "std_msgs/msg/Float64",
    "/error/rotation_deg": "std_msgs/msg/Float64",
    "/inlier_ratio": "std_msgs/msg/Float64",
}


@contextmanager
def foxglove_sink(run: ShownRun, folder: Path) -> Iterator[FoxgloveSink]:
    """A bag in ``folder``, whose file is ``folder/<its name>.mcap``; it appears only when the block ends without an
    error.

    Raises:
        DataError: the bag exists or cannot be written.
    """
    with staged_bag(folder) as writer:
        sink = FoxgloveSink(writer, run)
        yield sink
        sink.finish()


class FoxgloveSink(MessageWriter):
    """``TOPICS``, in the map's frame; see ``foxglove_sink``."""

    def __init__(self, writer: Writer, run: ShownRun) -> None:
        super().__init__(writer)
        self._run = run
        self._path: list[tuple[int, np.ndarray]] = []
        for topic, kind in TOPICS.items():
            latched = QosDurability.TRANSIENT_LOCAL if topic.endswith("path") else QosDurability.VOLATILE
            self._open(topic, kind, qos(QosReliability.RELIABLE, latched, 10))
        if run.true_path is not None:
            poses = np.tile(np.eye(4), (len(run.true_path), 1, 1))
            poses[:, :3, 3] = run.true_path
            self._write("/true_path", run.start_ns, self._as_path([(run.start_ns, pose) for pose in poses]))

    def add(self, frame: ShownFrame) -> None:
        """Write an image with its cameras, rays and figures."""
        stamp, estimate = frame.stamp_ns, frame.estimate
        pose = estimate.world_from_camera
        self.transform(stamp, self._run.frame_id, CAMERA, pose)
        self._camera_info("/camera/camera_info", stamp, frame.camera, CAMERA)
        self._image("/camera/image/compressed", stamp, frame.image)
        self._image("/rays/image/compressed", stamp, ray_residual_picture(frame.image, estimate))
        if estimate.accepted:
            self._path.append((stamp, pose))
            body = self._make(
                "geometry_msgs/msg/PoseWithCovariance", pose=self._pose(pose), covariance=estimate.covariance.ravel()
            )
            self._write(
                "/pose",
                stamp,
                self._make(
                    "geometry_msgs/msg/PoseWithCovarianceStamped",
                    header=self._header(stamp, self._run.frame_id),
                    pose=body,
                ),
            )
        self._number("/inlier_ratio", stamp, estimate.inlier_ratio)
        markers = [
            self._lines(
                stamp,
                "estimated camera",
                frustum(frame.camera, pose),
                ACCEPTED if estimate.accepted else REJECTED,
                0.006,
            ),
            self._lines(
                stamp, "rays, inliers", frame.lines[frame.inliers].reshape(-1, 3), frame.colours[frame.inliers], 0.003
            ),
            self._lines(
                stamp,
                "rays, outliers",
                frame.lines[~frame.inliers].reshape(-1, 3),
                frame.colours[~frame.inliers],
                0.001,
            ),
        ]
        if frame.true is not None:
            self.transform(stamp, self._run.frame_id, TRUE_CAMERA, frame.true)
            distance, angle = frame.errors
            self._number("/error/translation_m", stamp, distance)
            self._number("/error/rotation_deg", stamp, angle)
            markers.append(self._lines(stamp, "true camera", frustum(frame.camera, frame.true), TRUE, 0.006))
            markers.append(self._lines(stamp, "error", np.stack([frame.true[:3, 3], pose[:3, 3]]), REJECTED, 0.01))
        self._write("/markers", stamp, self._make("visualization_msgs/msg/MarkerArray", markers=markers))

    def finish(self) -> None:
        """What is known only at the end, stamped as if it had been known from the first image on."""
        self._write("/estimated_path", self._run.start_ns, self._as_path(self._path))

    def _as_path(self, poses: list[tuple[int, np.ndarray]]):
        frame_id = self._run.frame_id
        stamped = [
            self._make("geometry_msgs/msg/PoseStamped", header=self._header(stamp, frame_id), pose=self._pose(pose))
            for stamp, pose in poses
        ]
        return self._make("nav_msgs/msg/Path", header=self._header(self._run.start_ns, frame_id), poses=stamped)

    def _image(self, topic: str, stamp: int, image: np.ndarray) -> None:
        done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if done:
            header = self._header(stamp, CAMERA)
            self._write(
                topic,
                stamp,
                self._make("sensor_msgs/msg/CompressedImage", header=header, format="jpeg", data=data.reshape(-1)),
            )

    def _number(self, topic: str, stamp: int, value: float) -> None:
        self._write(topic, stamp, self._make("std_msgs/msg/Float64", data=float(value)))

    def _lines(self, stamp: int, name: str, points: np.ndarray, colours, width: float):
        """A LINE_LIST of (2N, 3) points in one colour, or in (N, 3) colours."""
        make = self._make
        colours = np.atleast_2d(np.asarray(colours, dtype=np.float64)) / 255
        each = [make("std_msgs/msg/ColorRGBA", r=r, g=g, b=b, a=1.0) for r, g, b in colours.tolist()]
        per_point = [] if len(each) == 1 else [colour for colour in each for _ in range(2)]
        time = make("builtin_interfaces/msg/Time", sec=0, nanosec=0)
        return make(
            "visualization_msgs/msg/Marker",
            header=self._header(stamp, self._run.frame_id),
            ns=name,
            id=0,
            type=_LINE_LIST,
            action=_ADD,
            pose=self._pose(np.eye(4)),
            scale=self._xyz("Vector3", np.array([width, 0.0, 0.0])),
            color=each[0] if each else make("std_msgs/msg/ColorRGBA", r=1.0, g=1.0, b=1.0, a=1.0),
            lifetime=make("builtin_interfaces/msg/Duration", sec=0, nanosec=0),
            frame_locked=False,
            points=[make("geometry_msgs/msg/Point", x=x, y=y, z=z) for x, y, z in points.tolist()],
            colors=per_point,
            texture_resource="",
            uv_coordinates=[],
            text="",
            mesh_resource="",
            mesh_use_embedded_materials=False,
            texture=make(
                "sensor_msgs/msg/CompressedImage",
                header=make("std_msgs/msg/Header", stamp=time, frame_id=""),
                format="",
                data=np.zeros(0, np.uint8),
            ),
            mesh_file=make("visualization_msgs/msg/MeshFile", filename="", data=np.zeros(0, np.uint8)),
        )
