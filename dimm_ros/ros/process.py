"""The localizer's process: its command line, one sentence on what ROS cannot read of it, and a quick end."""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import rclpy
from rclpy.exceptions import (
    InvalidNamespaceException,
    InvalidNodeNameException,
    InvalidParameterException,
    InvalidParameterTypeException,
)
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.utilities import remove_ros_args

from dimm_ros.errors import ParameterError
from dimm_ros.ros.parameters import declarations

Made = TypeVar("Made")

_HELP = """The ROS 2 node: camera images in, the robot's pose in the map out; docs/ros.md says more.

  localizer --ros-args -p map:=kitchen.dimm -r image:=/camera/image_raw -r camera_info:=/camera/camera_info"""

#: Exceptions of a node that cannot be made.
_INVALID = (
    InvalidNodeNameException,
    InvalidNamespaceException,
    InvalidParameterException,
    InvalidParameterTypeException,
)

#: What rcl says (the start of it), and what to do.
_CURES = (
    ("Couldn't parse params file", "correct the file's path or its YAML, config/localizer.yaml shows the form"),
    ("Couldn't parse log level", "give --log-level one of debug, info, warn, error or fatal"),
    ("Couldn't parse trailing log level", "give --log-level one of debug, info, warn, error or fatal"),
    ("Couldn't parse parameter override", "write -p NAME:=VALUE"),
    ("Couldn't parse remap rule", "write -r NAME:=TOPIC, in letters, digits, _ and /"),
)


def command_line(args: list[str]) -> None:
    """Answer ``--help``, and refuse what is neither that nor ROS's own; ends the process in both cases.

    Args:
        args: as ``sys.argv``.

    Raises:
        ParameterError: ROS's own arguments or a parameter file cannot be read.
    """
    wrapper = textwrap.TextWrapper(110, initial_indent="  ", subsequent_indent="      ")
    parameters = "\n".join(wrapper.fill(f"{one.name}: {one.description} ({one.default!r})") for one in declarations())
    parser = argparse.ArgumentParser(
        prog="localizer",
        usage="localizer --ros-args [-p NAME:=VALUE ...] [-r NAME:=TOPIC ...]",
        description=_HELP,
        epilog=f"parameters and their defaults:\n{parameters}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    with _ros_arguments():
        rest = remove_ros_args(args)[1:]
    parser.parse_args(rest)


def start_ros(args: list[str]) -> None:
    """``rclpy.init``; raises as ``command_line``."""
    with _ros_arguments():
        rclpy.init(args=args)


@contextmanager
def _ros_arguments() -> Iterator[None]:
    """One sentence of what rcl says on arguments that it cannot read."""
    try:
        yield
    except _rclpy.UnknownROSArgsError as error:
        said = f"ROS does not know {error}, which stands after --ros-args; see 'localizer --help'."
        raise ParameterError(said) from error
    except (_rclpy.RCLError, _rclpy.RCLInvalidROSArgsError) as error:
        # rcl says first what it was doing, and last the places in its own source and in its grammar
        said = re.sub(r"(\.? Error: Expected lexeme.*)?, at .*", "", str(error).replace("\n", " "))
        said = re.sub(r"^(failed to initialize rcl|Failed to parse ROS arguments): ", "", said).rstrip(". ")
        cure = next((cure for start, cure in _CURES if said.startswith(start)), "")
        raise ParameterError(f"{said}; {cure}." if cure else f"ROS cannot be started: {said}.") from error


def make_node(make: Callable[[], Made]) -> Made:
    """A node.

    Raises:
        ParameterError: its name, or a parameter that rclpy itself declares, is not valid.
    """
    try:
        return make()
    except _INVALID as error:
        said = " ".join(str(error).split())
        raise ParameterError(f"{said.rstrip('.')}; correct the params file or the command line.") from error


def end_process(status: int) -> None:
    """End at once, nodes being destroyed: the worker may be loading weights, and torch's threads take long to join."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
