"""Where time begins anew inside a bag, so that images of one run never meet transforms of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimm_ros.data.bag_file import Header

_BACK_NS = 500_000_000  # a stamp so far behind the one before is no message that overtook another
_AROUND = 3  # images on either side: one wrong stamp among right ones is no new beginning


@dataclass(frozen=True)
class BagStretch:
    """A stretch of a bag in which time runs forward.

    Attributes:
        headers: of its images, in the order of recording.
        before: the last image of the stretch before, None at the bag's beginning.
        after: the first image of the next stretch, None at the bag's end.
    """

    headers: list[Header]
    before: Header | None = None
    after: Header | None = None

    def holds(self, log_ns: int, stamp_ns: int) -> bool:
        """Whether a message recorded at ``log_ns`` with the stamp ``stamp_ns`` was recorded in this stretch."""
        begun = self.before is None or _is_later(self.before, self.headers[0], log_ns, stamp_ns)
        return begun and not (self.after is not None and _is_later(self.headers[-1], self.after, log_ns, stamp_ns))


def longest_run(headers: list[Header]) -> tuple[BagStretch, str]:
    """The stretch with most images, and a sentence about the others, empty where there are none.

    Args:
        headers: of all images, in the order of recording, at least one.
    """
    stamps = np.array([header.stamp_ns for header in headers], dtype=np.int64)
    cuts = [
        int(index)
        for index in np.flatnonzero(np.diff(stamps) < -_BACK_NS) + 1
        if np.median(stamps[index : index + _AROUND]) < np.median(stamps[max(0, index - _AROUND) : index]) - _BACK_NS
    ]
    if not cuts:
        return BagStretch(headers), ""
    bounds = [0, *cuts, len(headers)]
    begin, end = max(zip(bounds, bounds[1:]), key=lambda pair: pair[1] - pair[0])
    back = (stamps[cuts[0] - 1] - stamps[cuts[0]]) * 1e-9
    topic = headers[0].connection.topic
    times = f"{len(cuts)} time{'s' if len(cuts) > 1 else ''}, first by {back:.3f} s"
    note = (
        f"The stamps of {topic} go back {times} (a second run, a looped replay, or a clock that was set): only the "
        f"longest stretch, {end - begin} of {len(headers)} images, was read; record each run as its own bag."
    )
    before, after = headers[begin - 1] if begin else None, headers[end] if end < len(headers) else None
    return BagStretch(headers[begin:end], before, after), note


def _is_later(last: Header, first: Header, log_ns: int, stamp_ns: int) -> bool:
    """Whether a message is of the stretch that begins with ``first``; between the two the nearer stamp tells."""
    if not last.log_ns < log_ns < first.log_ns:
        return log_ns >= first.log_ns
    return abs(stamp_ns - first.stamp_ns) < abs(stamp_ns - last.stamp_ns)
