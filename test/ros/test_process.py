"""The localizer's process: what its command line answers, and how it ends."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rclpy.signals import uninstall_signal_handlers

from dimm_ros.replay import session as local
from dimm_ros.replay.session import LocalSession
from dimm_ros.ros import subscriptions
from dimm_ros.ros.node import main
from dimm_ros.ros.parameters import declarations

from .robot import eventually

#: A localizer whose map is never loaded, and a thread of some library that never ends.
ENDLESS = """
import sys, threading
import dimm_ros.atlas
from dimm_ros.ros.node import main

def load(entry, **options):
    print("loading", flush=True)
    threading.Event().wait()

dimm_ros.atlas.open_map = load
threading.Thread(target=threading.Event().wait).start()
sys.exit(main(["localizer", "--ros-args", "-p", "map:=hall"]))
"""


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch) -> Iterator[None]:
    """What ``main`` sets for its process stays out of this one."""
    monkeypatch.setattr(sys, "setswitchinterval", lambda seconds: None)
    monkeypatch.setitem(os.environ, "OMP_WAIT_POLICY", os.environ["OMP_WAIT_POLICY"])
    yield
    uninstall_signal_handlers()  # try_shutdown leaves them


def test_help(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["localizer", "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "--ros-args -p map:=" in said
    assert all(f"  {one.name}: " in said for one in declarations())


def test_arguments_that_are_not_ros(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["localizer", "--map", "hall.dimm", "--ros-args", "-p", "map:=hall.dimm"])
    assert ended.value.code == 2 and "unrecognized arguments: --map hall.dimm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--log-level", "loud"], "one of debug, info, warn, error or fatal"),
        (["--log-level"], "one of debug, info, warn, error or fatal"),
        (["-p", "map"], "'-p map'; write -p NAME:=VALUE"),
        (["-r", "image:=a-b"], "'-r image:=a-b'; write -r NAME:=TOPIC"),
        (["-r", "__node:=a-b"], "'-r __node:=a-b'; write -r NAME:=TOPIC"),
        (["--colour"], "does not know ['--colour']"),
        (["--params-file", "none.yaml"], "none.yaml"),
        (["-p", "use_sim_time:=maybe"], "'use_sim_time' to 'maybe'"),
    ],
)
def test_ros_arguments_that_cannot_be_read_are_one_sentence(capsys, arguments, words) -> None:
    assert main(["localizer", "--ros-args", *arguments]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("localizer: ") and words in said and said.endswith(".")
    assert ".c:" not in said and "lexeme" not in said  # rcl's own places and grammar


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("localizer:\n  ros__parameters:\n    map: [hall\n", "line"),
        ("localizer:\n  map: hall\n", "Cannot have a value before ros__parameters at line 2"),
        ("localizer:\n  ros__parameters:\n    maps: [hall, 1]\n", "Sequence should be of same type"),
    ],
    ids=["YAML", "no ros__parameters", "mixed list"],
)
def test_a_malformed_parameter_file_is_one_sentence(capsys, tmp_path: Path, text, words) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text(text, encoding="utf-8")
    assert main(["localizer", "--ros-args", "--params-file", str(file)]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("localizer: ")]
    assert len(said) == 1 and words in said[0] and str(file) in said[0]
    assert "config/localizer.yaml shows the form" in said[0]


def _ended_and_unseen(number: int) -> bool:
    """Whether a node that is told to end was seen before and soon is not any more, in a domain of its own."""
    with LocalSession("dimm_watcher") as session:
        process = subprocess.Popen(
            [sys.executable, "-c", ENDLESS], env=session.environment, stdout=subprocess.PIPE, text=True
        )

        def seen() -> bool:
            return "localizer" in session.node.get_node_names()

        try:
            assert process.stdout.readline() == "loading\n"
            found = eventually(seen, 30.0)
            process.send_signal(number)
            assert process.wait(9.0) == 0
            return found and eventually(lambda: not seen(), 9.0)
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_process_ends_at_once_and_leaves_the_graph(number, monkeypatch) -> None:
    """Whatever threads go on; others are told, and need not wait until its lease of twenty seconds ends.

    They are told by one datagram, which a busy machine may lose: once in four tries it must arrive. Over UDP alone:
    what killed processes leave in shared memory makes Fast DDS deaf at times to who comes next (rmw_fastrtps#699).
    """
    monkeypatch.setattr(local, "find_config", lambda name: None)  # the profile has both
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    assert any(_ended_and_unseen(number) for _ in range(4))


def test_events_of_the_middleware_have_another_module_in_humble(monkeypatch) -> None:
    """``rclpy.event_handler`` came with Iron."""
    monkeypatch.setitem(sys.modules, "rclpy.event_handler", None)
    names = {"SubscriptionEventCallbacks": object(), "UnsupportedEventTypeError": object()}
    monkeypatch.setitem(sys.modules, "rclpy.qos_event", type(sys)("rclpy.qos_event"))
    vars(sys.modules["rclpy.qos_event"]).update(names)
    spec = importlib.util.spec_from_file_location("subscriptions_of_humble", subscriptions.__file__)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    assert {name: getattr(module, name) for name in names} == names
