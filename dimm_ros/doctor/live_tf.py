"""TF of a robot that is running now, as ``dimm_ros.doctor.live`` overheard it."""

from __future__ import annotations

import numpy as np

from dimm_ros.doctor.findings import Finding, ok, problem, unknown, warning
from dimm_ros.doctor.live import OTHER_TIME_S, Link, LiveTraffic, Stream
from dimm_ros.errors import TransformError
from dimm_ros.geometry.poses import rotation_angle_deg

_SLOW_HZ = 5.0
_STALE_S, _LAG_S = 0.5, 0.2  # the node waits tf_timeout = 0.2 s for transforms
_BODY_DEG = 20.0
_FIGHT = 0.6  # share of samples that leap there and back where two publishers fight


def check_tf(seen: LiveTraffic, base: str, odom: str) -> list[Finding]:
    """base -> camera and odom -> base: there, fresh, and with the right axes; and one owner of each frame.

    Args:
        base: the robot's frame; empty to leave it out.
        odom: parent of its odometry; empty when there is none.
    """
    frame_ids = sorted(seen.image.frame_ids)
    result = []
    if frame_ids == [""]:
        result.append(
            problem(
                "camera frame",
                "the images have no frame_id",
                "the driver's parameter",
                "set it to the camera's optical frame",
            )
        )
    elif len(frame_ids) > 1:
        result.append(
            problem(
                "camera frame",
                f"the images have several frame_ids: {', '.join(frame_ids)}",
                "two cameras on one topic",
                "separate them",
            )
        )
    elif frame_ids and base:
        result.append(_mounting(seen, base, frame_ids[0]))
    if odom and base:
        result.append(_odometry(seen, base, odom))
    return result + _parents(seen)


def _mounting(seen: LiveTraffic, base: str, camera: str) -> Finding:
    check = f"TF {base} -> {camera}"
    try:
        base_from_camera = seen.tree.lookup(base, camera, None)
    except TransformError as error:
        return problem(
            check,
            str(error),
            "no robot_state_publisher or static_transform_publisher, or names that differ",
            "publish the camera's mounting on /tf_static; set base_frame",
        )
    rotation = base_from_camera[:3, :3]
    if float(rotation_angle_deg(rotation, np.eye(3))) < _BODY_DEG:
        return problem(
            check,
            f"{camera} has the base's axes (x forward), not optical ones (z forward, x right)",
            "images stamped with the camera's body frame",
            "stamp them with the optical frame (REP-103), rotated by rpy = -90, 0, -90 degrees",
        )
    if rotation[2, 1] > 0.3:
        return warning(
            check,
            "the image's down points up: the camera is upside down, or its frame not optical",
            "a wrong rotation in the robot's model",
            "check the rpy of the camera's joint",
        )
    x, y, z = base_from_camera[:3, 3]
    heading = np.degrees(np.arctan2(rotation[1, 2], rotation[0, 2]))
    return ok(check, f"at ({x:.2f}, {y:.2f}, {z:.2f}) m, looking {heading:.0f} deg to the left of forward")


def _odometry(seen: LiveTraffic, base: str, odom: str) -> Finding:
    check = f"TF {odom} -> {base}"
    try:
        seen.tree.lookup(odom, base, None)
    except TransformError as error:
        return problem(
            check,
            str(error),
            "no odometry, or names that differ",
            "start it, or set odom_frame; without odometry use tf_mode map_base",
        )
    dynamic = _dynamic_links(seen, base, odom)
    if not dynamic:
        return warning(
            check, "it is static", "a stand-in for odometry", "the robot would never move in odom; use tf_mode map_base"
        )
    link = max(dynamic, key=lambda one: np.median(one.ages))
    age, span = float(np.median(link.ages)), link.arrivals[-1] - link.arrivals[0]
    rate = (len(link.arrivals) - 1) / span if span > 0 else 0.0
    figures = {"age_s": age, "rate_hz": rate}
    if abs(age) > OTHER_TIME_S:
        return problem(
            check,
            f"its stamps are {abs(age):.0f} s from the clock",
            "use_sim_time on one side only",
            "set it everywhere or nowhere",
            **figures,
        )
    if age > _STALE_S:
        return problem(
            check,
            f"{age:.2f} s old when it comes",
            "a slow publisher, or clocks that differ",
            "synchronise the clocks (chrony, PTP)",
            **figures,
        )
    if rate < _SLOW_HZ:
        return warning(check, f"{rate:.1f} Hz", "a slow odometry", "images wait for it (tf_timeout)", **figures)
    lags = _lags(seen.image, link)
    if len(lags) and np.median(lags) > _LAG_S:
        return warning(
            check,
            f"it comes {np.median(lags):.2f} s after the images that need it: extrapolation into the future",
            "odometry that is slower than the camera",
            "raise tf_timeout above that, or publish odometry sooner",
            lag_s=float(np.median(lags)),
            **figures,
        )
    return ok(check, f"{rate:.0f} Hz, {1e3 * age:.0f} ms old when it comes", **figures)


def _dynamic_links(seen: LiveTraffic, frame: str, root: str) -> list[Link]:
    result = []
    while frame != root and frame in seen.links:
        link = seen.links[frame]
        if not link.static and len(link.arrivals) > 1:
            result.append(link)
        frame = max(link.parents, key=link.parents.get)
    return result


def _lags(image: Stream, link: Link) -> np.ndarray:
    """How long after each image came the first transform that is not older."""
    stamps, arrivals = np.maximum.accumulate(np.array(link.stamps, dtype=np.int64)), np.array(link.arrivals)
    place = np.searchsorted(stamps, np.array(image.stamps, dtype=np.int64))
    found = place < len(stamps)
    return arrivals[np.minimum(place, len(stamps) - 1)][found] - np.array(image.arrivals)[found]


def _parents(seen: LiveTraffic) -> list[Finding]:
    """Two owners of one frame."""
    result = []
    nodes = ", ".join(sorted(set(seen.tf_publishers)))
    for child, link in sorted(seen.links.items()):
        if len(link.parents) > 1:
            result.append(
                problem(
                    "TF parents",
                    f"{child} has several parents: {', '.join(sorted(link.parents))} (/tf is published by {nodes})",
                    "two nodes own it",
                    "switch one off (publish_tf: false)",
                    frame=child,
                )
            )
        elif not link.static and _fights(link):
            result.append(
                problem(
                    "TF publishers",
                    f"{next(iter(link.parents))} -> {child} leaps to and fro: two nodes publish it (/tf is published "
                    f"by {nodes})",
                    "a second odometry, AMCL or SLAM",
                    "switch one off (publish_tf: false, tf_broadcast: false)",
                    frame=child,
                )
            )
    if seen.links and not result:
        result.append(ok("TF parents", f"each of {len(seen.links)} frames has one"))
    elif not seen.links:
        result.append(
            unknown(
                "TF parents", "no transform came", "nobody publishes TF", "start robot_state_publisher and odometry"
            )
        )
    return result


def _fights(link: Link) -> bool:
    """Stamps that go back as a habit, or positions that leap there and back."""
    if len(link.positions) < 12:
        return False
    back = np.diff(np.array(link.stamps, dtype=np.int64)) < 0
    if back.mean() > 0.2:
        return True
    positions = np.stack(link.positions)
    one = np.linalg.norm(positions[1:-1] - positions[:-2], axis=1)
    two = np.linalg.norm(positions[2:] - positions[:-2], axis=1)
    leaps = (one > 0.02) & (two < 0.3 * one)
    return bool(leaps.mean() > _FIGHT)
