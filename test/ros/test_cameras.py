"""The lens of the images that the node subscribes to."""

from __future__ import annotations

import pytest
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from dimm_ros.ros.cameras import CameraInput
from dimm_ros.ros.parameters import NodeConfig


@pytest.mark.parametrize(("topic", "focal", "distortion"), [
    ("/camera/image_raw", 50.0, (-0.3, 0.1, 0.0, 0.0, 0.0)), ("/camera/image_rect_color", 40.0, ()),
])
def test_rectified_images_have_the_lens_of_p(session, topic, focal, distortion) -> None:
    words = ["--ros-args", "-r", f"image:={topic}"]
    node = Node("robot", context=session.context, use_global_arguments=False, cli_args=words)
    camera = CameraInput(node, "", NodeConfig(), lambda shot: None)
    info = CameraInfo(width=64, height=48, distortion_model="plumb_bob", d=[-0.3, 0.1, 0.0, 0.0, 0.0])
    info.k = [50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]
    info.p = [40.0, 0.0, 30.0, 0.0, 0.0, 40.0, 22.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    camera._on_info(info)
    assert (camera.camera.fx, camera.camera.distortion) == (focal, distortion)
    camera.destroy()
    node.destroy_node()
