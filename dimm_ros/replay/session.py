"""A localizer in a process of its own and a bag played into it, on this computer only: the demo's and the tests'
way.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from dimm_ros.replay.collector import Broadcast, Collector, PublishedPose, Report
from dimm_ros.replay.player import BagPlayer, Played, PlayOptions
from dimm_ros.ros.lifecycle import spin

#: Domains whose ports lie below those that the system hands out to anyone.
_DOMAINS = range(1, 100)


def free_domain_id() -> int:
    """A ROS domain that nobody on this computer uses: the ports of its first participant can be bound."""
    for domain in random.SystemRandom().sample(list(_DOMAINS), len(_DOMAINS)):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as discovery,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as data,
        ):
            try:
                discovery.bind(("127.0.0.1", 7410 + 250 * domain))
                data.bind(("127.0.0.1", 7411 + 250 * domain))
            except OSError:
                continue
            return domain
    raise OSError("all ROS domains are in use on this computer")


def find_config(name: str) -> Path | None:
    """A file of the package's ``config`` folder: of the source checkout, or where colcon installed it."""
    place = Path(__file__).resolve().parents[2] / "config" / name
    if not place.is_file():
        try:
            from ament_index_python.packages import get_package_share_directory

            place = Path(get_package_share_directory("dimm_ros")) / "config" / name
        except (ImportError, LookupError, OSError):  # no ROS, not built with colcon, its workspace not sourced
            return None
    return place if place.is_file() else None


def local_environment(domain_id: int) -> dict[str, str]:
    """Environment variables that keep a process's DDS on this computer, with room for images in shared memory."""
    variables = {"ROS_DOMAIN_ID": str(domain_id), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    profile = find_config("fastdds_localhost.xml")
    if profile is not None:
        variables |= {"FASTRTPS_DEFAULT_PROFILES_FILE": str(profile), "FASTDDS_DEFAULT_PROFILES_FILE": str(profile)}
    return variables


class LocalSession:
    """A node of this process in a domain of its own, spun on a thread; a context manager.

    Attributes:
        node: the node.
        context: its context, for further nodes.
        domain_id: its domain.
    """

    node: Node
    context: Context

    def __init__(self, name: str = "dimm_session", domain_id: int | None = None) -> None:
        self._name = name
        self.domain_id = free_domain_id() if domain_id is None else domain_id
        self._variables = local_environment(self.domain_id)

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment variables, for a child in the same domain."""
        return {**os.environ, **self._variables}

    def __enter__(self) -> LocalSession:
        self._saved = {name: os.environ.get(name) for name in self._variables}
        os.environ.update(self._variables)  # the middleware reads them when the participant is made
        self.context = Context()
        rclpy.init(
            args=[],
            context=self.context,
            domain_id=self.domain_id,
            signal_handler_options=rclpy.SignalHandlerOptions.NO,
        )
        self.node = Node(self._name, context=self.context, use_global_arguments=False)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name=self._name, daemon=True)
        self._thread.start()
        return self

    def add(self, node: Node) -> None:
        """Spin another node of this context on the session's thread."""
        self._executor.add_node(node)
        self._executor.wake()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.context.try_shutdown()
        self._thread.join(10.0)
        self._executor.shutdown()
        self.node.destroy_node()
        for name, value in self._saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def call(self, function: Callable[[], None], timeout_s: float = 30.0) -> None:
        """Have something done on the session's thread, such as what destroys publishers and subscriptions, and wait for
        it.
        """
        done = threading.Event()
        self._executor.create_task(lambda: (function(), done.set()))
        done.wait(timeout_s)

    def _spin(self) -> None:
        spin(self._executor, self.context)


class LocalizerProcess:
    """The localizer node in a process of its own; a context manager that ends it.

    Args:
        environment: of the process, see ``LocalSession.environment``.
        parameters: dotted names and values.
        remap: the node's names -> topics, such as ``{"image": "/camera/image_raw"}``.
        log: file for what it prints; None lets it print here.
    """

    def __init__(
        self, environment: dict[str, str], parameters: dict[str, Any], remap: dict[str, str], log: Path | None = None
    ) -> None:
        self._environment, self._parameters, self._remap, self._log = environment, parameters, remap, log

    def __enter__(self) -> LocalizerProcess:
        self._folder = tempfile.TemporaryDirectory(prefix="dimm_localizer_")
        # JSON is YAML, and a file needs no quoting of what a path may contain.
        file = Path(self._folder.name) / "parameters.yaml"
        file.write_text(json.dumps({"/**": {"ros__parameters": self._parameters}}), encoding="utf-8")
        command = [sys.executable, "-m", "dimm_ros.ros.node", "--ros-args", "--params-file", str(file)]
        for name, topic in self._remap.items():
            command += ["-r", f"{name}:={topic}"]
        output = None if self._log is None else open(self._log, "wb")
        try:
            self.process = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        finally:
            if output is not None:
                output.close()  # the child has its own
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._folder.cleanup()

    def stop(self) -> int:
        """Interrupt the process as Ctrl-C does; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(20.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@dataclass(frozen=True)
class Replay:
    """Messages that the node published during a replayed bag.

    Attributes:
        answers: published poses.
        reports: status messages, those of the watchdog included.
        broadcasts: transforms of /tf.
        played: what was played, and when.
    """

    answers: tuple[PublishedPose, ...]
    reports: tuple[Report, ...]
    broadcasts: tuple[Broadcast, ...]
    played: Played

    def latencies_ms(self) -> list[float]:
        """Milliseconds from the publication of an image to the arrival of its pose, for each answer."""
        published = self.played.images
        return [
            (answer.received_s - published[answer.stamp_ns]) * 1e3
            for answer in self.answers
            if answer.stamp_ns in published
        ]


def replay_bag(
    bag: str | Path,
    *,
    parameters: dict[str, Any],
    remap: dict[str, str],
    options: PlayOptions,
    log: Path | None = None,
    progress: Callable[[int], object] | None = None,
) -> Replay:
    """Start the localizer in its own process, play a bag into it over DDS and gather what it publishes.

    Args:
        bag: the bag.
        parameters: of the node, ``map`` at least. Simulated time follows ``options.clock``.
        remap: the node's topics -> the bag's, such as ``{"image": "/camera/image_raw", "camera_info":
            "/camera/camera_info"}``.
        options: how to play.
        log: file for the node's log.
        progress: called with the number of images published so far.

    Raises:
        DataError: the bag cannot be read.
        DimmError: the node's map is not loaded in time; the sentence has its reason.
    """
    with LocalSession("dimm_replay") as session:
        collector = Collector(session.node)
        player = BagPlayer(session.node, bag, options, collector)
        parameters = {**parameters, "use_sim_time": options.clock}
        with LocalizerProcess(session.environment, parameters, remap, log):
            played = player.play(progress)
            # A pose is published before its status, but on a topic of its own.
            accepted = {report.stamp_ns for report in collector.reports if report.message.accepted}
            collector.wait_for(lambda: accepted <= {answer.stamp_ns for answer in collector.answers}, 5.0)
    return Replay(collector.answers, collector.reports, collector.broadcasts, played)
