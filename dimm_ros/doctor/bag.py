"""What only a bag can tell: clocks, gaps and parents of TF, how often camera_info comes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dimm_ros.data.bag_file import Bag, camera_info_connections, image_connections, stamp_of
from dimm_ros.data.bag_transforms import transforms_of
from dimm_ros.doctor.findings import Finding, ok, problem, warning

_GAP_S, _GAP_FACTOR = 0.5, 5.0  # a transform that pauses longer than both is a gap
_FUTURE_S, _LATE_S, _OTHER_CLOCK_S = 0.03, 0.5, 30.0
_AHEAD_S = 1.5  # AMCL and SLAM date map -> odom into the future on purpose
_APART_S = 0.15  # of the clocks of images and transforms


@dataclass
class _FrameSamples:
    """Samples of one child frame, from all topics."""

    parents: dict[str, int] = field(default_factory=dict)
    stamps: list[int] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    static: bool = False


def check_bag(path: str | Path, image_topic: str | None = None, camera_info_topic: str | None = None) -> list[Finding]:
    """Findings about a bag's stamps and transforms.

    Raises:
        DataError: as ``dimm_ros.data.bag.read_bag`` does.
    """
    path = Path(path)
    bag = Bag(path.parent if path.name == "metadata.yaml" else path, ros1=True)
    try:
        images = image_connections(bag, image_topic)
        headers = list(bag.image_headers(images))
        infos = camera_info_connections(bag, camera_info_topic, images[0].topic)
        links = _links(bag, images[0].topic)
        frame_ids = sorted({header.frame_id for header in headers})
        delays = np.array([header.log_ns - header.stamp_ns for header in headers]) * 1e-9
        chain = _chain(links, frame_ids[0]) if frame_ids else []
        found = _clocks(images[0].topic, delays, [links[child] for child in chain if not links[child].static])
        found += _frames(images[0].topic, frame_ids, headers)
        found += _transforms(links, chain)
        count = sum(connection.msgcount for connection in infos)
        if count < 0.5 * len(headers) and count < 10:
            found.append(
                warning(
                    "camera_info",
                    f"{count} messages on {infos[0].topic} for {len(headers)} images",
                    "a driver that publishes it once, or a recorder that missed it",
                    "fine for mapping if the lens does not change; a live localizer needs one after it starts",
                    messages=count,
                )
            )
        return found
    finally:
        bag.close()


def _links(bag: Bag, image_topic: str) -> dict[str, _FrameSamples]:
    links: dict[str, _FrameSamples] = {}
    for _, static, log_ns, transform in transforms_of(bag, image_topic):
        parent = transform.header.frame_id.lstrip("/")
        link = links.setdefault(transform.child_frame_id.lstrip("/"), _FrameSamples())
        link.parents[parent] = link.parents.get(parent, 0) + 1
        link.static |= static
        link.stamps.append(stamp_of(transform))
        link.delays.append((log_ns - link.stamps[-1]) * 1e-9)
    return links


def _chain(links: dict[str, _FrameSamples], frame: str) -> list[str]:
    """Children from the camera up to the root."""
    chain: list[str] = []
    while frame in links and frame not in chain:
        chain.append(frame)
        frame = max(links[frame].parents, key=links[frame].parents.get)
    return chain


def _clocks(topic: str, delays: np.ndarray, dynamic: list[_FrameSamples]) -> list[Finding]:
    """Arrival in the recorder against the stamp."""
    if not len(delays):
        return []
    delay, spread = float(np.median(delays)), float(np.percentile(delays, 95) - np.percentile(delays, 5))
    figures = {"image_delay_s": delay, "image_delay_spread_s": spread}
    words = f"images were recorded {delay:.3f} s after their stamp (5 to 95 %: {spread:.3f} s apart)"
    # Odometry is nearest to the sensor; map -> odom may be dated ahead.
    usual = [float(np.median(link.delays)) for link in dynamic]
    transforms = max(usual, key=lambda value: -abs(value)) if usual else None
    if transforms is not None:
        figures["tf_delay_s"] = transforms
        if abs(delay - transforms) > _OTHER_CLOCK_S:
            return [
                problem(
                    "clocks",
                    f"{words}, transforms {transforms:.3f} s: they are stamped by different clocks",
                    "a camera that stamps by its own clock (since it was switched on)",
                    "let the driver stamp with the host's time, or synchronise the clocks (PTP)",
                    **figures,
                )
            ]
        if abs(delay - transforms) > _APART_S and spread < abs(delay - transforms):
            return [
                warning(
                    "clocks",
                    f"{words}, transforms {transforms:.3f} s",
                    "clocks of two computers that differ, or a slow image pipeline that stamps at the end",
                    "synchronise the clocks (chrony, PTP); see also the time of images and poses",
                    **figures,
                )
            ]
    if -_OTHER_CLOCK_S < delay < -_FUTURE_S:
        return [
            warning(
                "clocks",
                f"images are stamped {-delay:.3f} s after they were recorded",
                "the camera's computer is ahead of the recorder's",
                "synchronise the clocks (chrony, PTP)",
                **figures,
            )
        ]
    if _LATE_S < delay < _OTHER_CLOCK_S:
        return [
            warning(
                "clocks",
                words,
                "a slow image pipeline, queues that age, or clocks that differ",
                "publish compressed images, shorten queues, synchronise clocks",
                **figures,
            )
        ]
    if abs(delay) >= _OTHER_CLOCK_S:
        return [
            ok(
                "clocks",
                "images and transforms go by one clock, the recorder by another (a simulation, or a replayed bag)",
                **figures,
            )
        ]
    return [ok("clocks", words, **figures)]


def _frames(topic: str, frame_ids: list[str], headers: list) -> list[Finding]:
    if "" in frame_ids:
        return [
            problem(
                "frame of the images",
                f"images of {topic} have an empty frame_id",
                "a driver without the parameter frame_id",
                "set it to the camera's optical frame",
            )
        ]
    if len(frame_ids) > 1:
        return [
            warning(
                "frame of the images",
                f"images of {topic} have several frame_ids: {', '.join(frame_ids)}",
                "two cameras on one topic",
                "give each camera its topic",
            )
        ]
    stamps = np.array([header.stamp_ns for header in headers], dtype=np.int64)
    found = []
    back = int((np.diff(stamps) < 0).sum())
    if back:
        found.append(
            warning(
                "order of the images",
                f"the stamps of {topic} go back {back} times",
                "a bag recorded from a looped replay, or two publishers",
                "record once, without a loop",
            )
        )
    repeated = len(stamps) - len(np.unique(stamps))
    if repeated:
        found.append(
            warning(
                "stamps of the images",
                f"{repeated} of {len(stamps)} images of {topic} have the stamp of another one",
                "a driver that rounds its stamps or gives one to several images, or a bag recorded from a looped "
                "replay",
                "let the driver stamp each image with its own time; record once, without a loop",
                repeated=repeated,
            )
        )
    return found


def _transforms(links: dict[str, _FrameSamples], chain: list[str]) -> list[Finding]:
    result, rates = [], []
    for child in chain:
        link = links[child]
        parent = max(link.parents, key=link.parents.get)
        name = f"{parent} -> {child}"
        if len(link.parents) > 1:
            both = ", ".join(sorted(link.parents))
            result.append(
                problem(
                    "TF parents",
                    f"frame {child} has several parents: {both}",
                    "two publishers own it",
                    "switch one of them off before recording",
                )
            )
        if link.static:
            continue
        stamps = np.unique(np.array(link.stamps, dtype=np.int64))
        steps = np.diff(stamps) * 1e-9
        if not len(steps):
            result.append(
                warning(
                    "TF gaps",
                    f"{name} comes once on /tf",
                    "a static transform on the wrong topic",
                    "publish it on /tf_static",
                )
            )
            continue
        usual = float(np.median(steps))
        gaps = np.flatnonzero(steps > max(_GAP_S, _GAP_FACTOR * usual))
        rates.append(f"{name} {1 / usual:.0f} Hz")
        if len(gaps):
            longest = int(gaps[steps[gaps].argmax()])
            result.append(
                warning(
                    "TF gaps",
                    f"{name} pauses {len(gaps)} times (usually {usual:.3f} s apart), "
                    f"longest {steps[longest]:.2f} s at {stamps[longest] * 1e-9:.3f}",
                    "lost messages, or a localization that lost track",
                    "poses are interpolated there; record again, or leave that part out",
                    gaps=len(gaps),
                    longest_s=float(steps[longest]),
                )
            )
        delay = float(np.median(link.delays))
        if -_OTHER_CLOCK_S < delay < -_AHEAD_S or _LATE_S < delay < _OTHER_CLOCK_S:
            result.append(
                warning(
                    "TF clock",
                    f"{name} was recorded {delay:.2f} s after its stamp",
                    "clocks of two computers that differ, or a slow publisher",
                    "synchronise the clocks (chrony, PTP)",
                    delay_s=delay,
                )
            )
    if not result and rates:
        result.append(ok("TF", ", ".join(rates)))
    return result
