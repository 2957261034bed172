"""The camera and the odometry of the soak, as a process: 640x480 at 30 Hz, with faults told on its standard input.

Each line of the input is a fault's name, or empty for none. Each line of the output is a JSON object: ``ready`` when
the localizer has subscribed, ``begin`` and ``end`` of a fault with the time (``time.monotonic()``, which all processes
share) and the stamp of the first image after it.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from dimm_ros.data.open import open_recording
from dimm_ros.gallery.trajectory import MOUNTS
from dimm_ros.geometry import poses
from dimm_ros.ros.messages import to_image, to_stamp, to_transform
from dimm_ros.ros.tf import DYNAMIC_QOS, STATIC_QOS

WIDTH, HEIGHT, RATE_HZ = 640, 480, 30.0
FRAME = "camera_optical_frame"

#: The robot stands for so many images at each place of the recording, about its own speed.
_HOLD = 4
_BASE_FROM_CAMERA = MOUNTS["handheld"]
_ODOM_FROM_MAP = poses.make_pose(poses.exp_so3(np.array([0.0, 0.0, 0.7])), np.array([2.0, -1.0, 0.0]))
_JUMP = poses.make_pose(poses.exp_so3(np.array([0.0, 0.0, 0.9])), np.array([3.0, -2.0, 0.0]))
_BACK_NS = 20 * 10**9


class SoakCamera:
    """Publishes the images of a recording forth and back, with camera_info and odometry, spoilt as asked.

    Args:
        recording: bag or folder; its images are resized.
    """

    def __init__(self, recording: Path) -> None:
        self._node = rclpy.create_node("camera")
        self._images = self._node.create_publisher(Image, "/camera/image_raw", qos_profile_sensor_data)
        self._infos = self._node.create_publisher(CameraInfo, "/camera/camera_info", qos_profile_sensor_data)
        self._tf = self._node.create_publisher(TFMessage, "/tf", DYNAMIC_QOS)
        self._tf_static = self._node.create_publisher(TFMessage, "/tf_static", STATIC_QOS)
        frames = open_recording(recording).frames
        camera = frames[0].camera.scaled(WIDTH, HEIGHT)
        self._pictures = [_message(cv2.resize(frame.load(), (WIDTH, HEIGHT))) for frame in frames]
        self._world_from_base = [frame.world_from_camera @ poses.invert(_BASE_FROM_CAMERA) for frame in frames]
        self._info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model=camera.distortion_model, d=[0.0] * 5)
        self._info.k = camera.matrix.ravel().tolist()
        rng = np.random.default_rng(0)
        shape = (HEIGHT, WIDTH, 3)
        self._spoilt = {
            "black image": [_message(np.zeros(shape, np.uint8))],
            "white image": [_message(np.full(shape, 255, np.uint8))],
            "noise": [_message(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(4)],
            "wrong size": [_message(np.full((HEIGHT // 2, WIDTH // 2, 3), 90, np.uint8))],
        }
        self._tf_static.publish(TFMessage(transforms=[to_transform("base_link", FRAME, 0, _BASE_FROM_CAMERA)]))
        self._frozen = 0

    def wait_for_listener(self) -> None:
        """Return once somebody has subscribed to the images."""
        while not (self._images.get_subscription_count() and self._tf.get_subscription_count()):
            time.sleep(0.01)

    def publish(self, tick: int, fault: str) -> int:
        """Publish what belongs to one tick; returns the image's stamp."""
        stamp = self._node.get_clock().now().nanoseconds
        count = len(self._pictures)
        place = tick // _HOLD % (2 * count - 2)
        place = place if place < count else 2 * count - 2 - place
        if fault == "gap":
            return stamp
        if fault != "TF missing":
            odom_from_base = _ODOM_FROM_MAP @ self._world_from_base[place]
            if fault == "TF jump":
                odom_from_base = _JUMP @ odom_from_base
            self._tf.publish(TFMessage(transforms=[to_transform("odom", "base_link", stamp, odom_from_base)]))
        if fault == "duplicated stamp":
            self._frozen = self._frozen or stamp
            stamp = self._frozen
        else:
            self._frozen = 0
        if fault == "backward clock":
            stamp -= _BACK_NS
        self._publish_image(tick, place, stamp, fault)
        return stamp

    def _publish_image(self, tick: int, place: int, stamp: int, fault: str) -> None:
        info = self._info
        info.header.stamp, info.header.frame_id = to_stamp(stamp), FRAME
        focal, info.k[0] = info.k[0], float("nan") if fault == "NaN camera_info" else info.k[0]
        self._infos.publish(info)
        info.k[0] = focal
        variants = self._spoilt.get(fault)
        message = variants[tick % len(variants)] if variants else self._pictures[place]
        message.header.stamp = to_stamp(stamp)
        encoding, data = message.encoding, message.data
        if fault == "wrong encoding":
            message.encoding = "rgb9"
        elif fault == "truncated data":
            message.data = data[: len(data) // 2]
        self._images.publish(message)
        message.encoding = encoding
        if message.data is not data:
            message.data = data


def _message(image: np.ndarray) -> Image:
    return to_image(image, FRAME, 0)


def _say(event: str, **values: object) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def main() -> None:
    """Publish until the standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path)
    arguments = parser.parse_args()
    commands: queue.Queue[str | None] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            commands.put(line.strip())
        commands.put(None)

    threading.Thread(target=listen, daemon=True).start()
    rclpy.init(args=[])
    camera = SoakCamera(arguments.recording)
    camera.wait_for_listener()
    fault, tick, due = "", 0, time.monotonic()
    _say("ready", at=due)
    while True:
        changed = None
        try:
            command = commands.get_nowait()
            if command is None:
                return
            changed, fault = (fault, command), command
        except queue.Empty:
            pass
        at = time.monotonic()
        stamp = camera.publish(tick, fault)
        if changed is not None:
            _say("begin" if fault else "end", fault=fault or changed[0], at=at, stamp=stamp)
        tick += 1
        due += 1.0 / RATE_HZ
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
