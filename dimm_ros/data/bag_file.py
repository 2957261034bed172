"""Bag files of ROS 2 (sqlite3 and mcap) and of ROS 1 (.bag) without ROS: their topics, raw messages and images."""

from __future__ import annotations

import struct
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from heapq import merge
from pathlib import Path

import numpy as np
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from dimm_ros.data.bag_files import bag_files
from dimm_ros.data.bag_open import decompressed, open_storage
from dimm_ros.data.bag_storage import DamagedFile, StorageFile, cause_of
from dimm_ros.data.image_encoding import decode_compressed, decode_depth, decode_raw, stored_size
from dimm_ros.errors import DataError, InputError
from dimm_ros.geometry.camera import Camera

IMAGE, COMPRESSED, CAMERA_INFO = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/CameraInfo",
)
TF_MESSAGE = "tf2_msgs/msg/TFMessage"
TF_TYPES = (TF_MESSAGE, "tf/msg/tfMessage")  # the second is of old ROS 1

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
    """An open bag; reading is guarded by a lock because a file's position may be shared.

    Args:
        path: rosbag2 folder, .mcap or .db3 file, or .bag file of ROS 1 (or the folder of the parts of one).
        ros1: accept bags of ROS 1, whose raw messages are not CDR.

    Attributes:
        files: those that hold its messages.
        damaged: topic -> how many of its messages were passed over, since they cannot be decoded.

    Raises:
        DataError: it cannot be read, holds no message, or is of ROS 1 where that is not accepted.
    """

    def __init__(self, path: Path, ros1: bool = False) -> None:
        self.path = path
        self.damaged: dict[str, int] = {}
        self._lock = threading.Lock()
        self._scratch: list[tempfile.TemporaryDirectory] = []  # they go with the bag
        self._files: list[StorageFile] = []
        try:
            files, self._packed = bag_files(path)
            self.files = tuple(files)
            for file in files:
                self._files.append(self._open(file))
            self.ros1 = any(file.ros1 for file in self._files)
            if self.ros1 and not ros1:
                raise DataError(f"Bag '{path.name}' is of ROS 1; make a ROS 2 bag of it with 'dimm convert'.")
            # Numbered anew, since each file begins at the same number.
            owned = [(file, connection) for file in self._files for connection in file.connections]
            self._connections = [connection._replace(id=number) for number, (_, connection) in enumerate(owned)]
            self._numbers = {(id(file), connection.id): number for number, (file, connection) in enumerate(owned)}
            if not any(connection.msgcount for connection in self._connections):
                others = ", ".join(sorted({encoding for file in self._files for encoding in file.others}))
                what = "no message; record it again"
                if others:
                    what = f"no message of ROS, only {others}; record with 'ros2 bag record'"
                raise DataError(f"Bag '{path.name}' holds {what}.")
        except BaseException:
            self.close()
            raise

    def _open(self, file: Path) -> StorageFile:
        try:
            return open_storage(file, self._folder)
        except DamagedFile as error:
            raise self._unreadable(str(error), error.cure, file) from None
        except OSError as error:
            cause = error.strerror or cause_of(error)
            raise DataError(f"Bag '{self.path.name}' cannot be read ({file.name}: {cause}).") from None

    def _folder(self) -> Path:
        self._scratch.append(tempfile.TemporaryDirectory(prefix="dimm_bag_", ignore_cleanup_errors=True))
        return Path(self._scratch[-1].name)

    def _unreadable(self, cause: str, cure: str, file: Path | None = None) -> DataError:
        where = f"{file.name}: " if file is not None and file != self.path else ""
        return DataError(f"Bag '{self.path.name}' cannot be read ({where}{cause}); {cure}.")

    @property
    def topics(self) -> dict[str, str]:
        """Topic -> message type, of topics that hold messages."""
        return {c.topic: c.msgtype for c in sorted(self._connections, key=lambda c: c.topic) if c.msgcount}

    def count(self, topic: str) -> int:
        """How many messages a topic holds."""
        return sum(connection.msgcount for connection in self.connections(topic))

    def connections(self, topic: str) -> list[Connection]:
        return [connection for connection in self._connections if connection.topic == topic and connection.msgcount]

    def listing(self) -> str:
        """The bag's topics, for an error sentence."""
        names = [f"{topic} ({kind.rsplit('/', 1)[-1]})" for topic, kind in self.topics.items()]
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        return "the bag has " + ", ".join(names[:_LISTED]) + more

    def close(self) -> None:
        """Close the files; frames that were read from them can no longer load their images."""
        for file in self._files:
            file.close()
        for folder in self._scratch:
            folder.cleanup()

    def raw(self, connections: list[Connection], start: int | None = None, stop: int | None = None) -> Iterator[tuple]:
        """(connection, log time, CDR bytes) in order of log time, from ``start`` on and before ``stop`` (ns)."""
        wanted = {connection.id for connection in connections}
        parts = (self._of_file(file, wanted, start, stop) for file in self._files)
        yield from merge(*parts, key=lambda message: message[1])

    def _of_file(self, file: StorageFile, wanted: set[int], start: int | None, stop: int | None) -> Iterator[tuple]:
        ids = {connection.id for connection in file.connections if self._numbers[id(file), connection.id] in wanted}
        if not ids:
            return
        try:
            for number, log_ns, data in file.messages(ids, start, stop):
                data = decompressed(data) if self._packed else data
                yield self._connections[self._numbers[id(file), number]], log_ns, data
        except Exception as error:  # whatever a damaged file leads its parser to
            raise self._unreadable(cause_of(error), getattr(error, "cure", file.cure)) from None

    def messages(self, connections: list[Connection]) -> Iterator:
        """Deserialised messages."""
        for _, message in self.logged_messages(connections):
            yield message

    def logged_messages(self, connections: list[Connection]) -> Iterator[tuple]:
        """(log time, deserialised message); those that cannot be decoded are left out and counted in ``damaged``."""
        for connection, log_ns, data in self.raw(connections):
            try:
                message = self._deserialize(connection, data)
            except DataError:
                self._count_damaged(connection)
            else:
                yield log_ns, message

    def _count_damaged(self, connection: Connection) -> None:
        self.damaged[connection.topic] = self.damaged.get(connection.topic, 0) + 1

    def _deserialize(self, connection: Connection, data: bytes):
        store = _store(self.ros1)
        try:
            read = store.deserialize_ros1 if self.ros1 else store.deserialize_cdr
            return read(data, connection.msgtype)
        except Exception as error:  # rosbags raises whatever damaged bytes lead its parser to
            raise DataError(
                f"A message of {connection.topic} in bag '{self.path.name}' cannot be decoded ({cause_of(error)})."
            ) from None

    def image_headers(self, connections: list[Connection]) -> Iterator[Header]:
        """Headers of all images, read from the message's bytes: deserialising would copy every pixel."""
        last: dict[int, tuple[int, int]] = {}
        for connection, log_ns, data in self.raw(connections):
            previous, ordinal = last.get(connection.id, (None, -1))
            ordinal = ordinal + 1 if previous == log_ns else 0
            last[connection.id] = (log_ns, ordinal)
            try:
                # ROS 1 has the sequence number where CDR says its byte order.
                order = "<" if self.ros1 or data[1] & 1 else ">"
                seconds, nanoseconds, length = struct.unpack_from(order + "iII", data, 4)
                frame_id = bytes(data[16 : 16 + length]).rstrip(b"\0").decode("utf-8")
            except (struct.error, UnicodeDecodeError, IndexError):
                self._count_damaged(connection)
                continue
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
        packed = header.connection.msgtype == COMPRESSED
        try:
            size = stored_size(message.data) if packed else (message.width, message.height)
            if size == (camera.width, camera.height):  # else no memory is taken for it
                if packed:
                    return decode_compressed(message.format, message.data)
                return decode_raw(message.encoding, *size[::-1], message.step, bool(message.is_bigendian), message.data)
        except InputError as error:
            raise DataError(f"{name} cannot be used: {error}") from None
        raise DataError(f"{name} is {size[0]}x{size[1]}, but camera_info says {camera.width}x{camera.height}.")

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
                message.encoding, message.height, message.width, message.step, bool(message.is_bigendian), message.data
            )
        except InputError as error:
            raise DataError(
                f"Depth image {image.stamp_ns * 1e-9:.3f} s of bag '{self.path.name}' cannot be used: {error}"
            ) from None


@cache
def _store(ros1: bool) -> Typestore:
    """The standard types: bags hold definitions too, but not all are complete, and none that is read here differs."""
    if not ros1:
        return get_typestore(Stores.ROS2_JAZZY)
    store = get_typestore(Stores.ROS1_NOETIC)
    for kind in TF_TYPES:
        store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", kind))
    return store


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
    pictures = [name for name in images if not name.endswith("/compressedDepth")]
    candidates = [name for name in pictures if _is_fuller_twin(bag, name, images)]
    colour = [name for name in candidates if "depth" not in name.lower()] or candidates
    if len(colour) == 1:
        return bag.connections(colour[0])
    if colour:
        cure = f"choose one with --image-topic among {', '.join(colour)}"
        raise DataError(f"Bag '{bag.path.name}' has several image topics; {cure}.")
    raise DataError(f"Bag '{bag.path.name}' has no image topic (Image or CompressedImage); {bag.listing()}.")


def _is_fuller_twin(bag: Bag, name: str, images: dict[str, str]) -> bool:
    """Whether a topic has no raw or compressed twin with more images; the raw one wins where both have as many."""
    raw = name.rpartition("/")[0]
    if images[name] == COMPRESSED and raw in images:
        return bag.count(name) > bag.count(raw)
    return bag.count(f"{name}/compressed") <= bag.count(name) or images.get(f"{name}/compressed") != COMPRESSED


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
            f"Bag '{bag.path.name}' has several CameraInfo topics and none beside {image_topic}; choose one with "
            f"--camera-info-topic among {', '.join(infos)}."
        )
    raise DataError(
        f"Bag '{bag.path.name}' has no CameraInfo topic, so the lens of {image_topic} is unknown; {bag.listing()}."
    )


def depth_connections(bag: Bag, image_topic: str, frame_ids: set[str]) -> tuple[list[Connection], list[Connection]]:
    """The depth images that are registered to a camera, and their CameraInfo; empty where the bag has none or several.

    Registered means that they are in the camera's own frame, as drivers publish aligned depth.
    """
    infos = {topic.rpartition("/")[0] for topic, kind in bag.topics.items() if kind == CAMERA_INFO}
    found = []
    for topic, kind in bag.topics.items():
        if kind == IMAGE and topic != image_topic and "depth" in topic.lower() and topic.rpartition("/")[0] in infos:
            first = next(bag.messages(bag.connections(topic)), None)
            if first is None or first.encoding not in ("16UC1", "32FC1"):
                continue
            if first.header.frame_id.lstrip("/") in frame_ids:
                found.append(topic)
    if len(found) != 1:
        return [], []
    return bag.connections(found[0]), bag.connections(f"{found[0].rpartition('/')[0]}/camera_info")
