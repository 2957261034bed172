"""cv_bridge is used where it is installed; what it refuses gets one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage

from dimm_ros.errors import InputError
from dimm_ros.ros import images
from dimm_ros.ros.messages import to_image

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)


class Bridge:
    """cv_bridge.CvBridge's two methods, as it would answer or fail."""

    def __init__(self, answer) -> None:
        self.answer, self.asked = answer, []

    def imgmsg_to_cv2(self, message, desired_encoding):
        self.asked.append(("raw", desired_encoding))
        return self._reply()

    def compressed_imgmsg_to_cv2(self, message, desired_encoding):
        self.asked.append(("compressed", desired_encoding))
        return self._reply()

    def _reply(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_cv_bridge_is_asked_for_rgb(monkeypatch) -> None:
    bridge = Bridge(PICTURE[::-1])
    monkeypatch.setattr(images, "_BRIDGE", bridge)
    np.testing.assert_array_equal(images.to_rgb(to_image(PICTURE, "camera", 1)), PICTURE[::-1])
    np.testing.assert_array_equal(images.to_rgb(CompressedImage(format="jpeg")), PICTURE[::-1])
    assert bridge.asked == [("raw", "rgb8"), ("compressed", "rgb8")]


def test_what_cv_bridge_refuses_is_read_or_explained(monkeypatch) -> None:
    monkeypatch.setattr(images, "_BRIDGE", Bridge(ValueError("buffer is smaller than requested size")))
    np.testing.assert_array_equal(images.to_rgb(to_image(PICTURE, "camera", 1)), PICTURE)
    short = to_image(PICTURE, "camera", 1)
    short.height = 60
    with pytest.raises(InputError, match="truncated"):
        images.to_rgb(short)
    monkeypatch.setattr(images, "_BRIDGE", Bridge(None))  # what OpenCV's decoder gives for rubbish
    with pytest.raises(InputError, match="cannot be decoded"):
        images.to_rgb(CompressedImage(format="jpeg"))
