"""Missing frames and jumps of the pose, from stamps and poses alone."""

from __future__ import annotations

import numpy as np

from dimm_ros.data.recording import Recording
from dimm_ros.doctor.findings import Finding, ok, unknown, warning
from dimm_ros.geometry.poses import rotation_angle_deg

_LONG = 2.5  # usual intervals: a longer one is a gap
_FAR = 600.0  # seconds: a longer one is between two recordings
_JUMP, _JUMP_TYPICAL = 6.0, 3.0  # steps so many times the local median and the 90th percentile are jumps
_JUMP_TURN_DEG = 8.0
_AROUND = 15


def check_gaps(recording: Recording) -> Finding:
    """Intervals between images."""
    stamps = np.array([frame.stamp_ns for frame in recording.frames], dtype=np.int64)
    steps = np.diff(stamps) * 1e-9
    if len(steps) < 5:
        return unknown("missing frames", f"cannot tell: only {len(stamps)} images", "", "record more")
    period = float(np.median(steps))
    gaps = np.flatnonzero((steps > _LONG * period) & (steps < _FAR))
    lost = int(np.round(steps[gaps] / period).sum() - len(gaps))
    figures = {
        "rate_hz": 1 / period if period else 0.0,
        "gaps": len(gaps),
        "missing": lost,
        "longest_s": float(steps[steps < _FAR].max(initial=0.0)),
    }
    if not recording.timed:
        what = f"{len(stamps)} images without times; {lost} of their numbers are not there"
        return ok("missing frames", what, **figures)
    if lost <= 0.02 * len(stamps):
        return ok(
            "missing frames",
            f"{len(stamps)} images, one each {period:.3f} s; {lost} missing in {len(gaps)} gaps",
            **figures,
        )
    return warning(
        "missing frames",
        f"{lost} images are missing in {len(gaps)} gaps (one each {period:.3f} s, longest gap "
        f"{figures['longest_s']:.2f} s, after "
        f"{recording.frames[int(gaps[steps[gaps].argmax()])].name})",
        "messages lost between driver and recorder (large images, default DDS settings), a slow disk, or frames left "
        "out on purpose",
        "record compressed images or with config/fastdds.xml, to a fast disk",
        **figures,
    )


def check_jumps(recording: Recording) -> Finding:
    """Steps of the pose that no camera makes."""
    poses = recording.poses()
    stamps = np.array([frame.stamp_ns for frame in recording.frames], dtype=np.int64)
    steps = np.diff(stamps) * 1e-9
    length = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    turn = rotation_angle_deg(poses[:-1, :3, :3], poses[1:, :3, :3])
    if len(length) < 10:
        return unknown("pose jumps", f"cannot tell: only {len(poses)} images", "", "record more")
    near = steps <= _LONG * np.median(steps)
    jumps = np.flatnonzero(near & (_outliers(length, near, 0.0) | _outliers(turn, near, _JUMP_TURN_DEG)))
    figures = {
        "jumps": len(jumps),
        "frames": (jumps + 1).tolist(),
        "median_step_m": float(np.median(length[near])),
        "median_turn_deg": float(np.median(turn[near])),
    }
    if not len(jumps):
        return ok(
            "pose jumps",
            f"the path is smooth: median step {figures['median_step_m']:.3f} m, {figures['median_turn_deg']:.1f} deg",
            **figures,
        )
    worst = int(jumps[length[jumps].argmax()])
    return warning(
        "pose jumps",
        f"{len(jumps)} jumps; the largest, at {recording.frames[worst + 1].name}, of {length[worst]:.2f} m and "
        f"{turn[worst]:.1f} deg "
        f"(median step {figures['median_step_m']:.3f} m)",
        "the SLAM closed a loop or relocalized, two publishers share a transform, or photographs instead of a film",
        "optimise the trajectory before exporting (final poses, not live ones), or cut the recording there",
        **figures,
    )


def _outliers(values: np.ndarray, near: np.ndarray, least: float) -> np.ndarray:
    """Steps far above those around them and above nearly all others."""
    typical = np.percentile(values[near], 90) if near.any() else 0.0
    half = _AROUND // 2
    around = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(values, half, mode="reflect"), _AROUND), axis=1)
    return (values > _JUMP * around) & (values > _JUMP_TYPICAL * typical) & (values > least)
