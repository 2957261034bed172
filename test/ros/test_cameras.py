"""The lens and the size of the images that the node subscribes to."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage

from dimm_ros.errors import InputError
from dimm_ros.geometry.camera import Camera
from dimm_ros.ros.cameras import CameraInput, ImageWithInfo
from dimm_ros.ros.estimator import Estimator
from dimm_ros.ros.parameters import NodeConfig


@pytest.mark.parametrize(
    ("topic", "focal", "distortion"),
    [("/camera/image_raw", 50.0, (-0.3, 0.1, 0.0, 0.0, 0.0)), ("/camera/image_rect_color", 40.0, ())],
)
def test_rectified_images_have_the_lens_of_p(session, topic, focal, distortion) -> None:
    words = ["--ros-args", "-r", f"image:={topic}"]
    node = Node("robot", context=session.context, use_global_arguments=False, cli_args=words)
    camera = CameraInput(node, "", NodeConfig(), lambda image: None)
    info = CameraInfo(width=64, height=48, distortion_model="plumb_bob", d=[-0.3, 0.1, 0.0, 0.0, 0.0])
    info.k = [50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]
    info.p = [40.0, 0.0, 30.0, 0.0, 0.0, 40.0, 22.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    camera._on_info(info)
    assert (camera.camera.fx, camera.camera.distortion) == (focal, distortion)
    camera.destroy()
    node.destroy_node()


def test_a_compressed_image_of_another_size_is_not_decoded(monkeypatch) -> None:
    message = CompressedImage(format="png", data=cv2.imencode(".png", np.zeros((300, 500), np.uint8))[1].tobytes())
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: pytest.fail("its pixels were decoded"))
    image = ImageWithInfo("", message, Camera(64, 48, 50, 50, 32, 24), "")
    with pytest.raises(InputError, match="The image is 500x300 but camera_info says 64x48; publish the camera_info"):
        Estimator(NodeConfig, None, None)._decode([image])
