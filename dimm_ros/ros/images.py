"""Image messages to RGB arrays: cv_bridge as far as it can be trusted, ``dimm_ros.data.image_encoding`` for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dimm_ros.data.bridge import bridge
from dimm_ros.data.image_encoding import decode_compressed, decode_raw

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image


def to_rgb(message: Image | CompressedImage) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image message; it may share the message's memory, so do not write to it.

    Raises:
        InputError: an unknown encoding, or data that does not fit the size or cannot be decoded.
    """
    if hasattr(message, "format"):
        # Not by cv_bridge: it takes RGB for BGR where the format says "compressed rgb8", and returns 16 bits of a PNG.
        return decode_compressed(message.format, message.data)
    image = bridge().convert(message)
    if image is not None:
        return image
    return decode_raw(message.encoding, message.height, message.width, message.step, bool(message.is_bigendian), message.data)
