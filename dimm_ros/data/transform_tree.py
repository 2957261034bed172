"""A tree of frames with time: what tf2's buffer does, without ROS, for bags and for machines that lack tf2_ros."""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass, field

import numpy as np

from dimm_ros.errors import TransformError, TransformStampError
from dimm_ros.geometry import poses


@dataclass
class _ChildSamples:
    """Samples of one child's pose in its parent, in order of time."""

    parent: str
    static: bool
    stamps: list[int] = field(default_factory=list)
    parent_from_child: list[np.ndarray] = field(default_factory=list)


class TransformTree:
    """Frames linked by stamped transforms; thread safe.

    Args:
        max_age_s: samples older than this before a link's newest are forgotten; None keeps all.
        max_gap_s: samples farther apart than this are not interpolated between; None interpolates any.
    """

    def __init__(self, max_age_s: float | None = None, max_gap_s: float | None = None) -> None:
        self._max_age_ns = None if max_age_s is None else round(max_age_s * 1e9)
        self._max_gap_ns = None if max_gap_s is None else round(max_gap_s * 1e9)
        self._links: dict[str, _ChildSamples] = {}
        self._other_parents: dict[str, set[str]] = {}
        self._lock = threading.RLock()

    def add(self, parent: str, child: str, stamp_ns: int, parent_from_child: np.ndarray, static: bool = False) -> None:
        """Add one transform; leading slashes of frame names are dropped, as in tf2.

        A child that comes with another parent leaves its old one, and its history there is forgotten.

        Args:
            parent, child: frame names.
            stamp_ns: time; ignored for a static transform.
            parent_from_child: (4, 4).

        Raises:
            TransformError: an empty name, a frame that is its own parent, or a transform with NaN.
        """
        parent, child = parent.lstrip("/"), child.lstrip("/")
        if not parent or not child:
            raise TransformError(
                f"A transform from '{child}' to '{parent}' has an empty frame name; check its publisher."
            )
        if parent == child:
            raise TransformError(f"A transform links frame '{child}' to itself; check its publisher.")
        pose = np.array(parent_from_child, dtype=np.float64)
        if pose.shape != (4, 4) or not np.isfinite(pose).all():
            raise TransformError(
                f"The transform '{parent}' -> '{child}' holds NaN or infinite values; check its publisher."
            )
        with self._lock:
            link = self._links.get(child)
            if link is None or link.parent != parent or link.static != static:
                if link is not None and link.parent != parent:
                    self._other_parents.setdefault(child, set()).add(link.parent)
                link = self._links[child] = _ChildSamples(parent, static)
            if static:
                link.stamps, link.parent_from_child = [0], [pose]
                return
            self._insert(link, int(stamp_ns), pose)

    def _insert(self, link: _ChildSamples, stamp: int, pose: np.ndarray) -> None:
        stamps = link.stamps
        if not stamps or stamp > stamps[-1]:
            stamps.append(stamp)
            link.parent_from_child.append(pose)
        else:
            if self._max_age_ns is not None and stamp < stamps[-1] - self._max_age_ns:
                return
            place = bisect_left(stamps, stamp)
            if stamps[place] == stamp:
                link.parent_from_child[place] = pose
            else:
                stamps.insert(place, stamp)
                link.parent_from_child.insert(place, pose)
        if self._max_age_ns is not None:
            expired = bisect_left(stamps, stamps[-1] - self._max_age_ns)
            # Deleting from the front moves the rest, so wait until it is worth it.
            if expired > 32 or (expired and expired * 2 > len(stamps)):
                del stamps[:expired], link.parent_from_child[:expired]

    def clear(self) -> None:
        """Forget everything (after a jump back in time)."""
        with self._lock:
            self._links.clear()
            self._other_parents.clear()

    @property
    def frames(self) -> tuple[str, ...]:
        """Names of all frames, sorted."""
        with self._lock:
            return tuple(sorted({*self._links, *(link.parent for link in self._links.values())}))

    def lookup(self, target: str, source: str, stamp_ns: int | None) -> np.ndarray:
        """(4, 4) target_from_source at a time, interpolated between samples and never extrapolated.

        Args:
            target, source: frame names.
            stamp_ns: the time; None means the latest at which all links of the chain have data.

        Raises:
            TransformError: a frame does not exist, or nothing links the two; the text names what is there.
            TransformStampError: a link of the chain has no data at the stamp; the text says which and by how much.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        with self._lock:
            up_from_source, up_from_target = self._chain(target, source)
            if stamp_ns is None:
                stamp_ns = self._latest(up_from_source + up_from_target)
            return poses.invert(self._compose(up_from_target, stamp_ns)) @ self._compose(up_from_source, stamp_ns)

    def latest_stamp(self, target: str, source: str) -> int | None:
        """Latest time (ns) at which the two frames can be related; None when only static links lie between.

        Raises:
            TransformError: a frame does not exist, or nothing links the two.
        """
        with self._lock:
            up_from_source, up_from_target = self._chain(target.lstrip("/"), source.lstrip("/"))
            chain = up_from_source + up_from_target
            return None if all(self._links[child].static for child in chain) else self._latest(chain)

    def chain(self, target: str, source: str) -> tuple[str, ...]:
        """Child frames of the links between two frames.

        Raises:
            TransformError: a frame does not exist, or nothing links the two.
        """
        with self._lock:
            up_from_source, up_from_target = self._chain(target.lstrip("/"), source.lstrip("/"))
            return (*up_from_source, *up_from_target)

    def _latest(self, children: list[str]) -> int:
        return min((self._links[child].stamps[-1] for child in children if not self._links[child].static), default=0)

    def _ancestors(self, frame: str) -> list[str]:
        """The frame, its parent, and so on to the root; a loop of frames ends where it closes."""
        chain = [frame]
        while chain[-1] in self._links and (parent := self._links[chain[-1]].parent) not in chain:
            chain.append(parent)
        return chain

    def _chain(self, target: str, source: str) -> tuple[list[str], list[str]]:
        """Children of the links to climb from source and from target to their nearest common ancestor."""
        if target == source:
            return [], []
        known = set(self.frames)
        missing = [f"'{frame}'" for frame in (target, source) if frame not in known]
        if missing:
            there = f"the frames are {_listed(known)}" if known else "there is no transform at all"
            verb = "does" if len(missing) == 1 else "do"
            raise TransformError(
                f"Frame{'s' if len(missing) > 1 else ''} {' and '.join(missing)} {verb} not exist in TF; {there}."
            )
        from_source, from_target = self._ancestors(source), self._ancestors(target)
        common = next((frame for frame in from_source if frame in from_target), None)
        if common is None:
            raise TransformError(
                f"TF does not link '{target}' to '{source}': "
                f"{_listed(self._connected(target))} and {_listed(self._connected(source))} are two separate trees"
                f"{self._parents_hint(from_source + from_target)}."
            )
        return from_source[: from_source.index(common)], from_target[: from_target.index(common)]

    def _connected(self, frame: str) -> set[str]:
        """All frames of the tree that a frame belongs to."""
        root = self._ancestors(frame)[-1]
        return {other for other in self.frames if root in self._ancestors(other)}

    def _parents_hint(self, frames: list[str]) -> str:
        for child in frames:
            others = (
                self._other_parents.get(child, set()) - {self._links[child].parent} if child in self._links else set()
            )
            if others:
                both = _listed({*others, self._links[child].parent})
                return f" ('{child}' is published with several parents, {both}; only one publisher may own it)"
        return ""

    def _compose(self, children: list[str], stamp: int) -> np.ndarray:
        """ancestor_from_frame of the chain of links."""
        result = np.eye(4)
        for child in children:
            result = self._sample(child, stamp) @ result
        return result

    def _sample(self, child: str, stamp: int) -> np.ndarray:
        link = self._links[child]
        if link.static:
            return link.parent_from_child[0]
        stamps = link.stamps
        name = f"'{link.parent}' -> '{child}'"
        if stamp > stamps[-1]:
            raise TransformStampError(
                f"Transform {name} ends {(stamp - stamps[-1]) * 1e-9:.3f} s before the requested time "
                f"{_seconds(stamp)}; its last is of {_seconds(stamps[-1])}{self._parents_hint([child])}."
            )
        if stamp < stamps[0]:
            raise TransformStampError(
                f"Transform {name} begins {(stamps[0] - stamp) * 1e-9:.3f} s after the requested time "
                f"{_seconds(stamp)}; its first is of {_seconds(stamps[0])}{self._parents_hint([child])}."
            )
        right = bisect_left(stamps, stamp)
        if stamps[right] == stamp:
            return link.parent_from_child[right]
        left = right - 1
        gap = stamps[right] - stamps[left]
        if self._max_gap_ns is not None and gap > self._max_gap_ns:
            raise TransformStampError(
                f"Transform {name} has a gap of {gap * 1e-9:.3f} s around the requested time {_seconds(stamp)}, "
                f"more than the {self._max_gap_ns * 1e-9:g} s that are interpolated."
            )
        # Nanoseconds since 1970 do not fit a float64: only differences are handed on.
        pair = np.stack([link.parent_from_child[left], link.parent_from_child[right]])
        return poses.interpolate(np.array([0, gap]), pair, stamp - stamps[left])


def _listed(frames: set[str]) -> str:
    return ", ".join(f"'{frame}'" for frame in sorted(frames))


def _seconds(stamp: int) -> str:
    return f"{stamp // 10**9}.{stamp % 10**9 // 10**6:03d} s"
