"""The launch files, run with stand-ins for launch and launch_ros, which pip does not have.

A stand-in records how each action was made, so the tests see what ros2 launch would: declared and used arguments, the
node's executable, parameters and remappings.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.context import Context
from rclpy.node import Node

from dimm_ros.doctor import live_ros

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
PACKAGES = ("launch", "launch_ros")
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")

#: Sections of config/nav2_localization.yaml that Nav2's own launch files put under a namespace.
NAV2_OWN = {"bt_navigator", "local_costmap", "global_costmap", "behavior_server"}


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
        module.__getattr__ = lambda kind: type(
            kind, (), {"__new__": lambda cls, *args, **options: Made(kind, args, options)}
        )
        return module

    def exec_module(self, module) -> None:
        pass


@pytest.fixture
def description(monkeypatch):
    """Loads a launch file and returns its LaunchDescription as recorded."""
    finder = StandIns()
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        monkeypatch.delitem(sys.modules, name)  # ROS's own pytest plugins have loaded the real ones
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
    defaults = {"params_file": "none.yaml", "fastdds_profile": "true"}
    *others, node = opaque.options["function"]({**defaults, **values})
    return node, others


def used(*mades: Made) -> set[str]:
    return {one.arguments[0] for made in mades for one in every(made, "LaunchConfiguration")}


@pytest.fixture
def no_profile(monkeypatch):
    """An environment in which nobody has exported a profile of Fast DDS."""
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def loaded(monkeypatch) -> types.ModuleType:
    """A launch that was loaded before, as ROS's pytest plugins do."""
    real = types.ModuleType("launch")
    monkeypatch.setitem(sys.modules, "launch", real)
    return real


def test_stand_ins_take_the_place_of_what_is_loaded(loaded, description) -> None:
    assert description("localization.launch.py").kind == "LaunchDescription"
    assert sys.modules["launch"] is not loaded


def test_localization_declares_what_it_uses(description, no_profile) -> None:
    made = description("localization.launch.py")
    node, others = run_opaque(made, map="kitchen")
    read = set()

    class Asked(dict):
        def __getitem__(self, name):
            read.add(name)
            return super().__getitem__(name)

    every(made, "OpaqueFunction")[0].options["function"](Asked(map="", params_file="none.yaml", fastdds_profile="true"))
    assert used(made, node, *others) | read == set(declared(made))
    assert set(declared(made)) == {
        "namespace",
        "use_sim_time",
        "params_file",
        "autostart",
        "log_level",
        "use_respawn",
        "map",
        "image",
        "camera_info",
        "fastdds_profile",
    }
    for argument in declared(made).values():
        assert argument.options["description"] and "default_value" in argument.options


def test_localization_runs_the_node(description) -> None:
    made = description("localization.launch.py")
    node, _ = run_opaque(made, map="")
    assert (node.kind, node.options["package"], node.options["executable"]) == ("Node", "dimm_ros", "localizer")
    assert {"name", "namespace"} <= set(node.options)
    remapped = dict(node.options["remappings"])
    assert (
        remapped["/tf"] == "tf" and remapped["/tf_static"] == "tf_static" and {"image", "camera_info"} <= set(remapped)
    )
    file, overrides = node.options["parameters"]
    assert file == "none.yaml" and "map" not in overrides  # the parameter file's map stays
    assert "map" in run_opaque(made, map="/maps/kitchen.safetensors")[0].options["parameters"][1]


def test_the_node_drives_its_own_start(description) -> None:
    """Launch hands autostart on and registers nothing: its handlers would wait for a dead process after a crash."""
    made = description("localization.launch.py")
    node, others = run_opaque(made, map="kitchen")
    autostart = node.options["parameters"][1]["autostart"]
    assert autostart.options["value_type"] is bool and autostart.arguments[0].arguments == ("autostart",)
    assert declared(made)["autostart"].options["default_value"] == "true"
    assert {other.kind for other in others} <= {"SetEnvironmentVariable"} and not every(made, "RegisterEventHandler")
    assert node.options["respawn"].arguments == ("use_respawn",)


def parameter_in(namespace: str, file: str) -> float | None:
    """tf_rate that rcl gives to a node called localizer in a namespace."""
    context = Context()
    arguments = ["--ros-args", "--params-file", file, "-r", f"__ns:={namespace}"]
    rclpy.init(args=arguments, context=context, signal_handler_options=rclpy.SignalHandlerOptions.NO)
    try:
        node = Node("localizer", context=context, automatically_declare_parameters_from_overrides=True)
        return node.get_parameter("tf_rate").value if node.has_parameter("tf_rate") else None
    finally:
        context.try_shutdown()


class TestProfile:
    """Fast DDS 2 reads one variable and Fast DDS 3 another; what the user exported stays."""

    def variables(self, description, **values: str) -> dict[str, str]:
        _, others = run_opaque(description("localization.launch.py"), map="", **values)
        return {
            one.arguments[0]: one.arguments[1].arguments[0][-1]
            for one in others
            if one.kind == "SetEnvironmentVariable"
        }

    def test_both_versions_are_told(self, description, no_profile) -> None:
        assert self.variables(description) == dict.fromkeys(PROFILE_VARIABLES, "fastdds.xml")

    def test_it_can_be_left_out(self, description, no_profile) -> None:
        assert self.variables(description, fastdds_profile="false") == {}

    @pytest.mark.parametrize("exported", PROFILE_VARIABLES)
    def test_the_users_own_stays(self, description, no_profile, monkeypatch, exported) -> None:
        monkeypatch.setenv(exported, "/etc/robot/dds.xml")
        assert self.variables(description) == {}

    @pytest.mark.parametrize("exported", PROFILE_VARIABLES)
    def test_the_doctor_knows_both(self, no_profile, monkeypatch, exported) -> None:
        monkeypatch.setattr(live_ros, "get_rmw_implementation_identifier", lambda: "rmw_fastrtps_cpp")
        assert exported in live_ros._environment()["profile"]
        monkeypatch.setenv(exported, "/etc/robot/dds.xml")
        assert "profile" not in live_ros._environment()


class TestParameterFile:
    def given(self, description, path: Path) -> dict | str:
        """What the node gets for a parameter file."""
        file = run_opaque(description("localization.launch.py"), map="", params_file=str(path), namespace="robot1")[
            0
        ].options["parameters"][0]
        return file if file == str(path) else yaml.safe_load(Path(file).read_text(encoding="utf-8"))

    @pytest.mark.parametrize("name", ["localizer", "/localizer"])
    def test_a_section_of_the_node_counts_under_any_namespace(self, description, tmp_path, name) -> None:
        path = tmp_path / "mine.yaml"
        section = {"ros__parameters": {"tf_rate": 5.0, "map": "2", "solver": {"rays": 100}}}
        path.write_text(yaml.safe_dump({name: section, "other": {"ros__parameters": {"x": 1}}}), encoding="utf-8")
        assert self.given(description, path) == {"/**/localizer": section, "other": {"ros__parameters": {"x": 1}}}

    @pytest.mark.parametrize(
        "text", ["/**:\n  ros__parameters: {}\n", "/**/localizer: {}\n", "", "[1, 2]", "a: [", "\0"]
    )
    def test_any_other_file_is_handed_on(self, description, tmp_path, text) -> None:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        assert self.given(description, path) == str(path)

    @pytest.mark.parametrize("namespace", ["/", "/robot1"])
    @pytest.mark.usefixtures("session")  # a domain of its own
    def test_rcl_agrees(self, description, tmp_path, namespace) -> None:
        path = tmp_path / "mine.yaml"
        path.write_text("localizer:\n  ros__parameters: {tf_rate: 5.0}\n", encoding="utf-8")
        copy = run_opaque(description("localization.launch.py"), map="", params_file=str(path))[0].options[
            "parameters"
        ][0]
        assert parameter_in(namespace, copy) == 5.0
        assert parameter_in(namespace, str(path)) == (5.0 if namespace == "/" else None)  # without the copy

    def test_our_own_files_count_under_any_namespace(self, description) -> None:
        """rcl compares a section's name with the node's full name."""
        sections = [
            name
            for file in (LAUNCH.parent / "config").glob("*.yaml")
            for name in yaml.safe_load(file.read_text(encoding="utf-8"))
            if name.rpartition("/")[2] not in NAV2_OWN
        ]
        assert len(sections) == 5 and all(name.startswith("/**") for name in sections)


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
    assert {"bagfile", "visualize", "namespace"} <= set(declared(made))
    (include,) = every(made, "IncludeLaunchDescription")
    handed = dict(include.options["launch_arguments"])
    assert set(handed) <= set(declared(description("localization.launch.py"))) and handed["use_sim_time"] == "true"


def test_replay_is_whole_under_a_namespace(description) -> None:
    """The player waits for the localizer's status, which lies in the namespace, and TF goes there, for RViz too."""
    made = description("replay.launch.py")
    handed = dict(every(made, "IncludeLaunchDescription")[0].options["launch_arguments"])
    nodes = every(made, "Node")
    assert [node.options["executable"] for node in nodes] == ["player", "rviz2"]
    for namespace in (handed["namespace"], *(node.options["namespace"] for node in nodes)):
        assert namespace.kind == "LaunchConfiguration" and namespace.arguments == ("namespace",)
    for node in nodes:
        assert dict(node.options["remappings"]) == {"/tf": "tf", "/tf_static": "tf_static"}


def test_replay_checks_before_it_starts_anything(description, monkeypatch) -> None:
    import ament_index_python.packages as index

    entities = [*description("replay.launch.py").arguments[0]]
    kinds = [entity.kind for entity in entities]
    check = entities[kinds.index("OpaqueFunction")]
    assert kinds.index("OpaqueFunction") < min(kinds.index("IncludeLaunchDescription"), kinds.index("Node"))
    assert check.options["condition"].arguments[0].arguments == ("visualize",)
    monkeypatch.setattr(index, "get_package_prefix", lambda name: "/opt/ros")
    check = every(description("replay.launch.py"), "OpaqueFunction")[0].options["function"]
    assert check({}) is None

    def missing(name: str) -> str:
        raise index.PackageNotFoundError(name)

    monkeypatch.setattr(index, "get_package_prefix", missing)
    check = every(description("replay.launch.py"), "OpaqueFunction")[0].options["function"]
    with pytest.raises(RuntimeError, match=r"^rviz2 is not installed; .* visualize:=false\.$"):
        check({})


def test_replay_ends_together(description) -> None:
    """Whichever process ends first; before that process can start, launch must listen."""
    entities = [*description("replay.launch.py").arguments[0]]
    kinds = [entity.kind for entity in entities]
    (end,) = every(description("replay.launch.py"), "OnProcessExit")
    assert "target_action" not in end.options and end.options["handle_once"] is True
    assert [one.kind for one in end.options["on_exit"]] == ["Shutdown"]
    assert kinds.index("RegisterEventHandler") < kinds.index("IncludeLaunchDescription")


def test_replay_calls_the_player_as_it_is(description) -> None:
    """The player's own parser accepts the arguments that the launch file gives."""
    from dimm_ros.replay.player import _arguments

    player = next(
        one for one in every(description("replay.launch.py"), "Node") if one.options["executable"] == "player"
    )
    values = {"bagfile": "drive", "rate": "2.0", "drop_transforms": "map:odom"}
    given = _arguments(
        [one if isinstance(one, str) else values[one.arguments[0]] for one in player.options["arguments"]]
    )
    assert (str(given.bag), given.rate, given.clock, given.drop_transforms) == ("drive", 2.0, True, ["map:odom"])


def test_documented_launch_commands_give_what_is_declared(description) -> None:
    """Of every `ros2 launch dimm_ros` in a document or a help page: the file, the arguments, and none missing."""
    pages = [
        LAUNCH.parent / "README.md",
        *(LAUNCH.parent / "docs").glob("*.md"),
        *LAUNCH.glob("*.py"),
        *(LAUNCH.parent / "dimm_ros").rglob("*.py"),
    ]
    commands = 0
    for page in pages:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for name, words in re.findall(r"ros2 launch dimm_ros (\S+\.launch\.py)([^\n`\"]*)", text):
            known = declared(description(name))
            given = re.findall(r"(\w+):=", words)
            assert set(given) <= set(known), f"{page.name}: {name}{words}"
            needed = {argument for argument, made in known.items() if "default_value" not in made.options}
            assert not given or words.endswith(" ") or needed <= set(given), f"{page.name}: {name}{words}"
            commands += 1
    assert commands >= 6


def test_executables_are_installed(description) -> None:
    cmake = (LAUNCH.parent / "CMakeLists.txt").read_text(encoding="utf-8")
    for name in ("localization.launch.py", "replay.launch.py"):
        made = description(name)
        nodes = every(made, "Node") or [run_opaque(made, map="")[0]]
        for node in nodes:
            if node.options["package"] == "dimm_ros":
                assert f'"{node.options["executable"]}=' in cmake
