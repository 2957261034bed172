"""ROS fixtures: each test has a domain of its own on this computer; fields are checked as strictly as Humble does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from dimm_ros.ros.session import LocalSession  # noqa: E402

from .robot import KnownPose, Robot  # noqa: E402


@pytest.fixture
def session() -> Iterator[LocalSession]:
    with LocalSession() as opened:
        yield opened


@contextmanager
def _running(session: LocalSession, localizer: KnownPose | None, parameters: dict[str, Any]) -> Iterator[Robot]:
    robot = Robot(session, localizer, parameters)
    try:
        yield robot
    finally:
        if robot.localizer is not None:
            robot.localizer.free.set()
        robot.node.cleanup()


@pytest.fixture
def make_robot(session):
    """Start a node with parameters: ``make_robot(tf_mode="none")``; ``real=True`` opens real maps."""
    with ExitStack() as stack:

        def make(*, real: bool = False, ready: bool = True, localizer: KnownPose | None = None, **parameters: Any) -> Robot:
            parameters = {name.replace("__", "."): value for name, value in parameters.items()}
            known = None if real else localizer or KnownPose()
            if not real:
                parameters.setdefault("map", "hall.safetensors")
            robot = stack.enter_context(_running(session, known, parameters))
            if ready:
                robot.wait_ready()
            return robot

        yield make
