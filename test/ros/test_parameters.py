"""One parameter tree: the YAML, the code's defaults and what ROS is told are the same."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from rclpy.parameter import Parameter

from dimm_ros.config import AcceptanceConfig, SolverConfig
from dimm_ros.errors import ParameterError
from dimm_ros.ros.node import LocalizerNode
from dimm_ros.ros.parameters import NodeConfig, config_from, declarations, default_yaml, descriptor_of

from .waiting import PATIENCE

YAML = Path(__file__).resolve().parents[2] / "config" / "localizer.yaml"


def flat(tree: dict, prefix: str = "") -> dict:
    result = {}
    for name, value in tree.items():
        result |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return result


def test_yaml_is_the_defaults() -> None:
    listed = flat(yaml.safe_load(YAML.read_text(encoding="utf-8"))["/**"]["ros__parameters"])
    defaults = flat(NodeConfig().model_dump())
    assert listed == defaults
    assert {name: type(value) for name, value in listed.items()} == {
        name: type(value) for name, value in defaults.items()
    }


def test_yaml_is_up_to_date() -> None:
    assert YAML.read_text(encoding="utf-8") == default_yaml(), (
        "run: python -m dimm_ros.ros.parameters > config/localizer.yaml"
    )


def test_every_parameter_is_described_and_every_number_bounded() -> None:
    for declaration in declarations():
        assert len(declaration.description) > 15, declaration.name
        if isinstance(declaration.default, (int, float)) and not isinstance(declaration.default, bool):
            assert declaration.bounds is not None and declaration.bounds[0] > -math.inf, declaration.name
            assert declaration.bounds[0] <= declaration.default <= declaration.bounds[1]


def test_solver_and_acceptance_are_the_cores() -> None:
    names = {declaration.name for declaration in declarations()}
    assert {f"solver.{name}" for name in SolverConfig.model_fields} <= names
    assert {f"acceptance.{name}" for name in AcceptanceConfig.model_fields} <= names


def test_descriptor_carries_bounds() -> None:
    by_name = {declaration.name: descriptor_of(declaration) for declaration in declarations()}
    rate = by_name["tf_rate"]
    assert (rate.floating_point_range[0].from_value, rate.floating_point_range[0].to_value) == (0.1, 200.0)
    assert "while the node is unconfigured" in rate.additional_constraints and not rate.read_only
    hypotheses = by_name["solver.hypotheses"]
    assert (hypotheses.integer_range[0].from_value, hypotheses.integer_range[0].to_value) == (4, 4096)
    assert "unconfigured" not in hypotheses.additional_constraints
    assert by_name["tf_mode"].additional_constraints.startswith("one of map_odom, map_base, none;")


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("tf_mode", "both", "map_odom"),
        ("max_image_age", -1.0, "greater than or equal to 0"),
        ("lost_after", 0.0, "greater than 0"),
        ("solver.hypotheses", 3, "greater than or equal to 4"),
        ("colour", "red", "colour"),
        ("solver.colour", 1, "solver.colour"),
    ],
)
def test_bad_value_is_one_sentence(name: str, value: object, words: str) -> None:
    with pytest.raises(ParameterError) as caught:
        config_from({name: value})
    assert words in str(caught.value) and f"'{name}'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("tf_rate", 1000.0, "at least 0.1, at most 200"),
        ("tf_rate", 20, "must be a float, such as 20.0"),
        ("solver.hypotheses", 2, "at least 4"),
        ("map", 7, "must be a str"),
        ("maps", "hall", "must be a list of strings"),
        ("image_transport", "theora", "'raw' or 'compressed'"),
    ],
)
def test_node_refuses_a_bad_start_value(session, name: str, value: object, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        LocalizerNode(
            context=session.context, use_global_arguments=False, parameter_overrides=[Parameter(name, value=value)]
        )


def test_bad_parameter_ends_the_process_with_one_sentence(session, tmp_path) -> None:
    from dimm_ros.replay.session import LocalizerProcess

    log = tmp_path / "log"
    with LocalizerProcess(session.environment, {"tf_mode": "both"}, {}, log) as localizer:
        assert localizer.process.wait(PATIENCE) == 1
    assert "Parameter 'tf_mode' cannot be 'both'" in log.read_text() and "Traceback" not in log.read_text()
