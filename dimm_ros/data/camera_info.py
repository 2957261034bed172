"""``sensor_msgs/CameraInfo`` to ``Camera``, for messages of rclpy and of rosbags alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from dimm_ros.errors import InputError
from dimm_ros.geometry.camera import DISTORTION_MODELS, Camera


class CameraInfoLike(Protocol):
    """What is read of a CameraInfo message; rclpy's and rosbags' both have it, in ROS 1 as D, K and P."""

    height: int
    width: int
    distortion_model: str
    d: Sequence[float]
    k: Sequence[float]
    p: Sequence[float]
    binning_x: int
    binning_y: int
    roi: object


#: Names in use for models that Camera knows under another.
_ALIASES = {"fisheye": "equidistant", "kannala_brandt": "equidistant", "rational": "rational_polynomial", "radtan": "plumb_bob"}


_RECTIFIED = {"rect", "rectified", "undistorted"}  # words of the names of topics, as image_proc and drivers use them


def is_rectified(topic: str) -> bool:
    """Whether the name of an image topic says that its images are rectified, such as ``image_rect_color``."""
    return not _RECTIFIED.isdisjoint(re.split("[/_]", topic.lower()))


def camera_from_info(message: CameraInfoLike, rectified: bool = False) -> Camera:
    """The camera of the published images: full-resolution intrinsics cut to the region of interest, then binned.

    K and D describe the sensor's image as it is, P the rectified one, which has no distortion; all before binning. P
    also serves where K is empty; K and D where P is.

    Args:
        rectified: the images are rectified.

    Raises:
        InputError: an uncalibrated camera, NaN, an unknown distortion model, or a region outside the image.
    """
    d, k, p = coefficients(message)
    size = int(message.width), int(message.height)
    if has_projection(p) and (rectified or not (k[0] or k[4])):
        camera = Camera(*size, p[0], p[5], p[2], p[6])
    else:
        model, distortion = _distortion(message.distortion_model, list(d))
        camera = Camera(*size, k[0], k[4], k[2], k[5], model, distortion)
    roi = message.roi
    if roi.width or roi.height:  # all zero means the full image
        if not (0 < roi.width <= camera.width - roi.x_offset and 0 < roi.height <= camera.height - roi.y_offset):
            raise InputError(
                f"camera_info's region of interest ({roi.width}x{roi.height} from {roi.x_offset}, {roi.y_offset}) "
                f"does not lie within its image of {camera.width}x{camera.height}.",
            )
        camera = camera.cropped(int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height))
    bin_x, bin_y = max(1, int(message.binning_x)), max(1, int(message.binning_y))
    if (bin_x, bin_y) != (1, 1):
        # Binned pixels cover whole blocks; an incomplete block at the edge is dropped before scaling.
        width, height = camera.width // bin_x, camera.height // bin_y
        camera = replace(camera, width=width * bin_x, height=height * bin_y).scaled(width, height)
    return camera


def coefficients(message: CameraInfoLike) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """D, K and P (row by row) of a message of ROS 2, or of ROS 1 (capitals); P is empty where there is none."""
    if hasattr(message, "k"):
        found = (message.d, message.k, getattr(message, "p", ()))
    else:
        found = (message.D, message.K, message.P)
    return tuple(tuple(float(value) for value in values) for values in found)


def has_projection(p: Sequence[float]) -> bool:
    """Whether P holds focal lengths."""
    return len(p) == 12 and p[0] > 0 and p[5] > 0


def _distortion(name: str, coefficients: list[float]) -> tuple[str, tuple[float, ...]]:
    """Camera's model name and coefficients for what drivers really publish."""
    model = _ALIASES.get(name.strip().lower(), name.strip().lower())
    if model in ("", "none", "pinhole") and not any(coefficients):
        return "plumb_bob", ()
    if model == "plumb_bob" and len(coefficients) in DISTORTION_MODELS["rational_polynomial"] and len(coefficients) > 5:
        if not any(coefficients[5:]):
            return model, tuple(coefficients[:5])
        return "rational_polynomial", tuple(coefficients)  # OpenCV calibrations with 8 numbers often keep the old name
    if model == "rational_polynomial" and len(coefficients) in (4, 5):
        return "plumb_bob", tuple(coefficients)
    if model == "rational_polynomial" and len(coefficients) == 14 and not any(coefficients[12:]):
        coefficients = coefficients[:12]  # OpenCV pads with the two angles of a tilted sensor
        if not any(coefficients[8:]):
            coefficients = coefficients[:8]
    return model, tuple(coefficients)
