"""Write a ROS 2 bag as a robot's own recorder would have: images, camera_info, transforms and odometry; ROS not
needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import Writer

from dimm_ros.data.message_writer import MessageWriter, qos, staged_bag
from dimm_ros.errors import DataError
from dimm_ros.geometry.camera import Camera

MAP, ODOM, BASE, CAMERA = "map", "odom", "base_link", "camera_optical_frame"
IMAGE_TOPIC, CAMERA_INFO_TOPIC, ODOMETRY_TOPIC = "/camera/image_raw", "/camera/camera_info", "/odom"
DEPTH_TOPIC, DEPTH_INFO_TOPIC = "/camera/depth/image_raw", "/camera/depth/camera_info"


@contextmanager
def new_bag(
    path: str | Path,
    *,
    storage: Literal["mcap", "sqlite3"] = "mcap",
    compressed: bool = True,
    jpeg_quality: int = 92,
    lossless: bool = False,
    ground_truth_topic: str | None = None,
    overwrite: bool = False,
) -> Iterator[BagWriter]:
    """A bag to write to; it appears under its name only when the block ends without an error.

    Args:
        path: the bag's folder.
        storage: "mcap" or "sqlite3".
        compressed: CompressedImage instead of Image (rgb8).
        jpeg_quality: of compressed images, 1 to 100.
        lossless: PNG instead of JPEG.
        ground_truth_topic: for ``BagWriter.ground_truth``.
        overwrite: replace a bag that exists; a folder or file that is none stays.

    Raises:
        DataError: the bag exists and may not be replaced, or cannot be written.
    """
    with staged_bag(path, storage=storage, overwrite=overwrite) as writer:
        yield BagWriter(writer, compressed, jpeg_quality, ground_truth_topic, lossless)


class BagWriter(MessageWriter):
    """The topics of one bag and the messages on them."""

    def __init__(
        self,
        writer: Writer,
        compressed: bool,
        jpeg_quality: int,
        ground_truth_topic: str | None,
        lossless: bool = False,
    ) -> None:
        self._compressed = compressed
        self._codec = "png" if lossless else "jpeg"
        self._settings = [cv2.IMWRITE_PNG_COMPRESSION, 3] if lossless else [cv2.IMWRITE_JPEG_QUALITY, int(jpeg_quality)]
        super().__init__(writer)
        sensor = qos(QosReliability.BEST_EFFORT, QosDurability.VOLATILE, 5)
        image_type = "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image"
        self._image_topic = f"{IMAGE_TOPIC}/compressed" if compressed else IMAGE_TOPIC
        self._ground_truth_topic = ground_truth_topic
        self._open(self._image_topic, image_type, sensor)
        self._open(CAMERA_INFO_TOPIC, "sensor_msgs/msg/CameraInfo", sensor)
        self._open("/tf", "tf2_msgs/msg/TFMessage", qos(QosReliability.RELIABLE, QosDurability.VOLATILE, 100))
        self._open(
            "/tf_static", "tf2_msgs/msg/TFMessage", qos(QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, 1)
        )
        self._open(ODOMETRY_TOPIC, "nav_msgs/msg/Odometry", qos(QosReliability.RELIABLE, QosDurability.VOLATILE, 10))
        if ground_truth_topic is not None:
            self._open(
                ground_truth_topic,
                "geometry_msgs/msg/PoseStamped",
                qos(QosReliability.RELIABLE, QosDurability.VOLATILE, 10),
            )

    def start(self, stamp: int, base_from_camera: np.ndarray) -> None:
        """What a robot publishes once: the extrinsics."""
        self.transform(stamp, BASE, CAMERA, base_from_camera, topic="/tf_static")

    def odometry(self, stamp: int, odom_from_base: np.ndarray, twist: np.ndarray) -> None:
        """An Odometry with a small constant covariance."""
        covariance = np.diag([1e-4, 1e-4, 1e-4, 1e-5, 1e-5, 1e-4]).ravel()
        pose = self._make(
            "geometry_msgs/msg/PoseWithCovariance", pose=self._pose(odom_from_base), covariance=covariance
        )
        velocity = self._make(
            "geometry_msgs/msg/Twist", linear=self._xyz("Vector3", twist[:3]), angular=self._xyz("Vector3", twist[3:])
        )
        velocity = self._make("geometry_msgs/msg/TwistWithCovariance", twist=velocity, covariance=covariance)
        self._write(
            ODOMETRY_TOPIC,
            stamp,
            self._make(
                "nav_msgs/msg/Odometry",
                header=self._header(stamp, ODOM),
                child_frame_id=BASE,
                pose=pose,
                twist=velocity,
            ),
        )

    def ground_truth(self, stamp: int, world_from_base: np.ndarray) -> None:
        """The true pose of base_link, where it was asked for."""
        if self._ground_truth_topic is not None:
            message = self._make(
                "geometry_msgs/msg/PoseStamped", header=self._header(stamp, MAP), pose=self._pose(world_from_base)
            )
            self._write(self._ground_truth_topic, stamp, message)

    def encode(self, image: np.ndarray) -> np.ndarray:
        """The image's bytes; thread safe."""
        if not self._compressed:
            return image.reshape(-1)
        done, data = cv2.imencode(f".{self._codec}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), self._settings)
        if not done:
            raise DataError(f"OpenCV cannot encode {self._codec.upper()} images on this machine.")
        return data.reshape(-1)

    def image(self, stamp: int, camera: Camera, data: np.ndarray) -> None:
        """An image (the bytes of ``encode``) and its camera_info, of one stamp; the camera_info goes first."""
        size = self._camera_info(CAMERA_INFO_TOPIC, stamp, camera, CAMERA)
        header = self._header(stamp, CAMERA)
        if self._compressed:
            kind = f"rgb8; {self._codec} compressed bgr8"
            message = self._make("sensor_msgs/msg/CompressedImage", header=header, format=kind, data=data)
        else:
            message = self._make(
                "sensor_msgs/msg/Image",
                header=header,
                **size,
                encoding="rgb8",
                is_bigendian=0,
                step=3 * camera.width,
                data=data,
            )
        self._write(self._image_topic, stamp, message)

    def depth(self, stamp: int, camera: Camera, metres: np.ndarray) -> None:
        """A depth image registered to the camera, and its camera_info: 16UC1 where its values are whole millimetres,
        else 32FC1.
        """
        if DEPTH_TOPIC not in self._connections:
            sensor = qos(QosReliability.BEST_EFFORT, QosDurability.VOLATILE, 5)
            self._open(DEPTH_TOPIC, "sensor_msgs/msg/Image", sensor)
            self._open(DEPTH_INFO_TOPIC, "sensor_msgs/msg/CameraInfo", sensor)
        size = self._camera_info(DEPTH_INFO_TOPIC, stamp, camera, CAMERA)
        millimetres = np.rint(metres.astype(np.float64) * 1e3)
        whole = millimetres.max(initial=0) < 65535 and np.abs(metres - millimetres * 1e-3).max(initial=0) < 1e-6
        encoding, pixels = ("16UC1", millimetres.astype("<u2")) if whole else ("32FC1", metres.astype("<f4"))
        self._write(
            DEPTH_TOPIC,
            stamp,
            self._make(
                "sensor_msgs/msg/Image",
                header=self._header(stamp, CAMERA),
                **size,
                encoding=encoding,
                is_bigendian=0,
                step=pixels.itemsize * camera.width,
                data=np.ascontiguousarray(pixels).reshape(-1).view(np.uint8),
            ),
        )
