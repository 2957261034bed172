"""Smooth seeded walks around the gallery's table, by hand or by a planar robot.

All seeds walk in one tube around the same oval, each with its own sideways offset, height and heading at every place:
two seeds share no pose, yet each finds views of the other within the tube's width. That is the task of a robot that
comes back to a mapped route.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from dimm_ros.geometry import poses

Style = Literal["handheld", "robot"]

#: Semi-axes of the oval in metres, along x and y, and the time of one round at walking speed.
OVAL = (1.30, 1.00)
LAP_SECONDS = 14.0

#: First stamp: a plausible date, so that code which cannot carry nanoseconds since 1970 shows it.
START_NS = 1_760_000_000_000_000_000

# columns: optical x, y, z in body axes
_OPTICAL_FROM_BODY_AXES = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def camera_mount(position=(0.05, 0.0, 0.0), pitch_down_deg: float = 8.0, yaw_deg: float = 0.0) -> np.ndarray:
    """(4, 4) base_from_camera: a forward-looking camera, from REP-103 body axes to optical axes.

    Args:
        position: (3,) of the camera in the base frame, metres.
        pitch_down_deg: tilt towards the floor.
        yaw_deg: turn to the left.
    """
    body = Rotation.from_euler("ZY", [yaw_deg, pitch_down_deg], degrees=True).as_matrix()
    return poses.make_pose(body @ _OPTICAL_FROM_BODY_AXES, np.asarray(position, dtype=np.float64))


#: Where the camera sits: in the hand at chest height, or on a mast above a base that moves on the floor.
MOUNTS = {"handheld": camera_mount(), "robot": camera_mount((0.12, 0.0, 0.95), pitch_down_deg=-2.0)}


def trajectory(
    seed: int,
    seconds: float,
    rate_hz: float,
    *,
    style: Style = "handheld",
    spread: float = 1.0,
    start_ns: int = START_NS,
) -> tuple[np.ndarray, np.ndarray]:
    """A walk around the room.

    Args:
        seed: another seed is another walk in the same tube.
        seconds: its length; a round takes ``LAP_SECONDS``.
        rate_hz: poses a second.
        style: "handheld" moves in all six degrees of freedom (base about 1.45 m above the floor), "robot" in the plane.
        spread: width of the tube; 1 is 0.3 m sideways, 0.12 m in height and 22 degrees of heading to either side.
        start_ns: first stamp.

    Returns:
        (N,) int64 stamps in nanoseconds, and (N, 4, 4) world_from_base in REP-103 body axes (x forward, z up).
    """
    if seconds <= 0 or rate_hz <= 0:
        raise ValueError("seconds and rate_hz must be positive")
    rng = np.random.default_rng([seed, 0x6A11])
    count = int(np.floor(seconds * rate_hz)) + 1
    time = np.arange(count) / rate_hz
    start = rng.uniform(0, 2 * np.pi)
    # At most a third faster or slower than the mean, so the walk never stops or turns back.
    phase = 2 * np.pi / LAP_SECONDS * (time + 0.16 * _waves(rng, time, 3.0, 8.0))
    sideways = 0.30 * spread * _rounds(rng, phase, time)
    angle = start + phase
    x, y = (OVAL[0] + sideways) * np.cos(angle), (OVAL[1] + sideways) * np.sin(angle)
    tangent = np.unwrap(np.arctan2(OVAL[1] * np.cos(angle), -OVAL[0] * np.sin(angle)))
    yaw = tangent + np.radians(22) * spread * _rounds(rng, phase, time)
    if style == "robot":
        z, pitch, roll = np.zeros(count), np.zeros(count), np.zeros(count)
    else:
        steps = 2 * np.pi * 1.8 * time
        z = 1.45 + 0.12 * spread * _rounds(rng, phase, time) + 0.012 * np.sin(steps + rng.uniform(0, 2 * np.pi))
        pitch = np.radians(6) * spread * _rounds(rng, phase, time) + np.radians(0.6) * _waves(rng, time, 0.6, 1.5)
        roll = np.radians(3) * spread * _waves(rng, time, 4.0, 9.0) + np.radians(0.6) * np.sin(
            steps / 2 + rng.uniform(0, 2 * np.pi)
        )
        yaw = yaw + np.radians(0.8) * _waves(rng, time, 0.6, 1.5)
    world_from_base = np.tile(np.eye(4), (count, 1, 1))
    world_from_base[:, :3, :3] = Rotation.from_euler("ZYX", np.column_stack([yaw, pitch, roll])).as_matrix()
    world_from_base[:, :3, 3] = np.column_stack([x, y, z])
    return start_ns + np.rint(time * 1e9).astype(np.int64), world_from_base


def _waves(rng: np.random.Generator, time: np.ndarray, shortest: float, longest: float) -> np.ndarray:
    """A smooth function of time within [-1, 1]: four sines of random period (seconds) and phase."""
    weights = rng.uniform(0.5, 1.0, 4)
    periods, phases = rng.uniform(shortest, longest, 4), rng.uniform(0, 2 * np.pi, 4)
    return (weights * np.sin(2 * np.pi * time[:, None] / periods + phases)).sum(axis=1) / weights.sum()


def _rounds(rng: np.random.Generator, phase: np.ndarray, time: np.ndarray) -> np.ndarray:
    """An offset within about [-1, 1] that takes another value every half round, spread evenly over many rounds."""
    knots = int(phase[-1] / np.pi) + 4
    golden = (rng.uniform() + 0.6180339887498949 * np.arange(knots)) % 1.0
    steady = CubicSpline(np.arange(knots), 2 * golden - 1)(phase / np.pi)
    return np.clip(0.7 * steady, -1, 1) + 0.25 * _waves(rng, time, 4.0, 11.0)
