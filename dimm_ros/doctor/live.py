"""What is wrong with a robot that is running now, from what was overheard of it; ROS is not needed to judge.

``dimm_ros.doctor.live_ros`` does the listening. Times are in seconds; an age is the clock when a message came, less its
stamp.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dimm_ros.data.transform_tree import TransformTree
from dimm_ros.doctor.camera import check_camera, describe
from dimm_ros.doctor.findings import Finding, ok, problem, warning
from dimm_ros.geometry.camera import Camera

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
OTHER_TIME_S = 3600.0  # an age beyond this is another clock

_OLD_S, _FUTURE_S, _AGEING_S = 1.0, 0.05, 0.5  # of images; the node drops what is older than max_image_age
_LOST = 0.2  # share of images that may be lost before it is worth a word
_SLOW_HZ = 2.0
_SEGMENT = 500_000  # bytes: larger messages do not pass Fast DDS's default shared memory


@dataclass
class Stream:
    """Messages of one topic.

    Attributes:
        topic: resolved name.
        types: message types of its publishers.
        publishers: names of the nodes that publish it.
        ages: of each message that came; NaN where it had no stamp.
        stamps: nanoseconds.
        arrivals: seconds of a steady clock.
        frame_ids: of the headers.
        size: width and height of the last message, None before the first.
        bytes: size of the largest message.
        fault: why a message could not be understood, empty where all could.
    """

    topic: str
    types: set[str] = field(default_factory=set)
    publishers: list[str] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    frame_ids: set[str] = field(default_factory=set)
    size: tuple[int, int] | None = None
    bytes: int = 0
    fault: str = ""

    @property
    def rate_hz(self) -> float:
        return (
            (len(self.arrivals) - 1) / max(self.arrivals[-1] - self.arrivals[0], 1e-9)
            if len(self.arrivals) > 1
            else 0.0
        )


@dataclass
class Link:
    """Samples of one child frame of TF."""

    parents: dict[str, int] = field(default_factory=dict)
    static: bool = False
    stamps: list[int] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    positions: list[np.ndarray] = field(default_factory=list)


@dataclass
class LiveTraffic:
    """Messages and graph that were overheard on a running robot.

    Attributes:
        image, info: the two topics.
        camera: of the last camera_info that could be understood.
        links: child frame -> samples.
        tree: the transforms, to look up chains.
        tf_publishers: names of the nodes that publish /tf.
        volatile_static: nodes that publish /tf_static without latching it.
        mismatches: sentences about publishers and subscribers whose QoS does not fit.
        image_topics, info_topics: what there is of these types.
        clock_publishers: nodes that publish /clock; clock_count: messages that came.
        simulated, real: nodes with and without use_sim_time, as far as they answered.
        covariances: pose or odometry topic -> "zero" or "not finite"; good ones are left out.
        localizer: state and reason of a localizer that runs; None where none does.
        environment: sentences about this process's Python and middleware, by name.
        listened_s: how long.
    """

    image: Stream
    info: Stream
    camera: Camera | None = None
    links: dict[str, Link] = field(default_factory=dict)
    tree: TransformTree = field(default_factory=TransformTree)
    tf_publishers: list[str] = field(default_factory=list)
    volatile_static: list[str] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)
    image_topics: list[str] = field(default_factory=list)
    info_topics: list[str] = field(default_factory=list)
    clock_publishers: list[str] = field(default_factory=list)
    clock_count: int = 0
    simulated: list[str] = field(default_factory=list)
    real: list[str] = field(default_factory=list)
    covariances: dict[str, str] = field(default_factory=dict)
    localizer: tuple[str, str] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    listened_s: float = 0.0


def check_topics(seen: LiveTraffic) -> list[Finding]:
    """What is wrong with topics, stamps, clocks and camera_info; ``dimm_ros.doctor.live_tf`` has TF."""
    result = [
        _topic(seen.image, "image topic", seen.image_topics, seen),
        _topic(seen.info, "camera_info topic", seen.info_topics, seen),
        _qos(seen),
    ]
    result += _loss(seen) + _stamps(seen) + _simulation(seen) + _camera_info(seen)
    result += [
        warning(
            "covariance",
            f"{topic} publishes a covariance that is {fault}",
            "a driver that leaves the field empty",
            "set it: robot_localization and the like take zero for certainty",
        )
        for topic, fault in sorted(seen.covariances.items())
    ]
    if seen.localizer is not None:
        state, reason = seen.localizer
        result.append(
            warning("localizer", f"{state}: {reason}", "see the sentence", "") if reason else ok("localizer", state)
        )
    return result


def _topic(stream: Stream, check: str, others: list[str], seen: LiveTraffic) -> Finding:
    """Is it published, once, with a type that is understood, and does anything come?"""
    publishers = ", ".join(sorted(stream.publishers))
    wanted = IMAGE_TYPES if stream is seen.image else (CAMERA_INFO_TYPE,)
    if not stream.publishers:
        there = (
            f"topics of that type: {', '.join(sorted(others)[:12])}"
            if others
            else "there is no topic of that type at all"
        )
        cure = (
            "name one of these, or remap"
            if others
            else "start the camera driver; check ROS_DOMAIN_ID and that it runs on this network"
        )
        return problem(
            check,
            f"nobody publishes {stream.topic}; {there}",
            "the driver does not run, or its topic has another name",
            cure,
        )
    if not stream.types & set(wanted):
        return problem(
            check,
            f"{stream.topic} carries {', '.join(sorted(stream.types))}, not {' or '.join(wanted)}",
            "another topic of the driver",
            f"name its {check.removesuffix(' topic')}" + (f": {', '.join(sorted(others)[:12])}" if others else ""),
        )
    if not stream.arrivals:
        return problem(
            check,
            f"{stream.topic} is published by {publishers}, but nothing came in {seen.listened_s:.0f} s",
            "a driver that waits (for a trigger, for its sensor), or large messages that are all lost",
            "look at the driver's log; give its process config/fastdds.xml (docs/ros.md)",
        )
    if stream.fault:
        return problem(
            check, f"a message on {stream.topic} cannot be used: {stream.fault}", "the driver", "see the sentence"
        )
    if len(stream.publishers) > 1:
        return problem(
            check,
            f"{stream.topic} has {len(stream.publishers)} publishers: {publishers}",
            "two drivers, or a bag played beside one",
            "stop one",
        )
    words = f"{stream.topic} from {publishers}: {stream.rate_hz:.1f} Hz"
    if stream is seen.image and stream.rate_hz < _SLOW_HZ:
        return warning(
            check,
            words,
            "a slow driver, or lost messages",
            "the pose comes no more often than images do",
            rate_hz=stream.rate_hz,
        )
    return ok(check, words, rate_hz=stream.rate_hz, messages=len(stream.arrivals))


def _qos(seen: LiveTraffic) -> Finding:
    faults = list(seen.mismatches)
    for node in seen.volatile_static:
        faults.append(
            f"{node} publishes /tf_static without durability transient_local: nodes that start later never get it"
        )
    if faults:
        return problem(
            "QoS",
            "; ".join(faults),
            "publisher and subscriber disagree; ROS connects them silently not at all",
            "give sensor subscribers best_effort (SensorDataQoS), /tf_static publishers transient_local",
        )
    return ok("QoS", "all publishers and subscribers of image, camera_info and TF fit")


def _loss(seen: LiveTraffic) -> list[Finding]:
    """Fewer images than the driver took: against camera_info, which is small, and against the rhythm of the stamps."""
    stamps = np.unique(np.array(seen.image.stamps, dtype=np.int64))
    if len(stamps) < 5:
        return []
    steps = np.diff(stamps) * 1e-9
    period = float(np.percentile(steps, 20))
    by_stamps = 1 - (len(stamps) - 1) / max(1, round(float(steps.sum()) / period)) if period > 0 else 0.0
    span = [stamp for stamp in seen.info.stamps if stamps[0] <= stamp <= stamps[-1]]
    by_info = 1 - len(stamps) / len(span) if len(span) > len(stamps) else 0.0
    lost = max(by_stamps, by_info)
    figures = {"lost_by_stamps": by_stamps, "lost_by_camera_info": by_info, "bytes": seen.image.bytes}
    if lost <= _LOST:
        return [ok("lost images", f"{100 * lost:.0f} % of {seen.image.bytes / 1e6:.1f} MB messages", **figures)]
    cause, cure = "a busy driver or network", "lower the rate or the resolution"
    if seen.image.bytes > _SEGMENT and "profile" in seen.environment:
        cause = (
            f"messages of {seen.image.bytes / 1e6:.1f} MB do not pass the default shared memory; "
            f"{seen.environment['profile']}"
        )
        cure = "give driver and localizer config/fastdds.xml (docs/ros.md), or use compressed images"
    return [warning("lost images", f"{100 * lost:.0f} % of the images do not arrive", cause, cure, **figures)]


def _stamps(seen: LiveTraffic) -> list[Finding]:
    ages = np.array(seen.image.ages)
    if not len(ages):
        return []
    check, age = "image stamps", float(np.median(ages))
    figures = {"age_s": age}
    if not all(seen.image.stamps):
        return [
            problem(
                check,
                "images with a stamp of zero",
                "a driver that does not stamp",
                "stamp images with the time of exposure",
                **figures,
            )
        ]
    if np.any(np.diff(seen.image.stamps) < 0):
        return [
            problem(
                check,
                "stamps go back",
                "a bag that loops, two publishers, or a clock that was set",
                "play bags without --loop; see clocks",
                **figures,
            )
        ]
    if abs(age) > OTHER_TIME_S:
        return []  # another clock: see simulated time
    if age < -_FUTURE_S:
        return [
            problem(
                check,
                f"{-age:.2f} s in the future",
                "the camera's computer is ahead of this one",
                "synchronise the clocks (chrony, PTP)",
                **figures,
            )
        ]
    third = max(1, len(ages) // 3)
    growth = float(np.median(ages[-third:]) - np.median(ages[:third]))
    if growth > _AGEING_S:
        return [
            problem(
                check,
                f"images come ever later: {np.median(ages[:third]):.2f} s after their stamp, then "
                f"{np.median(ages[-third:]):.2f} s",
                "a queue that a slow node lets grow",
                "subscribe with depth 1 (SensorDataQoS), lower the rate",
                growth_s=growth,
                **figures,
            )
        ]
    if age > _OLD_S:
        return [
            problem(
                check,
                f"{age:.2f} s old when they come",
                "a slow pipeline, or clocks of two computers that differ",
                "synchronise the clocks; the localizer drops images older than max_image_age",
                **figures,
            )
        ]
    return [ok(check, f"{1e3 * age:.0f} ms old when they come", **figures)]


def _simulation(seen: LiveTraffic) -> list[Finding]:
    check, ages = "simulated time", [age for age in seen.image.ages if np.isfinite(age)]
    other = bool(ages) and abs(float(np.median(ages))) > OTHER_TIME_S
    waiting = ", ".join(sorted(seen.simulated))
    if len(seen.clock_publishers) > 1:
        return [
            problem(
                check,
                f"/clock has {len(seen.clock_publishers)} publishers: {', '.join(sorted(seen.clock_publishers))}",
                "a simulator and a bag, or two bags",
                "keep one",
            )
        ]
    if not seen.clock_publishers:
        if seen.simulated:
            return [
                problem(
                    check,
                    f"{waiting} wait for /clock (use_sim_time), which nobody publishes",
                    "a simulator or bag player without a clock",
                    "set use_sim_time to false, or play the bag with --clock",
                )
            ]
        if other:
            return [
                problem(
                    check,
                    f"stamps are {abs(np.median(ages)):.0f} s from this computer's time, and nobody publishes /clock",
                    "a bag played without --clock, or a camera that stamps by its own clock",
                    "play with --clock and use_sim_time, or fix the driver",
                )
            ]
        return []
    if not seen.clock_count:
        return [
            problem(
                check,
                f"{seen.clock_publishers[0]} publishes /clock, but no message came",
                "a paused simulation",
                "let it run",
            )
        ]
    if other:
        return [
            problem(
                check,
                "the stamps fit neither /clock nor this computer's time",
                "a driver that ignores use_sim_time",
                "set it there, too",
            )
        ]
    late = [node for node in seen.real if node not in seen.clock_publishers]
    if late:
        return [
            warning(
                check,
                f"/clock runs, but without use_sim_time are: {', '.join(sorted(late))}",
                "a launch file that sets it for some only",
                "set use_sim_time for all of them",
            )
        ]
    return [ok(check, f"/clock from {seen.clock_publishers[0]}")]


def _camera_info(seen: LiveTraffic) -> list[Finding]:
    check, info = "camera_info", seen.info
    if seen.camera is None:
        return []  # no message, or one that the topic's line explains
    result = check_camera(seen.camera)
    if seen.image.size is not None and info.size is not None and seen.image.size != info.size:
        (w, h), (iw, ih) = seen.image.size, info.size
        result.append(
            problem(
                check,
                f"it is of {iw}x{ih}, the images are {w}x{h}",
                "a driver that scales images but not camera_info",
                "calibrate at the published size, or scale camera_info with the images",
            )
        )
    if seen.image.frame_ids and info.frame_ids and seen.image.frame_ids != info.frame_ids:
        result.append(
            warning(
                check,
                f"its frame is {', '.join(sorted(info.frame_ids))}, the images' "
                f"{', '.join(sorted(seen.image.frame_ids))}",
                "two cameras mixed up, or a driver's oversight",
                "check that it is this camera's",
            )
        )
    if len(seen.image.stamps) > 5 and len(info.stamps) > 5:
        same = len(set(seen.image.stamps) & set(info.stamps)) / len(set(seen.image.stamps))
        if same < 0.5:
            result.append(
                warning(
                    "stamps of camera_info",
                    f"only {100 * same:.0f} % of the images have a camera_info of the same stamp",
                    "a driver that stamps them apart",
                    "dimm does not mind; nodes that synchronise exactly (image_proc) get nothing",
                )
            )
    return result or [ok(check, describe(seen.camera))]
