"""ROS 2 messages written to a bag without ROS: what every writer of bags shares."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from dimm_ros.errors import DataError
from dimm_ros.geometry import poses
from dimm_ros.geometry.camera import Camera


@contextmanager
def staged_bag(
    path: str | Path, *, storage: Literal["mcap", "sqlite3"] = "mcap", overwrite: bool = False
) -> Iterator[Writer]:
    """A writer of a bag that appears under its name only when the block ends without an error.

    Raises:
        DataError: the bag exists and may not be replaced, or cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise DataError(f"Bag '{path}' exists already; choose another name or replace it with --overwrite.")
    if path.exists() and not (path / "metadata.yaml").exists():
        raise DataError(f"'{path}' is not a bag and is not overwritten; choose another name.")
    if storage == "sqlite3" and any(mark in str(path.absolute()) for mark in "#?%"):  # rosbags takes it for a URI
        raise DataError(
            f"Bag '{path}' cannot be written as sqlite3 under a path with #, ? or %; store it as mcap, or choose "
            "another path."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            staged = Path(folder) / path.name  # the storage file is named after its folder
            with Writer(staged, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
                yield writer
            if path.exists():
                path.replace(Path(folder) / "old")  # goes with the folder
            staged.replace(path)
    except FileExistsError:
        raise DataError(f"Bag '{path}' cannot be written: '{path.parent}' is no folder.") from None
    except OSError as error:
        raise DataError(f"Bag '{path}' cannot be written: {error.strerror or error}.") from None


class MessageWriter:
    """Topics of one bag, and messages on them by the names of their types."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._connections = {}

    def transform(self, stamp: int, parent: str, child: str, parent_from_child: np.ndarray, topic: str = "/tf") -> None:
        """One TFMessage with one transform, as separate publishers send them."""
        translation, rotation = poses.to_quaternion(parent_from_child)
        body = self._make(
            "geometry_msgs/msg/Transform",
            translation=self._xyz("Vector3", translation),
            rotation=self._quaternion(rotation),
        )
        stamped = self._make(
            "geometry_msgs/msg/TransformStamped",
            header=self._header(stamp, parent),
            child_frame_id=child,
            transform=body,
        )
        self._write(topic, stamp, self._make("tf2_msgs/msg/TFMessage", transforms=[stamped]))

    def _camera_info(self, topic: str, stamp: int, camera: Camera, frame_id: str) -> dict[str, int]:
        """Writes a CameraInfo; returns its size."""
        size = {"width": camera.width, "height": camera.height}
        projection = np.hstack([camera.matrix, np.zeros((3, 1))]).ravel()
        region = self._make(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        self._write(
            topic,
            stamp,
            self._make(
                "sensor_msgs/msg/CameraInfo",
                header=self._header(stamp, frame_id),
                **size,
                distortion_model=camera.distortion_model,
                d=np.array(camera.distortion, dtype=np.float64),
                k=camera.matrix.ravel(),
                r=np.eye(3).ravel(),
                p=projection,
                binning_x=0,
                binning_y=0,
                roi=region,
            ),
        )
        return size

    def _open(self, topic: str, kind: str, qos: Qos) -> None:
        self._connections[topic] = self._writer.add_connection(
            topic, kind, typestore=self._store, offered_qos_profiles=[qos]
        )

    def _write(self, topic: str, stamp: int, message) -> None:
        connection = self._connections[topic]
        self._writer.write(connection, stamp, self._store.serialize_cdr(message, connection.msgtype))

    def _make(self, kind: str, **fields):
        return self._store.types[kind](**fields)

    def _header(self, stamp: int, frame_id: str):
        time = self._make("builtin_interfaces/msg/Time", sec=stamp // 10**9, nanosec=stamp % 10**9)
        return self._make("std_msgs/msg/Header", stamp=time, frame_id=frame_id)

    def _xyz(self, kind: str, values: np.ndarray):
        return self._make(f"geometry_msgs/msg/{kind}", x=float(values[0]), y=float(values[1]), z=float(values[2]))

    def _quaternion(self, xyzw: np.ndarray):
        x, y, z, w = (float(value) for value in xyzw)
        return self._make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)

    def _pose(self, pose: np.ndarray):
        translation, rotation = poses.to_quaternion(pose)
        return self._make(
            "geometry_msgs/msg/Pose", position=self._xyz("Point", translation), orientation=self._quaternion(rotation)
        )


def qos(reliability: QosReliability, durability: QosDurability, depth: int) -> Qos:
    """A profile with ROS 2's defaults elsewhere."""
    unlimited = QosTime(sec=2147483647, nsec=4294967295)
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=depth,
        reliability=reliability,
        durability=durability,
        deadline=unlimited,
        lifespan=unlimited,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=unlimited,
        avoid_ros_namespace_conventions=False,
    )
