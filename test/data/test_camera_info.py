"""CameraInfo to Camera: region of interest, binning, model names."""

from __future__ import annotations

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from dimm_ros.data.camera_info import camera_from_file, camera_from_info
from dimm_ros.errors import InputError

TYPES = get_typestore(Stores.ROS2_JAZZY).types


def info(
    width=640,
    height=480,
    k=(500.0, 0, 320, 0, 510, 240, 0, 0, 1),
    d=(),
    model="plumb_bob",
    roi=(0, 0, 0, 0),
    binning=(0, 0),
):
    x, y, w, h = roi
    region = TYPES["sensor_msgs/msg/RegionOfInterest"](x_offset=x, y_offset=y, height=h, width=w, do_rectify=False)
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
    return TYPES["sensor_msgs/msg/CameraInfo"](
        header=TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id="c"),
        height=height,
        width=width,
        distortion_model=model,
        d=np.array(d, dtype=float),
        k=np.array(k, dtype=float),
        r=np.eye(3).ravel(),
        p=np.zeros(12),
        binning_x=binning[0],
        binning_y=binning[1],
        roi=region,
    )


def test_plain_camera():
    camera = camera_from_info(info(d=(0.1, -0.2, 0.001, 0.002, 0.05)))
    assert (camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy) == (640, 480, 500, 510, 320, 240)
    assert camera.distortion == (0.1, -0.2, 0.001, 0.002, 0.05)


def test_rclpy_message_gives_the_same_camera():
    messages = pytest.importorskip("sensor_msgs.msg", reason="ROS 2 messages are not installed")
    ours = info(d=(0.1, -0.2, 0.001, 0.002, 0.05), roi=(100, 40, 320, 240), binning=(2, 2))
    theirs = messages.CameraInfo()
    for name in ("width", "height", "distortion_model", "binning_x", "binning_y"):
        setattr(theirs, name, getattr(ours, name))
    theirs.d, theirs.k = ours.d.tolist(), ours.k
    for name in ("x_offset", "y_offset", "width", "height"):
        setattr(theirs.roi, name, getattr(ours.roi, name))
    assert camera_from_info(theirs) == camera_from_info(ours)


def test_region_of_interest_then_binning_keep_the_rays():
    """The pixel block of a binned, cut image looks along the ray through that block's centre in the full image."""
    full = camera_from_info(info(d=(0.1, -0.2, 0.001, 0.002, 0.05)))
    small = camera_from_info(info(d=(0.1, -0.2, 0.001, 0.002, 0.05), roi=(100, 40, 321, 240), binning=(2, 3)))
    assert (small.width, small.height) == (160, 80)
    pixels = np.array([[0, 0], [10, 20], [159, 79]])
    blocks = pixels * [2, 3] + [0.5, 1.0] + [100, 40]
    np.testing.assert_allclose(small.bearings(pixels)[0], full.bearings(blocks)[0], atol=1e-9)


@pytest.mark.parametrize(
    ("model", "d", "expected"),
    [
        ("", (), ("plumb_bob", ())),
        ("", (0.0,) * 5, ("plumb_bob", ())),
        ("none", (), ("plumb_bob", ())),
        ("fisheye", (0.1, 0, 0, 0), ("equidistant", (0.1, 0, 0, 0))),
        ("plumb_bob", (0.1, 0, 0, 0, 0, 0.2, 0, 0), ("rational_polynomial", (0.1, 0, 0, 0, 0, 0.2, 0, 0))),
        ("plumb_bob", (0.1, 0, 0, 0, 0.3, 0, 0, 0), ("plumb_bob", (0.1, 0, 0, 0, 0.3))),
        ("rational_polynomial", (0.1, 0, 0, 0, 0), ("plumb_bob", (0.1, 0, 0, 0, 0))),
        ("rational_polynomial", (0.1,) * 8 + (0,) * 6, ("rational_polynomial", (0.1,) * 8)),
    ],
)
def test_distortion_names_in_use(model, d, expected):
    camera = camera_from_info(info(d=d, model=model))
    assert (camera.distortion_model, camera.distortion) == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(k=(0.0,) * 9), "not calibrated"),
        (dict(k=(np.nan, 0, 320, 0, 510, 240, 0, 0, 1)), "NaN"),
        (dict(d=(np.nan,) * 5), "NaN"),
        (dict(width=0), "size is 0x480"),
        (dict(model="swirl", d=(0.1,)), "'swirl' is not known"),
        (dict(model="", d=(0.1,) * 5), "'' is not known"),
        (dict(roi=(600, 0, 100, 100)), "region of interest"),
    ],
)
def test_bad_camera_info(changes, words):
    with pytest.raises(InputError, match=words):
        camera_from_info(info(**changes))


CALIBRATION = """image_width: 640
image_height: 480
camera_name: head
camera_matrix:
  rows: 3
  cols: 3
  data: [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.1, -0.2, 0.001, 0.002, 0.05]
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
"""
ECHOED = """header:
  stamp: {sec: 1, nanosec: 2}
  frame_id: camera
height: 480
width: 640
distortion_model: plumb_bob
d: [0.1, -0.2, 0.001, 0.002, 0.05]
k: [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
binning_x: 2
binning_y: 2
roi: {x_offset: 100, y_offset: 40, height: 240, width: 320, do_rectify: false}
---
"""


def test_calibration_files(tmp_path):
    d = (0.1, -0.2, 0.001, 0.002, 0.05)
    for text, message in (
        (CALIBRATION, info(d=d, k=(500.0, 0, 320, 0, 510, 240, 0, 0, 1))),
        (ECHOED, info(d=d, k=(500.0, 0, 320, 0, 510, 240, 0, 0, 1), roi=(100, 40, 320, 240), binning=(2, 2))),
    ):
        (tmp_path / "camera.yaml").write_text(text)
        assert camera_from_file(tmp_path / "camera.yaml") == camera_from_info(message)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "holds no calibration"),
        ("[1, 2]", "holds no calibration"),
        ("a: [", "is not YAML"),
        ("\x00", "is not YAML"),
        (CALIBRATION.replace("image_width: 640", "image_width: wide"), "is no ROS calibration"),
        (CALIBRATION.replace("image_height: 480\n", ""), "is no ROS calibration"),
        (CALIBRATION.replace("500.0, 0.0, ", ""), "is no ROS calibration"),
        (CALIBRATION.replace("[0.1,", "[x,"), "is no ROS calibration"),
        (CALIBRATION.replace("500.0", "0.0"), "cannot be used: The camera's focal length"),
        (CALIBRATION.replace("plumb_bob", "magic"), "cannot be used: Distortion model 'magic'"),
        ("[" * 5000, "is not YAML"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_files_that_are_no_calibration_are_named(text, expected, tmp_path):
    (tmp_path / "camera.yaml").write_bytes(text.encode())
    with pytest.raises(InputError, match="The camera file .*camera.yaml") as error:
        camera_from_file(tmp_path / "camera.yaml")
    assert expected in str(error.value)
