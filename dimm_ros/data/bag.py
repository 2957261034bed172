"""Bags of ROS 2 (sqlite3 and mcap) and ROS 1 without ROS: images with intrinsics, and poses from TF or from a pose
topic.

Depth images in the camera's own frame, such as those of aligned depth, come along; each image takes the one nearest in
time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Optional

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
from dimm_ros.data.bag_run import BagStretch, longest_run
from dimm_ros.data.bag_transforms import BagTransforms, matrix_of, read_transforms
from dimm_ros.data.camera_info import camera_from_info, coefficients, has_projection, is_rectified
from dimm_ros.data.recording import Frame, Recording
from dimm_ros.data.transform_tree import TransformTree
from dimm_ros.errors import DataError, InputError, TransformError, TransformStampError
from dimm_ros.geometry.camera import Camera

__all__ = [
    "CAMERA_INFO",
    "COMPRESSED",
    "IMAGE",
    "POSE_TYPES",
    "TF_MESSAGE",
    "Bag",
    "camera_info_connections",
    "image_connections",
    "read_bag",
]

POSE_TYPES = (
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/TransformStamped",
)

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
        image_topic: Image or CompressedImage; None takes the bag's only one (of a raw topic and its compressed
            twin the one with more images).
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
    topic = image[0].topic
    infos = camera_info_connections(bag, camera_info_topic, topic)
    headers = list(bag.image_headers(image))
    if not headers:
        raise DataError(f"No message of {topic} in bag '{path.name}' can be decoded; record the camera again.")
    run, reset = longest_run(headers)
    notes = [reset] if reset else []
    cameras = _Cameras(bag, infos, run, notes, is_rectified(topic))
    frame_ids = {camera_frame} if camera_frame else {header.frame_id for header in run.headers}
    transforms = read_transforms(bag, topic, max_gap_s, run)
    notes += transforms.notes
    if pose_topic is None:
        lookup, world = _poses_from_tf(bag, transforms, map_frame.lstrip("/"), frame_ids, require_poses, notes)
    else:
        lookup, world = _poses_from_topic(bag, transforms, pose_topic, max_gap_s, pose_frame, frame_ids, run, notes)
        if world != map_frame.lstrip("/"):
            notes.append(f"Poses of {pose_topic} are in frame '{world}', which is the map's frame.")

    depth, depth_infos = depth_connections(bag, topic, frame_ids)
    depth_cameras = _Cameras(bag, depth_infos, run, notes, is_rectified(depth[0].topic)) if depth else None
    notes += [f"{count} messages of {name} cannot be decoded and were left out." for name, count in bag.damaged.items()]
    frames: list[Frame] = []
    outside, first_reason, seen, repeated = 0, "", set(), []
    for header in sorted(run.headers, key=lambda header: header.stamp_ns):
        if header.stamp_ns in seen:  # a name and a pose for one of them only
            repeated.append(header.stamp_ns)
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
                name=_seconds(header.stamp_ns),
                stamp_ns=header.stamp_ns,
                camera=camera,
                world_from_camera=pose,
                load=partial(bag.load_image, header, camera),
                load_depth=None if depth_camera is None else partial(bag.load_depth, depth, header, depth_camera),
                depth_camera=depth_camera,
                files=bag.files,
            )
        )
    if repeated:
        notes.append(
            f"{len(repeated)} of {len(run.headers)} images of {topic} have the stamp of another one and were left out, "
            f"the first at {_seconds(repeated[0])} s; let the driver stamp each image with its own time, and record no "
            "looped replay."
        )
    if not frames:
        raise DataError(f"No image of {topic} in bag '{path.name}' has a pose at its stamp. {first_reason}")
    if outside:
        fate = "were left out" if require_poses else "have none"
        notes.append(
            f"{outside} of {len(seen)} images have no pose at their stamp and {fate} ({first_reason.rstrip('.')})."
        )
    return Recording(
        name=path.resolve().stem,
        source=f"bag {path.resolve().name}, topic {topic}",
        frames=frames,
        frame_id=world,
        notes=tuple(notes),
    )


class _Cameras:
    """The camera of each time; drivers repeat the same one, so only changes are kept.

    A camera_info that describes no camera, as drivers send before they are ready, is left out and counted in a note.

    Args:
        run: only what was recorded in it counts, where there is something.
        notes: sentences are added to it.
        rectified: the images are rectified.

    Raises:
        DataError: none describes a camera.
    """

    def __init__(
        self, bag: Bag, connections: list[Connection], run: BagStretch, notes: list[str], rectified: bool = False
    ) -> None:
        topic = connections[0].topic
        found: list[tuple[int, bool, Camera]] = []
        previous, camera, bad, cause, projected, raw = None, None, 0, "", False, False
        for log_ns, message in bag.logged_messages(connections):
            roi = message.roi
            d, k, p = coefficients(message)
            key = (
                message.width,
                message.height,
                message.distortion_model,
                d,
                k,
                p,
                message.binning_x,
                message.binning_y,
                roi.x_offset,
                roi.y_offset,
                roi.width,
                roi.height,
            )
            if key != previous:
                previous = key
                try:
                    camera = camera_from_info(message, rectified)
                except InputError as error:
                    camera, cause = None, cause or str(error)
                else:
                    differs = any(d) or (k[0], k[4], k[2], k[5]) != (p[0], p[5], p[2], p[6])
                    projected |= has_projection(p) and (rectified or not k[0]) and differs
                    raw |= rectified and not has_projection(p) and any(d)
            if camera is None:
                bad += 1
            else:
                found.append((stamp_of(message), run.holds(log_ns, stamp_of(message)), camera))
        if not found:
            raise DataError(f"Topic {topic} of bag '{bag.path.name}': {cause or 'no message can be decoded.'}")
        if bad:
            notes.append(f"{bad} messages of {topic} describe no camera and were left out, the first: {cause}")
        if projected:
            reason = "the images are rectified, by their topic's name" if rectified else "K is empty"
            notes.append(f"The lens is P of {topic} without distortion, since {reason}.")
        if raw:
            notes.append(
                f"The images are rectified, by their topic's name, but P of {topic} is empty: K and D are taken for "
                "their lens."
            )
        inside = [entry for entry in found if entry[1]] or found
        self._stamps, self._cameras = [], []
        for stamp, _, camera in sorted(inside, key=lambda entry: entry[0]):
            if not self._cameras or camera != self._cameras[-1]:
                self._stamps.append(stamp)
                self._cameras.append(camera)

    def at(self, stamp_ns: int) -> Camera:
        """The camera published last before a time, or the first one."""
        return self._cameras[max(0, bisect_right(self._stamps, stamp_ns) - 1)]


def _seconds(stamp_ns: int) -> str:
    return f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d}"


#: (camera frame, stamp) -> world_from_camera.
_Lookup = Callable[[str, int], Optional[np.ndarray]]


def _poses_from_tf(
    bag: Bag, transforms: BagTransforms, map_frame: str, camera_frames: set[str], required: bool, notes: list[str]
) -> tuple[_Lookup, str]:
    """A function that gives poses, and the world frame's name."""
    tree = transforms.tree
    for frame in sorted(camera_frames):
        try:
            notes += transforms.doubts(map_frame, frame)
        except TransformError as error:
            if not required:
                return (lambda frame, stamp: None), map_frame
            cure = (
                "record /tf and /tf_static while a localization (SLAM, AMCL, motion capture) publishes the map frame, "
                "or name "
                "the map frame (--map-frame) or a topic of poses (--pose-topic)"
            )
            raise DataError(
                f"Bag '{bag.path.name}' cannot give the camera's poses: {str(error).rstrip('.')}; {cure}"
                f"{_left_out(transforms)}."
            ) from None
    return (lambda frame, stamp: tree.lookup(map_frame, frame, stamp)), map_frame


def _poses_from_topic(
    bag: Bag,
    transforms: BagTransforms,
    topic: str,
    max_gap_s: float,
    pose_frame: str | None,
    camera_frames: set[str],
    run: BagStretch,
    notes: list[str],
) -> tuple[_Lookup, str]:
    """As ``_poses_from_tf``, from a topic of poses and the static transform from its child frame to the camera."""
    connections = bag.connections(topic)
    if not connections or connections[0].msgtype not in POSE_TYPES:
        names = ", ".join(kind.rsplit("/", 1)[-1] for kind in POSE_TYPES)
        raise DataError(f"Topic {topic} of a pose type ({names}) is not in bag '{bag.path.name}'; {bag.listing()}.")
    path = TransformTree(max_gap_s=max_gap_s)
    world, child, bad = "map", "", 0
    for log_ns, message in bag.logged_messages(connections):
        if not run.holds(log_ns, stamp_of(message)):
            continue
        parent = message.header.frame_id.lstrip("/") or "map"
        try:
            path.add(parent, _POSE, stamp_of(message), matrix_of(message))
        except TransformError:
            bad += 1
            continue
        world, child = parent, getattr(message, "child_frame_id", "").lstrip("/")
    if not path.frames:
        raise DataError(f"No pose of {topic} in bag '{bag.path.name}' can be used: they are NaN or without rotation.")
    if bad:
        notes.append(f"{bad} poses of {topic} are NaN or without rotation and were left out.")
    tree = transforms.tree
    if pose_frame is None and not child:
        linked = [frame for frame in sorted(camera_frames) if _linked(tree, "base_link", frame)]
        child = "base_link" if linked else ""
        notes.append(
            f"Poses of {topic} are taken for those of {'base_link' if linked else 'the camera (optical axes)'}."
        )
    child = pose_frame.lstrip("/") if pose_frame else child

    def lookup(frame: str, stamp: int) -> np.ndarray:
        world_from_child = path.lookup(world, _POSE, stamp)
        return world_from_child if child in ("", frame) else world_from_child @ tree.lookup(child, frame, stamp)

    for frame in sorted(camera_frames):
        if child not in ("", frame):
            try:
                notes += transforms.doubts(child, frame)
            except TransformError as error:
                raise DataError(
                    f"Bag '{bag.path.name}' has no extrinsics from '{child}' (the child frame of {topic}) to the "
                    "camera: "
                    f"{str(error).rstrip('.')}; record /tf_static, or choose a topic of the camera's own poses with "
                    f"--pose-topic{_left_out(transforms)}."
                ) from None
    return lookup, world


def _left_out(transforms: BagTransforms) -> str:
    return f" ({'; '.join(note.rstrip('.') for note in transforms.notes)})" if transforms.notes else ""


def _linked(tree: TransformTree, target: str, source: str) -> bool:
    try:
        tree.latest_stamp(target, source)
    except TransformError:
        return False
    return True
