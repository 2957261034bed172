"""Bag files of ROS 2 (sqlite3 and mcap) and of ROS 1 (.bag) without ROS: their topics, raw messages and images."""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from dimm_ros.data.image_encoding import decode_compressed, decode_depth, decode_raw
from dimm_ros.errors import DataError, InputError
from dimm_ros.geometry.camera import Camera

IMAGE, COMPRESSED, CAMERA_INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"
TF_MESSAGE = "tf2_msgs/msg/TFMessage"

_LISTED = 40  # topics in an error sentence
_DEPTH_PAIR_NS = 20_000_000  # between the stamps of an image and its depth
_DEPTH_WINDOW_NS = 150_000_000  # of recording times in which such a depth image is looked for


@dataclass(frozen=True)
class Header:
    """Where an image is in the bag, and its header."""

    connection: Connection
    log_ns: int
    ordinal: int  # among messages of the connection that were logged in the same nanosecond
    stamp_ns: int
    frame_id: str


class Bag:
    """An open bag; reading is guarded by a lock because its file position is shared.

    Args:
        path: rosbag2 folder, .mcap or .db3 file, or .bag file of ROS 1 (or the folder of the parts of one).
        ros1: accept bags of ROS 1, whose raw messages are not CDR.

    Raises:
        DataError: it cannot be read, holds no message, or is of ROS 1 where that is not accepted.
    """

    def __init__(self, path: Path, ros1: bool = False) -> None:
        self.path = path
        self._lock = threading.Lock()
        paths = bag_paths(path)
        if paths[0].suffix == ".bag" and not ros1:
            raise DataError(f"Bag '{path.name}' is of ROS 1; make a ROS 2 bag of it with 'dimm convert'.")
        try:
            self._reader = AnyReader(paths, default_typestore=get_typestore(Stores.ROS2_JAZZY))
            self._reader.open()
        except DataError:
            raise
        except Exception as error:  # rosbags raises whatever a damaged file leads its parser to (struct, assert, type, ...)
            raise self._unreadable(error) from None
        if not any(connection.msgcount for connection in self._reader.connections):
            raise DataError(f"Bag '{path.name}' holds no message; record it again.")

    def _unreadable(self, error: Exception) -> DataError:
        cause = str(error).strip().rstrip(".") or type(error).__name__
        return DataError(
            f"Bag '{self.path.name}' cannot be read ({cause}); if its recording was cut off, repair it with "
            "'ros2 bag reindex' (sqlite3) or 'mcap recover' (mcap).",
        )

    @property
    def topics(self) -> dict[str, str]:
        """Topic -> message type, of topics that hold messages."""
        return {c.topic: c.msgtype for c in sorted(self._reader.connections, key=lambda c: c.topic) if c.msgcount}

    def connections(self, topic: str) -> list[Connection]:
        return [connection for connection in self._reader.connections if connection.topic == topic and connection.msgcount]

    def listing(self) -> str:
        """The bag's topics, for an error sentence."""
        names = [f"{topic} ({kind.rsplit('/', 1)[-1]})" for topic, kind in self.topics.items()]
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        return "the bag has " + ", ".join(names[:_LISTED]) + more

    def close(self) -> None:
        """Close the file; frames that were read from it can no longer load their images."""
        self._reader.close()

    def raw(self, connections: list[Connection], start: int | None = None, stop: int | None = None) -> Iterator[tuple]:
        """(connection, log time, CDR bytes)."""
        try:
            yield from self._reader.messages(connections, start, stop)
        except Exception as error:
            raise self._unreadable(error) from None

    def messages(self, connections: list[Connection]) -> Iterator:
        """Deserialised messages."""
        for connection, _, data in self.raw(connections):
            yield self._deserialize(connection, data)

    def _deserialize(self, connection: Connection, data: bytes):
        try:
            return self._reader.deserialize(data, connection.msgtype)
        except Exception as error:
            raise self._unreadable(error) from None

    def image_headers(self, connections: list[Connection]) -> Iterator[Header]:
        """Headers of all images, read from the message's bytes: deserialising would copy every pixel."""
        last: dict[int, tuple[int, int]] = {}
        for connection, log_ns, data in self.raw(connections):
            previous, ordinal = last.get(connection.id, (None, -1))
            ordinal = ordinal + 1 if previous == log_ns else 0
            last[connection.id] = (log_ns, ordinal)
            order = "<" if not self._reader.is2 or data[1] & 1 else ">"  # ROS 1 has the sequence number where CDR says its byte order
            try:
                seconds, nanoseconds, length = struct.unpack_from(order + "iII", data, 4)
                frame_id = bytes(data[16 : 16 + length]).rstrip(b"\0").decode("utf-8")
            except (struct.error, UnicodeDecodeError) as error:
                raise self._unreadable(error) from None
            yield Header(connection, log_ns, ordinal, seconds * 10**9 + nanoseconds, frame_id.lstrip("/"))

    def load_image(self, header: Header, camera: Camera) -> np.ndarray:
        """(H, W, 3) uint8 RGB of one image.

        Raises:
            DataError: it cannot be decoded, or its size is not the camera's.
        """
        name = f"Image {header.stamp_ns * 1e-9:.3f} s of {header.connection.topic} in bag '{self.path.name}'"
        with self._lock:
            found = list(self.raw([header.connection], header.log_ns, header.log_ns + 1))
        if header.ordinal >= len(found):
            raise DataError(f"{name} is no longer there; the bag was changed while it was in use.")
        message = self._deserialize(header.connection, found[header.ordinal][2])
        try:
            if header.connection.msgtype == COMPRESSED:
                image = decode_compressed(message.format, message.data)
            else:
                image = decode_raw(
                    message.encoding,
                    message.height,
                    message.width,
                    message.step,
                    bool(message.is_bigendian),
                    message.data,
                )
        except InputError as error:
            raise DataError(f"{name} cannot be used: {error}") from None
        if image.shape[:2] != (camera.height, camera.width):
            raise DataError(f"{name} is {image.shape[1]}x{image.shape[0]}, but camera_info says {camera.width}x{camera.height}.")
        return image

    def load_depth(self, connections: list[Connection], image: Header, camera: Camera) -> np.ndarray:
        """(h, w) float32 metres of the depth image nearest in time to an image, all 0 where none is near.

        Raises:
            DataError: it cannot be decoded.
        """
        with self._lock:
            near = list(self.raw(connections, image.log_ns - _DEPTH_WINDOW_NS, image.log_ns + _DEPTH_WINDOW_NS))
        messages = [self._deserialize(connection, data) for connection, _, data in near]
        message = min(messages, key=lambda message: abs(stamp_of(message) - image.stamp_ns), default=None)
        if message is None or abs(stamp_of(message) - image.stamp_ns) > _DEPTH_PAIR_NS:
            return np.zeros((camera.height, camera.width), np.float32)
        try:
            return decode_depth(
                message.encoding, message.height, message.width, message.step, bool(message.is_bigendian), message.data,
            )
        except InputError as error:
            raise DataError(f"Depth image {image.stamp_ns * 1e-9:.3f} s of bag '{self.path.name}' cannot be used: {error}") from None


def bag_paths(path: Path) -> list[Path]:
    """What rosbags opens: the folder with metadata.yaml, the one storage file of a folder without, or the parts of a ROS 1 bag."""
    if not path.exists():
        raise DataError(f"Bag '{path}' does not exist.")
    if path.is_file() or (path / "metadata.yaml").exists():
        return [path]
    files = sorted(child for child in path.iterdir() if child.suffix in (".mcap", ".db3"))
    if len(files) == 1:
        return files
    if files:
        raise DataError(f"Bag '{path.name}' has {len(files)} files but no metadata.yaml; run 'ros2 bag reindex' on it.")
    parts = sorted(child for child in path.iterdir() if child.suffix == ".bag")
    if len({re.sub(r"_\d+$", "", part.stem) for part in parts}) > 1:
        raise DataError(f"'{path}' holds several ROS 1 bags ({', '.join(part.name for part in parts)}); give one of them.")
    if parts:
        return parts
    raise DataError(f"'{path}' is not a bag: it has neither metadata.yaml nor a .mcap, .db3 or .bag file.")


def stamp_of(message) -> int:
    """Nanoseconds of a message's header."""
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def image_connections(bag: Bag, topic: str | None) -> list[Connection]:
    images = {name: kind for name, kind in bag.topics.items() if kind in (IMAGE, COMPRESSED)}
    if topic is not None:
        for name in (topic, f"{topic}/compressed"):  # image_transport names the compressed topic by its base
            if name in images:
                return bag.connections(name)
        what = f"is a {bag.topics[topic].rsplit('/', 1)[-1]}, not an image" if topic in bag.topics else "is not in it"
        raise DataError(f"Image topic {topic} cannot be read from bag '{bag.path.name}': it {what}; {bag.listing()}.")
    candidates = [
        name
        for name in images
        if not name.endswith("/compressedDepth") and not (images[name] == COMPRESSED and name.rpartition("/")[0] in images)
    ]
    colour = [name for name in candidates if "depth" not in name.lower()] or candidates
    if len(colour) == 1:
        return bag.connections(colour[0])
    if colour:
        raise DataError(f"Bag '{bag.path.name}' has several image topics; choose the image topic among {', '.join(colour)}.")
    raise DataError(f"Bag '{bag.path.name}' has no image topic (Image or CompressedImage); {bag.listing()}.")


def camera_info_connections(bag: Bag, topic: str | None, image_topic: str) -> list[Connection]:
    infos = [name for name, kind in bag.topics.items() if kind == CAMERA_INFO]
    if topic is not None:
        if topic in infos:
            return bag.connections(topic)
        raise DataError(f"Topic {topic} of type CameraInfo is not in bag '{bag.path.name}'; {bag.listing()}.")
    namespace = image_topic.removesuffix("/compressed").rpartition("/")[0]
    if f"{namespace}/camera_info" in infos:
        return bag.connections(f"{namespace}/camera_info")
    if len(infos) == 1:
        return bag.connections(infos[0])
    if infos:
        raise DataError(
            f"Bag '{bag.path.name}' has several CameraInfo topics and none beside {image_topic}; choose the camera_info topic "
            f"among {', '.join(infos)}.",
        )
    raise DataError(f"Bag '{bag.path.name}' has no CameraInfo topic, so the lens of {image_topic} is unknown; {bag.listing()}.")


def depth_connections(bag: Bag, image_topic: str, frame_ids: set[str]) -> tuple[list[Connection], list[Connection]]:
    """The depth images that are registered to a camera, and their CameraInfo; empty where the bag has none or several.

    Registered means that they are in the camera's own frame, as drivers publish aligned depth.
    """
    infos = {topic.rpartition("/")[0] for topic, kind in bag.topics.items() if kind == CAMERA_INFO}
    found = []
    for topic, kind in bag.topics.items():
        if kind == IMAGE and topic != image_topic and "depth" in topic.lower() and topic.rpartition("/")[0] in infos:
            first = next(bag.messages(bag.connections(topic)))
            if first.encoding in ("16UC1", "32FC1") and first.header.frame_id.lstrip("/") in frame_ids:
                found.append(topic)
    if len(found) != 1:
        return [], []
    return bag.connections(found[0]), bag.connections(f"{found[0].rpartition('/')[0]}/camera_info")
