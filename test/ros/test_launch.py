"""The launch files, run with stand-ins for launch and launch_ros, which pip does not have.

A stand-in records how each action was made, so the tests see what ros2 launch would: declared and used arguments, the
node's executable, parameters and remappings.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
PACKAGES = ("launch", "launch_ros")


class Made:
    """Something that a launch file made: its class's name and arguments."""

    def __init__(self, kind: str, arguments: tuple, options: dict) -> None:
        self.kind, self.arguments, self.options = kind, arguments, options

    def perform(self, context: dict) -> str:
        return context[self.arguments[0]]

    def parts(self) -> Iterator[Made]:
        """This and everything in it."""
        yield self
        yield from contents([self.arguments, self.options])


def contents(value: object) -> Iterator[Made]:
    if isinstance(value, Made):
        yield from value.parts()
    elif isinstance(value, dict):
        yield from contents(list(value.items()))
    elif isinstance(value, (list, tuple, type({}.items()))):
        for one in value:
            yield from contents(one)


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Any module of launch and launch_ros; each name in it records its calls."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in PACKAGES:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda kind: type(kind, (), {"__new__": lambda cls, *args, **options: Made(kind, args, options)})
        return module

    def exec_module(self, module) -> None:
        pass


@pytest.fixture
def description(monkeypatch):
    """Loads a launch file and returns its LaunchDescription as recorded."""
    finder = StandIns()
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])

    def load(name: str) -> Made:
        spec = importlib.util.spec_from_file_location(name.replace(".", "_"), LAUNCH / name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.generate_launch_description()

    yield load
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]


def every(made: Made, kind: str) -> list[Made]:
    return [one for one in made.parts() if one.kind == kind]


def declared(made: Made) -> dict[str, Made]:
    return {one.arguments[0]: one for one in every(made, "DeclareLaunchArgument")}


def run_opaque(made: Made, **values: str) -> tuple[Made, list[Made]]:
    """The node that the opaque function makes with these launch arguments, and what else it makes."""
    (opaque,) = every(made, "OpaqueFunction")
    *handlers, node = opaque.options["function"](values)
    return node, handlers


def used(*mades: Made) -> set[str]:
    return {one.arguments[0] for made in mades for one in every(made, "LaunchConfiguration")}


def test_localization_declares_what_it_uses(description) -> None:
    made = description("localization.launch.py")
    node, handlers = run_opaque(made, map="kitchen")
    assert used(made, node, *handlers) == set(declared(made))
    assert set(declared(made)) == {
        "namespace", "use_sim_time", "params_file", "autostart", "log_level", "use_respawn", "map", "image", "camera_info", "fastdds_profile",
    }
    for argument in declared(made).values():
        assert argument.options["description"] and "default_value" in argument.options


def test_localization_runs_the_node(description) -> None:
    made = description("localization.launch.py")
    node, _ = run_opaque(made, map="")
    assert (node.kind, node.options["package"], node.options["executable"]) == ("LifecycleNode", "dimm_ros", "localizer")
    assert {"name", "namespace"} <= set(node.options)  # a LifecycleNode needs both
    remapped = dict(node.options["remappings"])
    assert remapped["/tf"] == "tf" and remapped["/tf_static"] == "tf_static" and {"image", "camera_info"} <= set(remapped)
    file, overrides = node.options["parameters"]
    assert file.arguments == ("params_file",) and "map" not in overrides  # the parameter file's map stays
    assert "map" in run_opaque(made, map="/maps/kitchen.safetensors")[0].options["parameters"][1]


def test_autostart_drives_the_lifecycle(description) -> None:
    """On every start of the process, and again while the map cannot be loaded; the node must not drive itself beside that."""
    from lifecycle_msgs.msg import Transition

    node, handlers = run_opaque(description("localization.launch.py"), map="kitchen")
    assert node.options["parameters"][1]["autostart"] is False
    assert {handler.kind for handler in handlers} == {"RegisterEventHandler"}
    for handler in handlers:
        assert [one.arguments[0] for one in every(handler.options["condition"], "LaunchConfiguration")] == ["autostart"]
    starts = [one for handler in handlers for one in every(handler, "OnProcessStart")]
    transitions = [one for handler in handlers for one in every(handler, "OnStateTransition")]
    asked = lambda part: [one.options["transition_id"] for one in every(part, "ChangeState")]  # noqa: E731
    assert [asked(one) for one in starts] == [[Transition.TRANSITION_CONFIGURE]] and starts[0].options["target_action"] is node
    assert {(one.options["start_state"], one.options["goal_state"]): asked(one) for one in transitions} == {
        ("configuring", "inactive"): [Transition.TRANSITION_ACTIVATE], ("configuring", "unconfigured"): [Transition.TRANSITION_CONFIGURE],
    }
    assert all(one.options["target_lifecycle_node"] is node for one in transitions)
    (delay,) = every(transitions[1], "TimerAction")
    assert delay.options["period"] >= 1.0


def test_parameters_given_by_launch_exist(description) -> None:
    from dimm_ros.ros.parameters import declarations

    overrides = run_opaque(description("localization.launch.py"), map="kitchen")[0].options["parameters"][1]
    assert set(overrides) - {"use_sim_time"} <= {declaration.name for declaration in declarations()}


def test_files_that_launch_names_exist(description) -> None:
    for name in ("localization.launch.py", "replay.launch.py"):
        for join in every(description(name), "PathJoinSubstitution"):
            parts = [part for part in join.arguments[0] if isinstance(part, str)]
            if parts:
                assert any((LAUNCH.parent / folder / parts[-1]).exists() for folder in (".", "config", "launch")), parts


def test_replay_hands_on_declared_arguments(description) -> None:
    made = description("replay.launch.py")
    assert used(made) == set(declared(made))
    assert {"bagfile", "visualize"} <= set(declared(made))
    (include,) = every(made, "IncludeLaunchDescription")
    handed = dict(include.options["launch_arguments"])
    assert set(handed) <= set(declared(description("localization.launch.py"))) and handed["use_sim_time"] == "true"


def test_replay_calls_the_player_as_it_is(description) -> None:
    """The player's own parser accepts the arguments that the launch file gives."""
    from dimm_ros.ros.player import _arguments

    player = next(one for one in every(description("replay.launch.py"), "Node") if one.options["executable"] == "player")
    values = {"bagfile": "drive", "rate": "2.0", "drop_transforms": "map:odom"}
    given = _arguments([one if isinstance(one, str) else values[one.arguments[0]] for one in player.options["arguments"]])
    assert (str(given.bag), given.rate, given.clock, given.drop_transforms) == ("drive", 2.0, True, ["map:odom"])


def test_executables_are_installed(description) -> None:
    cmake = (LAUNCH.parent / "CMakeLists.txt").read_text(encoding="utf-8")
    for name in ("localization.launch.py", "replay.launch.py"):
        made = description(name)
        nodes = [*every(made, "Node"), *([run_opaque(made, map="")[0]] if every(made, "OpaqueFunction") else [])]
        for node in nodes:
            if node.options["package"] == "dimm_ros":
                assert f'"{node.options["executable"]}=' in cmake
