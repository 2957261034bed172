"""``player``: a bag's messages over DDS without rosbag2, as they were recorded, byte for byte.

It can wait for the localizer's answer to each image (``wait_answers``), so that a slow computer still judges every
frame.
"""

from __future__ import annotations

import argparse
import importlib
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.interfaces import QosDurability

from dimm_ros.data.bag import COMPRESSED, IMAGE, TF_MESSAGE, Bag
from dimm_ros.errors import DataError, DimmError
from dimm_ros.replay.collector import Collector
from dimm_ros.ros.messages import to_stamp
from dimm_ros.ros.tf import DYNAMIC_QOS, STATIC_QOS

if TYPE_CHECKING:
    from rclpy.node import Node

_CLOCK_STEP_S = 0.01


@dataclass(frozen=True)
class PlayOptions:
    """How a bag is played.

    Attributes:
        rate: speed as a multiple of the recording's; 0 plays as fast as it can.
        topics: the bag's topics to play; None plays all whose type is installed.
        remap: bag's topic -> topic to publish on.
        drop_transforms: (parent, child) pairs left out of /tf and /tf_static, such as the recorded map -> odom that the
            localizer publishes itself.
        clock: publish the bag's time on /clock.
        wait_ready: begin once the localizer's map is loaded; needs the collector.
        wait_answers: begin the next image once the status of the one before has come; needs the collector.
        subscribers_s: how long to wait for a subscriber of the images before beginning, 0 for not at all.
        ready_s: how long a map may take to load.
        answer_s: how long an answer may take before the player goes on without it.
    """

    rate: float = 1.0
    topics: tuple[str, ...] | None = None
    remap: dict[str, str] = field(default_factory=dict)
    drop_transforms: tuple[tuple[str, str], ...] = ()
    clock: bool = False
    wait_ready: bool = False
    wait_answers: bool = False
    subscribers_s: float = 30.0
    ready_s: float = 180.0
    answer_s: float = 30.0


@dataclass(frozen=True)
class Played:
    """Messages that were played, and when.

    Attributes:
        images: stamp of each image in nanoseconds -> when it was published, ``time.monotonic()``.
        unanswered: stamps of images whose status did not come in time (``wait_answers``).
        skipped: topics that were left out because their type is not installed.
    """

    images: dict[int, float]
    unanswered: tuple[int, ...]
    skipped: tuple[str, ...]


class BagPlayer:
    """Publishes a bag's messages on a node.

    Args:
        node: makes the publishers; the caller spins it.
        path: the bag.
        options: how to play.
        collector: the localizer's answers, for ``wait_ready`` and ``wait_answers``.

    Raises:
        DataError: the bag cannot be read, or lacks a topic that the options name.
    """

    def __init__(self, node: Node, path: str | Path, options: PlayOptions, collector: Collector | None = None) -> None:
        self._node, self._options, self._collector = node, options, collector
        self._bag = Bag(Path(path))
        missing = [topic for topic in (*(options.topics or ()), *options.remap) if topic not in self._bag.topics]
        if missing:
            raise DataError(f"Bag '{Path(path).name}' has no topic {missing[0]}; {self._bag.listing()}.")
        self._connections, self._publishers, self._image_ids, skipped = [], {}, set(), []
        for topic, kind in self._bag.topics.items():
            if options.topics is not None and topic not in options.topics:
                continue
            message_type = _message_type(kind)
            if message_type is None:
                skipped.append(topic)
                continue
            for connection in self._bag.connections(topic):
                self._connections.append(connection)
                if topic not in self._publishers:
                    self._publishers[topic] = node.create_publisher(
                        message_type, options.remap.get(topic, topic), _qos(connection)
                    )
                if kind in (IMAGE, COMPRESSED):
                    self._image_ids.add(connection.id)
        self._skipped = tuple(skipped)
        self._clock = None
        if options.clock:
            from rosgraph_msgs.msg import Clock

            self._clock_type, self._clock = Clock, node.create_publisher(Clock, "/clock", 1)

    def play(self, progress: Callable[[int], object] | None = None) -> Played:
        """Play the bag from beginning to end; blocks.

        Args:
            progress: called with the number of images published so far.

        Raises:
            DimmError: nobody subscribes to the images, or the localizer's map is not loaded in time.
        """
        options = self._options
        if options.wait_ready:
            self._wait_until_ready()
        self._wait_for_subscribers()  # the localizer subscribes once its map is loaded
        images: dict[int, float] = {}
        unanswered: list[int] = []
        pending: int | None = None
        begun = first = None
        previous_ns = 0
        for connection, log_ns, data in self._bag.raw(self._connections):
            if not self._node.context.ok():
                break
            is_image = connection.id in self._image_ids
            if is_image and pending is not None and options.wait_answers:
                waited = time.monotonic()
                if not self._answered(pending, previous_ns):
                    unanswered.append(pending)
                begun += time.monotonic() - waited
            if begun is None:
                begun, first = time.monotonic(), log_ns
            self._pace(begun, first, log_ns)
            self._tick(log_ns)
            self._publishers[connection.topic].publish(self._without_dropped(connection, data))
            previous_ns = log_ns
            if is_image:
                pending = _stamp_ns(data)
                images[pending] = time.monotonic()
                if progress is not None:
                    progress(len(images))
        if pending is not None and options.wait_answers and not self._answered(pending, previous_ns):
            unanswered.append(pending)
        self._bag.close()
        return Played(images, tuple(unanswered), self._skipped)

    def _wait_for_subscribers(self) -> None:
        deadline = time.monotonic() + self._options.subscribers_s
        topics = {connection.topic for connection in self._connections if connection.id in self._image_ids}
        while self._options.subscribers_s > 0 and topics:
            # Camera and TF subscribers belong to the same node, so the images' tells that it is there.
            if any(self._publishers[topic].get_subscription_count() for topic in topics):
                return
            if time.monotonic() > deadline:
                names = ", ".join(sorted(self._publishers[topic].topic_name for topic in topics))
                raise DimmError(f"Nobody subscribes to {names}; start the localizer, or remap its image topic.")
            time.sleep(0.02)  # rclpy offers no event on this in Humble

    def _wait_until_ready(self) -> None:
        collector = self._need_collector()
        if collector.wait_for(
            lambda: any(report.message.map_name for report in collector.reports), self._options.ready_s
        ):
            return
        reports = collector.reports
        said = f"it says: {reports[-1].message.reason}" if reports else "it publishes no status"
        raise DimmError(f"The localizer was not ready after {self._options.ready_s:g} s; {said}")

    def _answered(self, stamp: int, log_ns: int) -> bool:
        """Wait for the status of an image; meanwhile the bag's clock stands still."""
        collector = self._need_collector()
        deadline = time.monotonic() + self._options.answer_s
        while not collector.wait_for(lambda: collector.report_of(stamp), 0.1):
            self._tick(log_ns)
            if time.monotonic() > deadline or not self._node.context.ok():
                return False
        return True

    def _need_collector(self) -> Collector:
        if self._collector is None:
            raise ValueError("wait_ready and wait_answers need a collector")
        return self._collector

    def _pace(self, begun: float, first_ns: int, log_ns: int) -> None:
        """Sleep until a message is due; the clock runs on meanwhile."""
        rate = self._options.rate
        if rate <= 0:
            return
        due = begun + (log_ns - first_ns) * 1e-9 / rate
        while (remaining := due - time.monotonic()) > 0:
            time.sleep(min(remaining, _CLOCK_STEP_S))
            self._tick(log_ns - round(max(0.0, due - time.monotonic()) * rate * 1e9))

    def _tick(self, log_ns: int) -> None:
        if self._clock is not None:
            self._clock.publish(self._clock_type(clock=to_stamp(log_ns)))

    def _without_dropped(self, connection, data) -> bytes:
        dropped = self._options.drop_transforms
        if not dropped or connection.msgtype != TF_MESSAGE:
            return bytes(data)
        message = deserialize_message(bytes(data), _message_type(TF_MESSAGE))
        pairs = {(parent.lstrip("/"), child.lstrip("/")) for parent, child in dropped}
        message.transforms = [
            one
            for one in message.transforms
            if (one.header.frame_id.lstrip("/"), one.child_frame_id.lstrip("/")) not in pairs
        ]
        return serialize_message(message)


def _qos(connection) -> QoSProfile:
    """Reliable, and latched where it was recorded so: such a publisher suits every subscriber."""
    if connection.topic.endswith("tf_static"):
        return STATIC_QOS
    if connection.msgtype == TF_MESSAGE:
        return DYNAMIC_QOS
    profiles = getattr(connection.ext, "offered_qos_profiles", None) or []
    latched = any(profile.durability == QosDurability.TRANSIENT_LOCAL for profile in profiles)
    durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    return QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=durability)


def _message_type(name: str) -> type | None:
    """The class of "package/msg/Name", None when its package is not installed."""
    package, _, message = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), message)
    except (ImportError, AttributeError):
        return None


def _stamp_ns(data) -> int:
    """Stamp of a serialised message that begins with a header."""
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return seconds * 10**9 + nanoseconds


def _pairs(separator: str, texts: list[str], option: str) -> Iterator[tuple[str, str]]:
    for text in texts:
        left, found, right = text.partition(separator)
        if not (left and found and right):
            raise DimmError(f"{option} takes FROM{separator}TO, got '{text}'.")
        yield left, right


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """The player's own words, and those for ROS: from ``--ros-args`` to ``--`` or the end.

    rclpy's ``remove_ros_args`` also takes away every FROM:=TO, which ``--remap`` needs.
    """
    own, ros, into_ros = [], [], False
    for word in words:
        into_ros = into_ros or word == "--ros-args"
        (ros if into_ros else own).append(word)
        into_ros = into_ros and word != "--"
    return own, ros


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="player", description="Play a ROS 2 bag over DDS, without rosbag2.")
    parser.add_argument("bag", type=Path)
    parser.add_argument("--rate", type=float, default=1.0, help="speed; 0 plays as fast as it can")
    parser.add_argument("--topics", nargs="+", metavar="TOPIC", help="only these topics of the bag")
    parser.add_argument("--remap", nargs="+", default=[], metavar="FROM:=TO")
    parser.add_argument(
        "--drop-transforms", nargs="+", default=[], metavar="PARENT:CHILD", help="leave these out of /tf"
    )
    parser.add_argument("--clock", action="store_true", help="publish the bag's time on /clock")
    parser.add_argument("--wait-ready", action="store_true", help="begin once the localizer's map is loaded")
    parser.add_argument(
        "--wait-answers", action="store_true", help="next image once the localizer answered the one before"
    )
    parser.add_argument("--no-wait", action="store_true", help="begin although nobody subscribes to the images")
    return parser.parse_args(arguments)


def main(args: list[str] | None = None) -> int:
    """Play a bag; returns the process's exit status.

    Args:
        args: the command line with the program's name in front; None takes this process's.
    """
    own, ros = _split((sys.argv if args is None else args)[1:])
    given = _arguments(own)
    rclpy.init(args=ros)
    node = rclpy.create_node("player")
    spinner = threading.Thread(target=_spin, args=(node,), daemon=True)
    try:
        options = PlayOptions(
            rate=given.rate,
            topics=tuple(given.topics) if given.topics else None,
            remap=dict(_pairs(":=", given.remap, "--remap")),
            drop_transforms=tuple(_pairs(":", given.drop_transforms, "--drop-transforms")),
            clock=given.clock,
            wait_ready=given.wait_ready,
            wait_answers=given.wait_answers,
            subscribers_s=0.0 if given.no_wait else 30.0,
        )
        collector = Collector(node) if given.wait_ready or given.wait_answers else None
        player = BagPlayer(node, given.bag, options, collector)
        spinner.start()
        played = player.play()
    except DimmError as error:
        print(f"player: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        rclpy.try_shutdown()
        if spinner.ident is not None:
            spinner.join(5.0)
    note = f", {len(played.unanswered)} unanswered" if given.wait_answers else ""
    print(f"Played {len(played.images)} images{note}.")
    return 0


def _spin(node: Node) -> None:
    try:
        rclpy.spin(node)
    except rclpy.executors.ExternalShutdownException:
        pass


if __name__ == "__main__":
    sys.exit(main())
