"""Bags of ROS 2 (sqlite3 and mcap) and ROS 1 without ROS: images with intrinsics, and poses from TF or from a pose topic.

Depth images in the camera's own frame, such as those of aligned depth, come along; each image takes the one nearest in time.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import partial
from pathlib import Path

import numpy as np
from rosbags.interfaces import Connection

from dimm_ros.data.bag_file import (
    CAMERA_INFO,
    COMPRESSED,
    IMAGE,
    TF_MESSAGE,
    Bag,
    camera_info_connections,
    depth_connections,
    image_connections,
    stamp_of,
)
from dimm_ros.data.camera_info import camera_from_info, coefficients
from dimm_ros.data.recording import Frame, Recording
from dimm_ros.data.transform_tree import TransformTree
from dimm_ros.errors import DataError, InputError, TransformError, TransformStampError
from dimm_ros.geometry import poses
from dimm_ros.geometry.camera import Camera

__all__ = ["CAMERA_INFO", "COMPRESSED", "IMAGE", "POSE_TYPES", "TF_MESSAGE", "Bag", "camera_info_connections", "image_connections", "read_bag"]

POSE_TYPES = (
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/TransformStamped",
)

_TF_MESSAGES = (TF_MESSAGE, "tf/msg/tfMessage")  # the second is of old ROS 1
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
        path: rosbag2 folder, a single .mcap or .db3 file, or a .bag file of ROS 1 (or the folder of the parts of one).
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
    bag = Bag(path, ros1=True)
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

    depth, depth_infos = depth_connections(bag, image[0].topic, frame_ids)
    depth_cameras = _Cameras(bag, depth_infos) if depth else None
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
        depth_camera = None if depth_cameras is None else depth_cameras.at(header.stamp_ns)
        frames.append(
            Frame(
                name=f"{header.stamp_ns // 10**9}.{header.stamp_ns % 10**9:09d}",
                stamp_ns=header.stamp_ns,
                camera=camera,
                world_from_camera=pose,
                load=partial(bag.load_image, header, camera),
                load_depth=None if depth_camera is None else partial(bag.load_depth, depth, header, depth_camera),
                depth_camera=depth_camera,
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


class _Cameras:
    """The camera of each time; drivers repeat the same one, so only changes are kept."""

    def __init__(self, bag: Bag, connections: list[Connection]) -> None:
        self._stamps: list[int] = []
        self._cameras: list[Camera] = []
        previous = None
        for message in sorted(bag.messages(connections), key=stamp_of):
            roi = message.roi
            key = (
                message.width, message.height, message.distortion_model, *coefficients(message), message.binning_x, message.binning_y,
                roi.x_offset, roi.y_offset, roi.width, roi.height,
            )
            if key == previous:
                continue
            try:
                camera = camera_from_info(message)
            except InputError as error:
                raise DataError(f"Topic {connections[0].topic} of bag '{bag.path.name}': {error}") from None
            previous = key
            self._stamps.append(stamp_of(message))
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
        path.add(world, _POSE, stamp_of(message), _matrix(message))
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
        if kind in _TF_MESSAGES and (static or topic.endswith("/tf")):
            for message in bag.messages(bag.connections(topic)):
                for transform in message.transforms:
                    try:
                        tree.add(
                            transform.header.frame_id, transform.child_frame_id, stamp_of(transform), _matrix(transform), static
                        )
                    except TransformError as error:
                        raise DataError(f"Topic {topic} of bag '{bag.path.name}': {error}") from None
    return tree


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
