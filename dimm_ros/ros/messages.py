"""Between messages and arrays: stamps, poses, covariances, images."""

from __future__ import annotations

import array
from collections.abc import Iterable

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, PoseWithCovarianceStamped, Transform, TransformStamped
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField

from dimm_ros.data.bridge import bridge
from dimm_ros.data.image_encoding import decode_compressed, decode_raw
from dimm_ros.geometry import poses
from dimm_ros.geometry.covariance import lever


def stamp_ns(stamp: Time) -> int:
    """Nanoseconds of a message's stamp."""
    return stamp.sec * 10**9 + stamp.nanosec


def to_stamp(nanoseconds: int) -> Time:
    """A message's stamp of nanoseconds, cut to what a stamp can hold (years 1901 to 2038): damaged ones lie beyond."""
    nanoseconds = min(max(nanoseconds, -(2**31) * 10**9), 2**31 * 10**9 - 1)
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def to_pose(pose: np.ndarray) -> Pose:
    """geometry_msgs/Pose of a (4, 4) pose."""
    message = Pose()
    translation, quaternion = poses.to_quaternion(pose)
    message.position.x, message.position.y, message.position.z = map(float, translation)
    _set_quaternion(message.orientation, quaternion)
    return message


def from_pose(message: Pose) -> np.ndarray:
    """(4, 4) pose of a geometry_msgs/Pose."""
    position = message.position
    return poses.from_quaternion(np.array([position.x, position.y, position.z]), _quaternion(message.orientation))


def to_transform(parent: str, child: str, nanoseconds: int, parent_from_child: np.ndarray) -> TransformStamped:
    """geometry_msgs/TransformStamped of a (4, 4) pose."""
    message = TransformStamped()
    message.header.stamp, message.header.frame_id, message.child_frame_id = to_stamp(nanoseconds), parent, child
    translation, quaternion = poses.to_quaternion(parent_from_child)
    shift = message.transform.translation
    shift.x, shift.y, shift.z = map(float, translation)
    _set_quaternion(message.transform.rotation, quaternion)
    return message


def from_transform(message: Transform) -> np.ndarray:
    """(4, 4) parent_from_child of a geometry_msgs/Transform."""
    shift = message.translation
    return poses.from_quaternion(np.array([shift.x, shift.y, shift.z]), _quaternion(message.rotation))


def to_pose_with_covariance(
    frame: str, nanoseconds: int, pose: np.ndarray, covariance: np.ndarray
) -> PoseWithCovarianceStamped:
    """geometry_msgs/PoseWithCovarianceStamped of a (4, 4) pose and its (6, 6) covariance."""
    message = PoseWithCovarianceStamped()
    message.header.stamp, message.header.frame_id = to_stamp(nanoseconds), frame
    message.pose.pose = to_pose(pose)
    message.pose.covariance = covariance.reshape(36).astype(float).tolist()
    return message


def to_image(image: np.ndarray, frame: str, nanoseconds: int) -> Image:
    """sensor_msgs/Image (rgb8) of an (H, W, 3) uint8 array."""
    message = Image(height=image.shape[0], width=image.shape[1], encoding="rgb8", step=image.shape[1] * 3)
    message.header.stamp, message.header.frame_id = to_stamp(nanoseconds), frame
    # rclpy copies an array.array at once, but checks any other sequence number by number (about 100 ms a frame).
    message.data = array.array("B", image.tobytes())
    return message


def to_cloud(points: np.ndarray, frame: str, nanoseconds: int) -> PointCloud2:
    """sensor_msgs/PointCloud2 (x, y, z as float32) of (N, 3) points."""
    message = PointCloud2(height=1, width=len(points), point_step=12, row_step=12 * len(points), is_dense=True)
    message.header.stamp, message.header.frame_id = to_stamp(nanoseconds), frame
    message.fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate("xyz")
    ]
    message.data = array.array("B", points.astype("<f4").tobytes())
    return message


def to_rgb(message: Image | CompressedImage) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image message; it may share the message's memory, so do not write to it.

    By cv_bridge as far as it can be trusted, by ``data.image_encoding`` for the rest.

    Raises:
        InputError: an unknown encoding, or data that does not fit the size or cannot be decoded.
    """
    if hasattr(message, "format"):
        # Not by cv_bridge: it takes RGB for BGR where the format says "compressed rgb8", and returns 16 bits of a PNG.
        return decode_compressed(message.format, message.data)
    image = bridge().convert(message)
    if image is not None:
        return image
    return decode_raw(
        message.encoding, message.height, message.width, message.step, bool(message.is_bigendian), message.data
    )


def transport_covariance(
    covariance: np.ndarray, map_from_camera: np.ndarray, camera_from_body: np.ndarray
) -> np.ndarray:
    """Covariance of the body's pose from that of the camera's (the adjoint of the lever arm).

    Both are of a small rotation about fixed map axes and a shift in the map: turning the camera by ``a`` about its own
    centre also moves the body's origin, which lies ``lever`` away, by ``a x lever``.

    Args:
        covariance: (6, 6) of the camera, order x, y, z, rx, ry, rz about fixed map axes.
        map_from_camera: (4, 4).
        camera_from_body: (4, 4) extrinsics, taken as exact.

    Returns:
        (6, 6) of the body, same order.
    """
    adjoint = lever(map_from_camera[:3, :3] @ camera_from_body[:3, 3])
    return adjoint @ covariance @ adjoint.T


def floor_covariance(covariance: np.ndarray, position_sigma: float, rotation_sigma: float) -> np.ndarray:
    """The covariance with no direction more certain than the floor; symmetric and positive definite.

    Eigenvalues are lifted in units of the floor, so that metres and radians are not mixed.

    Args:
        covariance: (6, 6), finite.
        position_sigma: floor of the position's standard deviation, metres.
        rotation_sigma: floor of the rotation's standard deviation, radians.
    """
    scale = np.repeat([position_sigma, rotation_sigma], 3)
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2 / np.outer(scale, scale))
    lifted = (vectors * np.maximum(values, 1.0)) @ vectors.T * np.outer(scale, scale)
    return (lifted + lifted.T) / 2


def _quaternion(message) -> np.ndarray:
    return np.array([message.x, message.y, message.z, message.w])


def _set_quaternion(message, xyzw: Iterable[float]) -> None:
    message.x, message.y, message.z, message.w = map(float, xyzw)
