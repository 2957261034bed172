"""The node's parameters: one described, bounded and validated tree, shared with ``dimm_ros.config``.

``config/localizer.yaml`` is this tree's text: ``python -m dimm_ros.ros.parameters > config/localizer.yaml``.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from dimm_ros.config import AcceptanceConfig, GateConfig, SolverConfig
from dimm_ros.errors import ParameterError

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor
    from rclpy.node import Node

#: Smallest value of a parameter that must be positive: ROS ranges include their ends.
_POSITIVE = 1e-9

_LIVE = {"live": True}


class NodeConfig(BaseModel):
    """All parameters of the localizer node."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    map: str = Field(
        "",
        description="path or name of the map file that 'dimm map' wrote; of several maps, the one to begin with",
        json_schema_extra=_LIVE,
    )
    maps: list[str] = Field(
        [""],
        description="several maps, loaded at once: an image is localized in the one that it shows; names must differ",
        json_schema_extra=_LIVE,
    )
    map_folder: str = Field(
        "", description="where maps given by a name or a relative path are; empty is the node's working directory"
    )
    device: str = Field("auto", description="where the network runs: auto, cpu, cuda or cuda:N")
    weights: str = Field(
        "", description="path of the encoder's weights; empty looks in the user's cache and on the hub"
    )
    backend: Literal["torch", "onnx"] = Field(
        "torch", description="torch, or onnx for the network that 'dimm export' wrote beside each map"
    )
    onnx_provider: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto",
        description="what runs an onnx network; auto is cuda where it is here, else cpu; tensorrt takes minutes to "
        "start",
    )
    autostart: bool = Field(
        True,
        description="configure and activate without being told; false waits for the lifecycle service change_state",
    )
    cameras: list[str] = Field(
        [""],
        description="several cameras on one base, solved jointly: prefixes of the topics PREFIX/image and "
        "PREFIX/camera_info; empty for one",
    )
    sync_tolerance: float = Field(
        0.02, ge=0, le=1, description="most that stamps of several cameras' images of one time differ, seconds"
    )
    window: int = Field(
        1,
        ge=1,
        le=20,
        description="newest images solved jointly, linked by odometry; 1 takes each by itself",
        json_schema_extra=_LIVE,
    )
    track: float = Field(
        1.0,
        ge=0,
        le=60,
        description="seconds between full localizations while landmarks are followed at the camera's rate; 0 localizes "
        "each image in full",
        json_schema_extra=_LIVE,
    )
    focal: Literal["known", "unknown"] = Field(
        "known",
        description="known takes camera_info; unknown finds the focal length of a camera without calibration from its "
        "images",
    )
    image_transport: Literal["raw", "compressed"] = Field(
        "raw", description="type of the image topic: sensor_msgs/Image or CompressedImage"
    )
    image_reliability: Literal["best_effort", "reliable"] = Field(
        "best_effort", description="QoS of the image subscription; best_effort connects to every publisher"
    )
    publish_map: bool = Field(
        True,
        description="publish the loaded map's views and landmarks for RViz; false where others on the network must not "
        "have them",
    )
    max_image_age: float = Field(
        1.0, ge=0, le=3600, description="older images are dropped, seconds; 0 keeps all", json_schema_extra=_LIVE
    )
    map_frame: str = Field("", description="frame of the published poses; empty takes the map's own")
    odom_frame: str = Field("odom", min_length=1, description="odometry frame of tf_mode map_odom")
    base_frame: str = Field(
        "base_link", description="robot frame whose pose is published; empty publishes the camera's"
    )
    camera_frame: str = Field("", description="optical frame of the camera; empty takes the images' frame_id")
    tf_mode: Literal["map_odom", "map_base", "none"] = Field(
        "map_odom",
        description="map_odom corrects an odometry's drift, map_base publishes the pose itself, none leaves TF to a "
        "filter",
    )
    tf_rate: float = Field(20.0, ge=0.1, le=200, description="how often the transform is published again, hertz")
    transform_tolerance: float = Field(
        0.1, ge=0, le=10, description="how far into the future it is dated, seconds", json_schema_extra=_LIVE
    )
    tf_timeout: float = Field(
        0.2,
        ge=0,
        le=10,
        description="how long to wait for a transform at the image's stamp, seconds",
        json_schema_extra=_LIVE,
    )
    lost_after: float = Field(
        5.0,
        gt=0,
        le=3600,
        description="state LOST after this long without an accepted pose, seconds",
        json_schema_extra=_LIVE,
    )
    min_position_sigma: float = Field(
        0.01,
        gt=0,
        le=10,
        description="floor of the published position's standard deviation, metres",
        json_schema_extra=_LIVE,
    )
    min_rotation_sigma_deg: float = Field(
        0.3,
        gt=0,
        le=180,
        description="floor of the published rotation's standard deviation, degrees",
        json_schema_extra=_LIVE,
    )
    covariance_scale: float = Field(
        1.0,
        gt=0,
        le=1e4,
        description="factor on the published covariance, before the floors; of the standard deviations, its root",
        json_schema_extra=_LIVE,
    )
    solver: SolverConfig = Field(SolverConfig(), json_schema_extra=_LIVE)
    acceptance: AcceptanceConfig = Field(AcceptanceConfig(), json_schema_extra=_LIVE)
    gate: GateConfig = Field(GateConfig(), json_schema_extra=_LIVE)

    @field_validator("map_frame", "odom_frame", "base_frame", "camera_frame", mode="before")
    @classmethod
    def _bare_frame(cls, name: object) -> object:
        return name.lstrip("/") if isinstance(name, str) else name  # tf2 refuses the leading slash of ROS 1

    @field_validator("cameras")
    @classmethod
    def _topic_prefixes(cls, names: list[str]) -> list[str]:
        given = [name for name in names if name]
        for name in given:
            if not re.fullmatch(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", name, re.ASCII):
                raise ValueError(f"'{name}' is no prefix of a topic, such as 'front' or 'rig/left'")
            if given.count(name) > 1:
                raise ValueError(f"'{name}' is listed twice")
        return names

    @model_validator(mode="after")
    def _rig_has_a_base(self) -> NodeConfig:
        if len(self.camera_names) > 1 and not self.base_frame:
            raise ValueError("several cameras need a base_frame, whose pose is published")
        if len(self.camera_names) > 1 and self.camera_frame:
            raise ValueError("camera_frame is for one camera; with several the images' own frame_id counts")
        if len(self.camera_names) > 1 and self.focal == "unknown":
            raise ValueError("focal 'unknown' is for one camera; calibrate those of a rig")
        return self

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Prefixes of the cameras' topics; one empty prefix for a single camera."""
        return tuple(name for name in self.cameras if name) or ("",)

    @property
    def map_entries(self) -> tuple[str, ...]:
        """Names or paths of the maps to load; ``map`` may be one more."""
        return tuple(filter(None, map(str.strip, self.maps))) or ((self.map,) if self.map else ())


@dataclass(frozen=True)
class Declaration:
    """A ROS parameter.

    Attributes:
        name: dotted name, such as ``solver.hypotheses``.
        default: a bool, int, float, str or list of str.
        description: one line with the unit.
        bounds: least and greatest value of a number, infinite where open; None for other types.
        choices: allowed strings; empty when any is.
        live: whether it can be set in every state, else only while the node is unconfigured.
    """

    name: str
    default: bool | int | float | str | list[str]
    description: str
    bounds: tuple[float, float] | None
    choices: tuple[str, ...]
    live: bool

    @property
    def constraint(self) -> str:
        """The allowed values in words, empty when all of the type are."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.bounds is None or self.bounds == (-math.inf, math.inf):
            return ""
        low, high = self.bounds
        start = "more than 0" if low == _POSITIVE else f"at least {low:g}"
        return start if high == math.inf else f"{start}, at most {high:g}"


def declarations() -> Iterator[Declaration]:
    """All parameters in the order of the YAML."""
    yield from _declarations(NodeConfig, "", live=False)


def _declarations(model: type[BaseModel], prefix: str, live: bool) -> Iterator[Declaration]:
    for name, field in model.model_fields.items():
        field_live = live or bool((field.json_schema_extra or {}).get("live"))
        if isinstance(field.default, BaseModel):
            yield from _declarations(type(field.default), f"{prefix}{name}.", field_live)
            continue
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        yield Declaration(
            f"{prefix}{name}", field.default, field.description or "", _bounds(field), choices, field_live
        )


def _bounds(field: FieldInfo) -> tuple[float, float] | None:
    if isinstance(field.default, bool) or not isinstance(field.default, (int, float)):
        return None
    low, high = -math.inf, math.inf
    for limit in field.metadata:
        low = getattr(limit, "ge", None) if getattr(limit, "ge", None) is not None else low
        high = getattr(limit, "le", None) if getattr(limit, "le", None) is not None else high
        if getattr(limit, "gt", None) is not None:
            low = limit.gt + _POSITIVE
        if getattr(limit, "lt", None) is not None:
            high = limit.lt - _POSITIVE
    return low, high


def config_from(values: Mapping[str, Any]) -> NodeConfig:
    """The validated tree of dotted names and values; what is left out takes its default.

    Raises:
        ParameterError: a value out of bounds, of the wrong type, or an unknown name.
    """
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *sections, leaf = name.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[leaf] = value
    try:
        return NodeConfig.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        name, text = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        if isinstance(first["input"], (dict, BaseModel)):  # a rule between parameters
            raise ParameterError(
                f"The parameters{f' of {name!r}' if name else ''} do not fit together: {text}."
            ) from error
        raise ParameterError(
            f"Parameter '{name}' cannot be {first['input']!r}: {text[0].lower()}{text[1:]}."
        ) from error


def descriptor_of(declaration: Declaration) -> ParameterDescriptor:
    """The ROS description of a parameter: text, bounds, and when it can be set."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    when = "" if declaration.live else "can be set while the node is unconfigured"
    descriptor = ParameterDescriptor(
        name=declaration.name,
        description=declaration.description,
        additional_constraints="; ".join(filter(None, (declaration.constraint, when))),
    )
    if declaration.bounds is not None:
        low, high = declaration.bounds
        if isinstance(declaration.default, int):
            limit = 2**63 - 1
            descriptor.integer_range = [
                IntegerRange(from_value=int(max(low, -limit)), to_value=int(min(high, limit)), step=1)
            ]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
    return descriptor


def declare(node: Node) -> NodeConfig:
    """Declare all parameters on a node and read them.

    Raises:
        ParameterError: a value given at the start has the wrong type or is out of bounds.
    """
    from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException

    for declaration in declarations():
        try:
            node.declare_parameter(declaration.name, declaration.default, descriptor_of(declaration))
        except InvalidParameterTypeException as error:
            kind = "list of strings" if isinstance(declaration.default, list) else type(declaration.default).__name__
            hint = f", such as {float(declaration.default)}" if kind == "float" else ""
            raise ParameterError(
                f"Parameter '{declaration.name}' must be a {kind}{hint}; correct the params file or the command line."
            ) from error
        except InvalidParameterValueException as error:
            raise ParameterError(
                f"Parameter '{declaration.name}' is out of bounds: it must be {declaration.constraint}."
            ) from error
    return read(node)


def read(node: Node, changes: Mapping[str, Any] | None = None) -> NodeConfig:
    """The declared parameters' present values, with changes that are about to be made.

    Raises:
        ParameterError: the changes are not valid.
    """
    values = {declaration.name: node.get_parameter(declaration.name).value for declaration in declarations()}
    return config_from(values | dict(changes or {}))


def default_yaml() -> str:
    """The text of ``config/localizer.yaml``: every parameter with its default and what it means."""
    lines = [
        "# Parameters of the localizer node, each with its default. Those marked * can be set while it runs, the "
        "others while it is",
        "# unconfigured.",
        "# Written by: python -m dimm_ros.ros.parameters",
        "/**:",
        "  ros__parameters:",
    ]
    section = ""
    for declaration in declarations():
        parent, _, leaf = declaration.name.rpartition(".")
        if parent != section:
            section = parent
            lines += ["", f"    {section}:"]
        indent = " " * (6 if section else 4)
        comment = f"{'* ' if declaration.live else ''}{declaration.description}"
        if declaration.constraint:
            comment += f" ({declaration.constraint})"
        lines += textwrap.wrap(comment, 116, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        lines.append(f"{indent}{leaf}: {_yaml(declaration.default)}")
    return "\n".join(lines) + "\n"


def _yaml(value: bool | int | float | str | list[str]) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    text = repr(value)
    # YAML 1.1 reads 1e-05 as a string.
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def main() -> None:
    """Print ``config/localizer.yaml``."""
    print(default_yaml(), end="")


if __name__ == "__main__":
    main()
