"""Image messages to RGB arrays: cv_bridge where it is installed, ``dimm_ros.data.image_encoding`` where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dimm_ros.data.image_encoding import decode_compressed, decode_raw

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image

try:
    from cv_bridge import CvBridge

    _BRIDGE = CvBridge()
except (ImportError, AttributeError):  # AttributeError: a cv_bridge built for NumPy 1 under NumPy 2
    _BRIDGE = None


def to_rgb(message: Image | CompressedImage) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image message; it may share the message's memory, so do not write to it.

    Raises:
        InputError: an unknown encoding, or data that does not fit the size or cannot be decoded.
    """
    compressed = hasattr(message, "format")
    if _BRIDGE is not None:
        convert = _BRIDGE.compressed_imgmsg_to_cv2 if compressed else _BRIDGE.imgmsg_to_cv2
        try:
            image = convert(message, "rgb8")
        except Exception:  # noqa: BLE001  cv_bridge lets anything out: CvBridgeError, cv2.error, ValueError, TypeError
            pass  # our decoder says in one sentence what is wrong, or reads what cv_bridge cannot
        else:
            if image is not None and image.ndim == 3 and image.size:
                return image
    if compressed:
        return decode_compressed(message.format, message.data)
    return decode_raw(message.encoding, message.height, message.width, message.step, bool(message.is_bigendian), message.data)
