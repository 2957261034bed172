"""ROS fixtures: each test has a domain of its own on this computer; fields are checked as strictly as Humble does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from dimm_ros.config import HeadConfig, TrainingConfig  # noqa: E402
from dimm_ros.data.open import open_recording  # noqa: E402
from dimm_ros.gallery.recorder import record_bag  # noqa: E402
from dimm_ros.gallery.scene import build_room  # noqa: E402
from dimm_ros.gallery.trajectory import MOUNTS, trajectory  # noqa: E402
from dimm_ros.geometry.camera import Camera  # noqa: E402
from dimm_ros.mapping.build import build_map  # noqa: E402
from dimm_ros.replay import session as local  # noqa: E402
from dimm_ros.replay.session import LocalSession  # noqa: E402

from .robot import KnownPose, Robot  # noqa: E402

# Two workers of pytest-xdist may look for a free domain at the same moment: each has its own to choose from.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    local._DOMAINS = local._DOMAINS[int(worker.removeprefix("gw")) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]


@dataclass(frozen=True)
class Walk:
    """A map, a bag that it was not made from, and the true pose of base_link at every stamp."""

    map: Path
    bag: Path
    world_from_base: dict[int, np.ndarray]


@pytest.fixture
def session() -> Iterator[LocalSession]:
    with LocalSession() as opened:
        yield opened


@contextmanager
def _running(
    session: LocalSession, localizer: KnownPose | None, parameters: dict[str, Any], start: bool
) -> Iterator[Robot]:
    robot = Robot(session, localizer, parameters, start)
    try:
        yield robot
    finally:
        if robot.localizer is not None:
            robot.localizer.free.set()
        session.call(robot.node.release)


@pytest.fixture
def make_robot(session):
    """Start a node with parameters: ``make_robot(tf_mode="none")``; ``real=True`` opens real maps, ``start=False``
    leaves it unconfigured.
    """
    with ExitStack() as stack:

        def make(
            *,
            real: bool = False,
            ready: bool = True,
            start: bool = True,
            localizer: KnownPose | None = None,
            **parameters: Any,
        ) -> Robot:
            parameters = {name.replace("__", "."): value for name, value in parameters.items()}
            parameters.setdefault("gate.enabled", False)  # most tests are about what becomes of one image
            parameters.setdefault("max_image_age", 30.0)  # a busy computer takes its time
            known = None if real else localizer or KnownPose()
            if not real:
                parameters.setdefault("map", "hall.safetensors")
            robot = stack.enter_context(_running(session, known, parameters, start))
            if ready:
                robot.wait_ready()
            return robot

        yield make


@pytest.fixture(scope="session")
def ros_walk(made_once, encoder) -> Walk:
    """A walk through the gallery, recorded twice (its images at different places of the walk), and a map of the first.

    Small images and few steps: the map is good to a few decimetres, which is what tests of the plumbing need.
    """
    stamps, world_from_base = trajectory(1, 7.0, 30.0)

    def make(folder: Path) -> None:
        scene, camera = build_room(), Camera(320, 240, 200.0, 200.0, 159.5, 119.5)
        for name, start, every in (("mapping", 0, 4), ("query", 2, 16)):
            record_bag(
                folder / name,
                scene,
                camera,
                stamps[start:],
                world_from_base[start:],
                MOUNTS["handheld"],
                image_every=every,
                compressed=False,
                seed=start,
                storage="mcap" if start else "sqlite3",
            )
        training = TrainingConfig(steps=400, batch=512, passes=1)
        build_map(
            open_recording(folder / "mapping"),
            folder / "map.safetensors",
            encoder,
            training=training,
            head=HeadConfig(width=128),
        )

    folder = made_once("ros_walk", make)
    return Walk(folder / "map.safetensors", folder / "query", dict(zip(stamps.tolist(), world_from_base, strict=True)))
