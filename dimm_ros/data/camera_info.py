"""``sensor_msgs/CameraInfo`` to ``Camera``, for messages of rclpy and of rosbags alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Protocol

import yaml

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
_ALIASES = {
    "fisheye": "equidistant",
    "kannala_brandt": "equidistant",
    "rational": "rational_polynomial",
    "radtan": "plumb_bob",
}


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
                f"does not lie within its image of {camera.width}x{camera.height}."
            )
        camera = camera.cropped(int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height))
    bin_x, bin_y = max(1, int(message.binning_x)), max(1, int(message.binning_y))
    if (bin_x, bin_y) != (1, 1):
        # Binned pixels cover whole blocks; an incomplete block at the edge is dropped before scaling.
        width, height = camera.width // bin_x, camera.height // bin_y
        camera = replace(camera, width=width * bin_x, height=height * bin_y).scaled(width, height)
    return camera


_MOST_BYTES = 1 << 20  # of a calibration file; real ones have some hundred


def camera_from_file(path: str | Path) -> Camera:
    """The camera of a ROS calibration file: what camera_calibration writes (``camera_matrix``), or a CameraInfo
    (``k``).

    Raises:
        InputError: the file cannot be read, is no calibration, or describes no camera.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            text = stream.read(_MOST_BYTES)
        content = next(iter(yaml.safe_load_all(text)), None)  # 'ros2 topic echo' ends a message with ---
    except OSError as error:
        cure = "give the camera_info YAML of this camera"
        raise InputError(f"The camera file {path} cannot be read ({error.strerror}); {cure}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
        raise InputError(f"The camera file {path} is not YAML; give the file that camera_calibration wrote.") from None
    if not isinstance(content, dict):
        raise InputError(f"The camera file {path} holds no calibration; give the file that camera_calibration wrote.")
    try:
        return camera_from_info(_message(content))
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError, ValueError):
        wanted = "image_width, image_height, camera_matrix, distortion_model and distortion_coefficients"
        raise InputError(f"The camera file {path} is no ROS calibration: it needs {wanted}, with numbers.") from None
    except InputError as error:
        raise InputError(f"The camera file {path} cannot be used: {error}") from None


def _message(content: dict) -> SimpleNamespace:
    """A calibration file's content as the message it stands for."""
    if "camera_matrix" in content:
        width, height = content["image_width"], content["image_height"]
        k, d = content["camera_matrix"]["data"], (content.get("distortion_coefficients") or {"data": []})["data"]
    else:
        width, height, k, d = content["width"], content["height"], content["k"], content.get("d") or []
    p = (content.get("projection_matrix") or {"data": content.get("p") or []})["data"]
    roi = content.get("roi")
    sides = ("x_offset", "y_offset", "width", "height")
    region = SimpleNamespace(**{name: int((roi or {}).get(name, 0)) for name in sides})
    if len(k) != 9:
        raise ValueError("K is (3, 3)")
    return SimpleNamespace(
        width=int(width),
        height=int(height),
        k=k,
        d=d,
        p=p,
        roi=region,
        distortion_model=str(content.get("distortion_model") or ""),
        binning_x=int(content.get("binning_x") or 0),
        binning_y=int(content.get("binning_y") or 0),
    )


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
