"""The player: a bag's bytes, order and time, over DDS."""

from __future__ import annotations

import re
import shlex
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage

from dimm_ros.errors import DataError, DimmError
from dimm_ros.msg import LocalizationStatus
from dimm_ros.replay.collector import Collector
from dimm_ros.replay.player import BagPlayer, PlayOptions, main
from dimm_ros.ros.messages import stamp_ns, to_image, to_stamp, to_transform
from dimm_ros.ros.tf import DYNAMIC_QOS, STATIC_QOS

from .robot import BASE_FROM_CAMERA, ODOM_FROM_BASE, wait

START = 1_700_000_000 * 10**9
STEP = 10**8
IMAGES = [np.full((4, 6, 3), index, np.uint8) for index in range(5)]


@pytest.fixture
def bag(tmp_path):
    return record(tmp_path / "bag")


def record(path: Path, topic: str = "/camera/image") -> Path:
    """Five images 0.1 s apart with TF between them, a latched extrinsics, and a topic of a type nobody has."""
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register({"nobody_msgs/msg/Secret": ([], [("data", (1, ("uint8", 0)))])})
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        image = writer.add_connection(topic, "sensor_msgs/msg/Image", typestore=store)
        tf = writer.add_connection("/tf", "tf2_msgs/msg/TFMessage", typestore=store)
        static = writer.add_connection("/tf_static", "tf2_msgs/msg/TFMessage", typestore=store)
        secret = writer.add_connection("/secret", "nobody_msgs/msg/Secret", typestore=store)
        writer.write(
            static,
            START,
            serialize_message(TFMessage(transforms=[to_transform("base", "camera", 0, BASE_FROM_CAMERA)])),
        )
        writer.write(secret, START, b"\0\1\0\0\7")
        for index, pixels in enumerate(IMAGES):
            stamp = START + index * STEP
            writer.write(image, stamp, serialize_message(to_image(pixels, "camera", stamp)))
            both = [
                to_transform("map", "odom", stamp, ODOM_FROM_BASE),
                to_transform("odom", "base", stamp, ODOM_FROM_BASE),
            ]
            writer.write(tf, stamp + STEP // 2, serialize_message(TFMessage(transforms=both)))
    return path


def test_plays_everything_in_order(session, bag) -> None:
    images, transforms, statics, clocks = [], [], [], []
    node = session.node
    node.create_subscription(Image, "image", images.append, 10)
    node.create_subscription(TFMessage, "/tf", lambda message: transforms.extend(message.transforms), DYNAMIC_QOS)
    node.create_subscription(TFMessage, "/tf_static", lambda message: statics.extend(message.transforms), STATIC_QOS)
    node.create_subscription(Clock, "/clock", lambda message: clocks.append(stamp_ns(message.clock)), 1000)
    options = PlayOptions(rate=0.5, remap={"/camera/image": "/image"}, drop_transforms=(("map", "odom"),), clock=True)
    started = time.monotonic()
    played = BagPlayer(node, bag, options).play()
    took = time.monotonic() - started
    wait(lambda: len(images) == 5 and len(transforms) == 5 and statics)
    assert played.skipped == ("/secret",) and list(played.images) == [START + index * STEP for index in range(5)]
    for index, image in enumerate(images):
        assert stamp_ns(image.header.stamp) == START + index * STEP
        assert bytes(image.data) == IMAGES[index].tobytes()
    assert {(one.header.frame_id, one.child_frame_id) for one in transforms} == {("odom", "base")}
    assert statics[0].child_frame_id == "camera"
    assert clocks == sorted(clocks) and clocks[0] >= START and len(clocks) > 20
    assert took >= 0.45 / 0.5  # the bag's 0.45 s at half the speed: time enough for the clock's steps on a busy machine


def test_next_image_waits_for_the_answer(session, bag) -> None:
    """A localizer that takes longer than the bag's images: each still gets its turn."""
    node = session.node
    status = node.create_publisher(LocalizationStatus, "status", 10)
    seen, at_answer = [], []

    def answer(stamp: int) -> None:
        at_answer.append(len(seen))
        message = LocalizationStatus()
        message.header.stamp = to_stamp(stamp)
        status.publish(message)

    def on_image(message: Image) -> None:
        seen.append(stamp_ns(message.header.stamp))
        threading.Timer(0.15, answer, (seen[-1],)).start()

    node.create_subscription(Image, "/camera/image", on_image, qos_profile_sensor_data)
    collector = Collector(node)
    played = BagPlayer(node, bag, PlayOptions(rate=0.0, wait_answers=True), collector).play()
    assert played.unanswered == () and len(seen) == 5
    assert at_answer == [1, 2, 3, 4, 5]  # no image came before the answer to the one before it


def test_goes_on_without_an_answer(session, bag) -> None:
    node = session.node
    seen = []
    node.create_subscription(Image, "/camera/image", seen.append, qos_profile_sensor_data)
    options = PlayOptions(rate=0.0, wait_answers=True, answer_s=0.05)
    played = BagPlayer(node, bag, options, Collector(node)).play()
    assert len(played.unanswered) == 5


def test_nobody_listens(session, bag) -> None:
    with pytest.raises(DimmError, match="Nobody subscribes to /camera/image"):
        BagPlayer(session.node, bag, PlayOptions(subscribers_s=0.1)).play()


def test_map_that_does_not_load_is_explained(session, bag) -> None:
    node = session.node
    node.create_subscription(Image, "/camera/image", lambda _: None, qos_profile_sensor_data)
    status = node.create_publisher(LocalizationStatus, "status", 10)
    collector = Collector(node)
    wait(status.get_subscription_count)
    status.publish(LocalizationStatus(reason="The map is damaged."))
    wait(lambda: collector.reports)
    with pytest.raises(DimmError, match="The map is damaged"):
        BagPlayer(node, bag, PlayOptions(wait_ready=True, ready_s=0.1), collector).play()


def test_missing_topic_lists_what_there_is(session, bag) -> None:
    with pytest.raises(DataError, match=r"no topic /front/image; the bag has /camera/image \(Image\)"):
        BagPlayer(session.node, bag, PlayOptions(remap={"/front/image": "/image"}))


def test_command_line_says_what_is_wrong(session, tmp_path, capsys) -> None:
    assert main(["player", str(tmp_path / "none")]) == 1
    assert "does not exist" in capsys.readouterr().err


DOCUMENTED = re.findall(
    r"^python -m dimm_ros\.replay\.player (.*)$",
    (Path(__file__).parents[2] / "docs" / "ros.md").read_text("utf-8"),
    re.MULTILINE,
)


@pytest.mark.parametrize("command", DOCUMENTED)
@pytest.mark.parametrize(
    "ros", [[], ["--ros-args", "-r", "__ns:=/robot1", "-r", "/tf:=tf", "--"]], ids=["alone", "with ROS arguments"]
)
def test_documented_commands_do_what_they_say(session, tmp_path, capsys, command, ros) -> None:
    """Through main, as the shell gives them: the topic is remapped and the recorded map -> odom left out."""
    recorded, played = re.search(r"--remap (\S+):=(\S+)", command).groups()
    path = record(tmp_path / "bag", recorded)
    namespace = "/robot1" if ros else ""
    images, transforms, clocks = [], [], []
    node = session.node
    node.create_subscription(Image, played, images.append, 10)
    node.create_subscription(
        TFMessage, f"{namespace}/tf", lambda message: transforms.extend(message.transforms), DYNAMIC_QOS
    )
    node.create_subscription(Clock, "/clock", clocks.append, 1000)
    status = node.create_publisher(LocalizationStatus, f"{namespace}/status", 10)
    timer = node.create_timer(0.02, lambda: status.publish(LocalizationStatus(map_name="kitchen")))
    words = [str(path) if word == "BAG" else word for word in shlex.split(command)]
    assert main(["player", *ros, *words]) == 0
    timer.cancel()
    wait(lambda: len(images) == 5 and len(transforms) == 5 and clocks)
    assert {one.header.frame_id for one in transforms} == {"odom"}
    assert capsys.readouterr().out == "Played 5 images.\n"


def test_there_is_a_documented_command() -> None:
    assert len(DOCUMENTED) == 1
