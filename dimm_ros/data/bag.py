"""ROS 2 bags (sqlite3 and mcap) without ROS: images with intrinsics, and poses from TF or from a pose topic."""

from __future__ import annotations

import struct
import threading
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from dimm_ros.data.camera_info import camera_from_info
from dimm_ros.data.image_encoding import decode_compressed, decode_raw
from dimm_ros.data.recording import Frame, Recording
from dimm_ros.data.transform_tree import TransformTree
from dimm_ros.errors import DataError, InputError, TransformError, TransformStampError
from dimm_ros.geometry import poses
from dimm_ros.geometry.camera import Camera

IMAGE, COMPRESSED, CAMERA_INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"
TF_MESSAGE = "tf2_msgs/msg/TFMessage"
POSE_TYPES = (
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/TransformStamped",
)

_LISTED = 40  # topics in an error sentence
_POSE = "pose of the pose topic"  # child frame of poses whose message names none


def read_bag(
    path: str | Path,
    image_topic: str | None = None,
    camera_info_topic: str | None = None,
    pose_topic: str | None = None,
    map_frame: str = "map",
    camera_frame: str | None = None,
    pose_frame: str | None = None,
    max_gap_s: float = 2.0,
    require_poses: bool = True,
) -> Recording:
    """Read the posed images of a bag; pixels stay in the file until a frame is loaded.

    Args:
        path: rosbag2 folder, or a single .mcap or .db3 file.
        image_topic: Image or CompressedImage; None takes the bag's only one (a raw topic before its compressed twin).
        camera_info_topic: None takes the image topic's sibling, or the bag's only one.
        pose_topic: PoseStamped, PoseWithCovarianceStamped, Odometry or TransformStamped to take poses from; None takes
            /tf and /tf_static.
        map_frame: the world frame in TF; with a pose topic, the frame of its header is the world instead.
        camera_frame: optical frame of the camera; None takes the images' frame_id.
        pose_frame: the frame whose pose a PoseStamped topic holds; None takes base_link where static TF links it to
            the camera, else the camera itself. Odometry and TransformStamped name theirs.
        max_gap_s: images in a longer gap between two transforms (or poses) are left out.
        require_poses: False keeps images without a pose, as frames whose pose is None.

    Raises:
        DataError: the bag cannot be read, lacks a topic (the sentence lists what it has) or a transform (the sentence
            names the broken link), or no image has both intrinsics and a pose.
    """
    path = Path(path)
    bag = Bag(path)
    image = image_connections(bag, image_topic)
    cameras = _Cameras(bag, camera_info_connections(bag, camera_info_topic, image[0].topic))
    stamps = list(bag.image_headers(image))
    if not stamps:
        raise DataError(f"Topic {image[0].topic} of bag '{path.name}' holds no message; record the camera again.")
    frame_ids = {camera_frame} if camera_frame else {header.frame_id for header in stamps}
    notes: list[str] = []
    if pose_topic is None:
        lookup, world = _poses_from_tf(bag, map_frame.lstrip("/"), max_gap_s, frame_ids, require_poses)
    else:
        lookup, world = _poses_from_topic(bag, pose_topic, max_gap_s, pose_frame, frame_ids, notes)
        if world != map_frame.lstrip("/"):
            notes.append(f"Poses of {pose_topic} are in frame '{world}', which is the map's frame.")

    frames: list[Frame] = []
    outside, first_reason, seen = 0, "", set()
    for header in sorted(stamps, key=lambda header: header.stamp_ns):
        if header.stamp_ns in seen:  # the same image twice, as a bag of a looped replay holds it
            continue
        seen.add(header.stamp_ns)
        try:
            pose = lookup(camera_frame or header.frame_id, header.stamp_ns)
        except TransformStampError as error:
            outside, first_reason, pose = outside + 1, first_reason or str(error), None
        if pose is None and require_poses:
            continue
        camera = cameras.at(header.stamp_ns)
        frames.append(
            Frame(
                name=f"{header.stamp_ns // 10**9}.{header.stamp_ns % 10**9:09d}",
                stamp_ns=header.stamp_ns,
                camera=camera,
                world_from_camera=pose,
                load=partial(bag.load_image, header, camera),
            )
        )
    if not frames:
        raise DataError(f"No image of {image[0].topic} in bag '{path.name}' has a pose at its stamp. {first_reason}")
    if outside:
        fate = "were left out" if require_poses else "have none"
        notes.append(f"{outside} of {len(seen)} images have no pose at their stamp and {fate} ({first_reason.rstrip('.')}).")
    return Recording(
        name=path.resolve().stem,
        source=f"bag {path.resolve().name}, topic {image[0].topic}",
        frames=frames,
        frame_id=world,
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Header:
    """Where an image is in the bag, and its header."""

    connection: Connection
    log_ns: int
    ordinal: int  # among messages of the connection that were logged in the same nanosecond
    stamp_ns: int
    frame_id: str


class Bag:
    """An open bag; reading is guarded by a lock because its file position is shared."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self._reader = AnyReader([_bag_path(path)], default_typestore=get_typestore(Stores.ROS2_JAZZY))
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

    def image_headers(self, connections: list[Connection]) -> Iterator[_Header]:
        """Headers of all images, read from the CDR bytes: deserialising would copy every pixel."""
        last: dict[int, tuple[int, int]] = {}
        for connection, log_ns, data in self.raw(connections):
            previous, ordinal = last.get(connection.id, (None, -1))
            ordinal = ordinal + 1 if previous == log_ns else 0
            last[connection.id] = (log_ns, ordinal)
            order = "<" if data[1] & 1 else ">"
            try:
                seconds, nanoseconds, length = struct.unpack_from(order + "iII", data, 4)
                frame_id = bytes(data[16 : 16 + length]).rstrip(b"\0").decode("utf-8")
            except (struct.error, UnicodeDecodeError) as error:
                raise self._unreadable(error) from None
            yield _Header(connection, log_ns, ordinal, seconds * 10**9 + nanoseconds, frame_id.lstrip("/"))

    def load_image(self, header: _Header, camera: Camera) -> np.ndarray:
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


def _bag_path(path: Path) -> Path:
    """What rosbags opens: the folder with metadata.yaml, or the one storage file of a folder without."""
    if not path.exists():
        raise DataError(f"Bag '{path}' does not exist.")
    if path.is_file() or (path / "metadata.yaml").exists():
        return path
    files = sorted(child for child in path.iterdir() if child.suffix in (".mcap", ".db3"))
    if len(files) == 1:
        return files[0]
    if files:
        raise DataError(f"Bag '{path.name}' has {len(files)} files but no metadata.yaml; run 'ros2 bag reindex' on it.")
    raise DataError(f"'{path}' is not a ROS 2 bag: it has neither metadata.yaml nor a .mcap or .db3 file.")


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


class _Cameras:
    """The camera of each time; drivers repeat the same one, so only changes are kept."""

    def __init__(self, bag: Bag, connections: list[Connection]) -> None:
        self._stamps: list[int] = []
        self._cameras: list[Camera] = []
        previous = None
        for message in sorted(bag.messages(connections), key=_stamp_of):
            key = (
                message.width,
                message.height,
                message.distortion_model,
                tuple(message.d),
                tuple(message.k),
                message.binning_x,
                message.binning_y,
                message.roi.x_offset,
                message.roi.y_offset,
                message.roi.width,
                message.roi.height,
            )
            if key == previous:
                continue
            try:
                camera = camera_from_info(message)
            except InputError as error:
                raise DataError(f"Topic {connections[0].topic} of bag '{bag.path.name}': {error}") from None
            previous = key
            self._stamps.append(_stamp_of(message))
            self._cameras.append(camera)

    def at(self, stamp_ns: int) -> Camera:
        """The camera published last before a time, or the first one."""
        return self._cameras[max(0, bisect_right(self._stamps, stamp_ns) - 1)]


def _poses_from_tf(bag: Bag, map_frame: str, max_gap_s: float, camera_frames: set[str], required: bool):
    """A function (camera frame, stamp) -> world_from_camera, and the world frame's name."""
    tree = _read_tf(bag, max_gap_s)
    for frame in sorted(camera_frames):
        try:
            tree.latest_stamp(map_frame, frame)
        except TransformError as error:
            if not required:
                return (lambda frame, stamp: None), map_frame
            cure = (
                "record /tf and /tf_static while a localization (SLAM, AMCL, motion capture) publishes the map frame, or name "
                "the map frame, the camera frame or a pose topic"
            )
            raise DataError(f"Bag '{bag.path.name}' cannot give the camera's poses: {str(error).rstrip('.')}; {cure}.") from None
    return (lambda frame, stamp: tree.lookup(map_frame, frame, stamp)), map_frame


def _poses_from_topic(
    bag: Bag,
    topic: str,
    max_gap_s: float,
    pose_frame: str | None,
    camera_frames: set[str],
    notes: list[str],
):
    """As ``_poses_from_tf``, from a topic of poses and the static transform from its child frame to the camera."""
    connections = bag.connections(topic)
    if not connections or connections[0].msgtype not in POSE_TYPES:
        names = ", ".join(kind.rsplit("/", 1)[-1] for kind in POSE_TYPES)
        raise DataError(f"Topic {topic} of a pose type ({names}) is not in bag '{bag.path.name}'; {bag.listing()}.")
    path = TransformTree(max_gap_s=max_gap_s)
    world = child = ""
    for message in bag.messages(connections):
        world = message.header.frame_id.lstrip("/") or "map"
        child = getattr(message, "child_frame_id", "").lstrip("/")
        path.add(world, _POSE, _stamp_of(message), _matrix(message))
    tree = _read_tf(bag, max_gap_s)
    if pose_frame is None and not child:
        linked = [frame for frame in sorted(camera_frames) if _linked(tree, "base_link", frame)]
        child = "base_link" if linked else ""
        notes.append(f"Poses of {topic} are taken for those of {'base_link' if linked else 'the camera (optical axes)'}.")
    child = pose_frame.lstrip("/") if pose_frame else child

    def lookup(frame: str, stamp: int) -> np.ndarray:
        world_from_child = path.lookup(world, _POSE, stamp)
        return world_from_child if child in ("", frame) else world_from_child @ tree.lookup(child, frame, stamp)

    for frame in sorted(camera_frames):
        if child not in ("", frame):
            try:
                tree.latest_stamp(child, frame)
            except TransformError as error:
                raise DataError(
                    f"Bag '{bag.path.name}' has no extrinsics from '{child}' (the child frame of {topic}) to the camera: "
                    f"{str(error).rstrip('.')}; record /tf_static, or name the camera frame.",
                ) from None
    return lookup, world


def _linked(tree: TransformTree, target: str, source: str) -> bool:
    try:
        tree.latest_stamp(target, source)
    except TransformError:
        return False
    return True


def _read_tf(bag: Bag, max_gap_s: float) -> TransformTree:
    """The tree of all TFMessage topics named tf and tf_static, in any namespace."""
    tree = TransformTree(max_gap_s=max_gap_s)
    for topic, kind in bag.topics.items():
        static = topic.endswith("/tf_static")
        if kind == TF_MESSAGE and (static or topic.endswith("/tf")):
            for message in bag.messages(bag.connections(topic)):
                for transform in message.transforms:
                    try:
                        tree.add(
                            transform.header.frame_id, transform.child_frame_id, _stamp_of(transform), _matrix(transform), static
                        )
                    except TransformError as error:
                        raise DataError(f"Topic {topic} of bag '{bag.path.name}': {error}") from None
    return tree


def _stamp_of(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def _matrix(message) -> np.ndarray:
    """(4, 4) pose of a TransformStamped, PoseStamped, PoseWithCovarianceStamped or Odometry."""
    if hasattr(message, "transform"):
        position, quaternion = message.transform.translation, message.transform.rotation
    else:
        pose = getattr(message.pose, "pose", message.pose)
        position, quaternion = pose.position, pose.orientation
    xyzw = np.array([quaternion.x, quaternion.y, quaternion.z, quaternion.w])
    if not np.isfinite(xyzw).all() or not xyzw.any():
        return np.full((4, 4), np.nan)  # the tree refuses it with a sentence that names the frames
    return poses.from_quaternion(np.array([position.x, position.y, position.z]), xyzw)
