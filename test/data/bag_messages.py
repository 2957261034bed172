"""Small real bags, written message by message."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

STORE, STORE1 = get_typestore(Stores.ROS2_JAZZY), get_typestore(Stores.ROS1_NOETIC)
STORE1.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf2_msgs/msg/TFMessage"))
T = STORE.types


def stamp(ns: int):
    return T["builtin_interfaces/msg/Time"](sec=ns // 10**9, nanosec=ns % 10**9)


def header(ns: int, frame_id: str):
    return T["std_msgs/msg/Header"](stamp=stamp(ns), frame_id=frame_id)


def vector(xyz):
    return T["geometry_msgs/msg/Vector3"](*(float(value) for value in xyz))


def point(xyz):
    return T["geometry_msgs/msg/Point"](*(float(value) for value in xyz))


def quaternion(xyzw):
    return T["geometry_msgs/msg/Quaternion"](*(float(value) for value in xyzw))


def transform(ns: int, parent: str, child: str, xyz, xyzw=(0, 0, 0, 1)):
    body = T["geometry_msgs/msg/Transform"](translation=vector(xyz), rotation=quaternion(xyzw))
    return T["geometry_msgs/msg/TransformStamped"](header=header(ns, parent), child_frame_id=child, transform=body)


def tf(*transforms):
    return T["tf2_msgs/msg/TFMessage"](transforms=list(transforms))


def image(ns: int, pixels: np.ndarray, frame_id: str = "optical", encoding: str = "rgb8"):
    height, width = pixels.shape[:2]
    flat = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
    return T["sensor_msgs/msg/Image"](
        header=header(ns, frame_id),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=len(flat) // height,
        data=flat,
    )


def compressed(ns: int, pixels: np.ndarray, frame_id: str = "optical"):
    data = cv2.imencode(".png", pixels[..., ::-1])[1].reshape(-1)
    return T["sensor_msgs/msg/CompressedImage"](
        header=header(ns, frame_id), format="rgb8; png compressed bgr8", data=data
    )


def camera_info(
    ns: int, width: int = 32, height: int = 24, focal: float = 30.0, model: str = "plumb_bob", d=(0.0,) * 5, **changes
):
    roi = T["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    k = np.array([focal, 0, width / 2, 0, focal, height / 2, 0, 0, 1.0])
    p = np.array([focal, 0, width / 2, 0, 0, focal, height / 2, 0, 0, 0, 1, 0.0])
    fields = dict(
        header=header(ns, "optical"),
        height=height,
        width=width,
        distortion_model=model,
        d=np.array(d, dtype=float),
        k=k,
        r=np.eye(3).reshape(-1),
        p=p,
        binning_x=0,
        binning_y=0,
        roi=roi,
    )
    return T["sensor_msgs/msg/CameraInfo"](**{**fields, **changes})


@dataclass
class BagContent:
    """Messages to write: (log time, topic, message)."""

    messages: list = field(default_factory=list)

    def add(self, ns: int, topic: str, message) -> None:
        self.messages.append((ns, topic, message))

    def without(self, topic: str) -> BagContent:
        return BagContent([entry for entry in self.messages if entry[1] != topic])

    def write(self, path: Path, storage: str = "mcap") -> Path:
        with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
            connections = {}
            for ns, topic, message in sorted(self.messages, key=lambda entry: entry[0]):
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=STORE)
                writer.write(connections[topic], ns, STORE.serialize_cdr(message, message.__msgtype__))
        return path

    def write_ros1(self, path: Path) -> Path:
        """The same messages as a bag of ROS 1."""
        with Writer1(path) as writer:
            connections = {}
            for ns, topic, message in sorted(self.messages, key=lambda entry: entry[0]):
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=STORE1)
                writer.write(connections[topic], ns, STORE1.serialize_ros1(_of_ros1(message), message.__msgtype__))
        return path


def _of_ros1(value):
    """A message of ROS 1: its header has a sequence number, its CameraInfo capitals."""
    if isinstance(value, list):
        return [_of_ros1(item) for item in value]
    if not hasattr(value, "__msgtype__"):
        return value
    kind = STORE1.types[value.__msgtype__]
    names = [entry.name for entry in fields(kind)]
    return kind(
        **{
            name: 77 if name == "seq" else _of_ros1(getattr(value, name.lower() if len(name) == 1 else name))
            for name in names
        }
    )


START = 1_700_000_000_000_000_000
