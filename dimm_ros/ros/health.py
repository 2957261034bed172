"""How far the node's pose can be trusted: counts, rates, the state and memory, without ROS."""

from __future__ import annotations

import enum
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: Results over which rates and latencies are reported.
_WINDOW = 50

#: Without a new result for this long (seconds), a LOCALIZED state is DEGRADED.
_QUIET_S = 1.5

#: Rates of ``Vitals`` are those of this long, seconds, at least.
_SPAN_S = 5.0


class LocalizationState(enum.IntEnum):
    """States of ``dimm_ros/msg/LocalizationStatus``, with its numbers."""

    UNINITIALIZED = 0
    LOCALIZED = 1
    DEGRADED = 2
    LOST = 3


@dataclass(frozen=True)
class Counts:
    """Images since the node was activated."""

    received: int = 0
    answered: int = 0
    rejected: int = 0
    dropped: int = 0


class Health:
    """Counts what happens to images and derives the state; thread safe. Times are the node's clock in nanoseconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Begin anew: after activation."""
        with self._lock:
            self._counts = {"received": 0, "answered": 0, "rejected": 0, "dropped": 0}
        self.forget()

    def forget(self) -> None:
        """Forget the results but not the counts: after a jump back in time."""
        with self._lock:
            self._accepted_ns: int | None = None
            self._result_ns: int | None = None
            self._last_good = False
            self._results: deque[tuple[int, float, float]] = deque(maxlen=_WINDOW)

    def received(self) -> None:
        """An image arrived."""
        with self._lock:
            self._counts["received"] += 1

    def dropped(self) -> None:
        """An image was replaced by a newer one before its turn, or was too old."""
        with self._lock:
            self._counts["dropped"] += 1

    def rejected(self, now_ns: int) -> None:
        """An image gave no pose."""
        with self._lock:
            self._counts["rejected"] += 1
            self._result_ns, self._last_good = now_ns, False

    def answered(self, now_ns: int, total_ms: float, age_ms: float, *, complete: bool = True) -> None:
        """An image gave a pose; incomplete when something else (its TF) could not be published."""
        with self._lock:
            self._counts["answered"] += 1
            self._accepted_ns = self._result_ns = now_ns
            self._last_good = complete
            self._results.append((now_ns, total_ms, age_ms))

    @property
    def counts(self) -> Counts:
        """Counts so far."""
        with self._lock:
            return Counts(**self._counts)

    def state(self, now_ns: int, lost_after_s: float) -> LocalizationState:
        """The state at a time."""
        with self._lock:
            if self._accepted_ns is None:
                return LocalizationState.UNINITIALIZED
            if now_ns - self._accepted_ns > lost_after_s * 1e9:
                return LocalizationState.LOST
            fresh = now_ns - self._result_ns <= _QUIET_S * 1e9
            return LocalizationState.LOCALIZED if self._last_good and fresh else LocalizationState.DEGRADED

    def figures(self) -> dict[str, float]:
        """Rate of poses (hertz) and median latencies (milliseconds) over the latest results; empty without two of
        them.
        """
        with self._lock:
            results = np.array(self._results, dtype=np.float64)
        if len(results) < 2:
            return {}
        span = (results[-1, 0] - results[0, 0]) * 1e-9
        figures = {
            "compute_ms_median": float(np.median(results[:, 1])),
            "image_age_ms_median": float(np.median(results[:, 2])),
        }
        return figures | ({"pose_rate_hz": (len(results) - 1) / span} if span > 0 else {})


class Vitals:
    """Values of ``/diagnostics`` beside the counts: rates in and out, and memory, derived each time they are asked for.

    Args:
        health: the counts.
        clock: steady, seconds.
    """

    def __init__(self, health: Health, clock: Callable[[], float] = time.monotonic) -> None:
        self._health, self._clock = health, clock
        self._past: deque[tuple[float, int, int]] = deque()

    def values(self) -> dict[str, str]:
        """Rates of images and of poses (hertz) since at most a few seconds, and the memory of CUDA (MB) where it is
        used.
        """
        counts, now = self._health.counts, self._clock()
        if self._past and counts.received < self._past[-1][1]:  # activated anew
            self._past.clear()
        self._past.append((now, counts.received, counts.answered))
        while len(self._past) > 2 and now - self._past[1][0] >= _SPAN_S:
            self._past.popleft()
        then, received, answered = self._past[0]
        values = {}
        if now > then:
            values["image_rate_hz"] = f"{(counts.received - received) / (now - then):.1f}"
            values["pose_rate_hz"] = f"{(counts.answered - answered) / (now - then):.1f}"
        return values | _gpu_memory()


def _gpu_memory() -> dict[str, str]:
    # Not imported before a map is loaded; while that goes on in the worker's thread, torch has no cuda yet.
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if not getattr(cuda, "is_initialized", bool)():
        return {}
    used, peak = cuda.memory_reserved(), cuda.max_memory_reserved()
    free, total = cuda.mem_get_info()
    return {
        name: f"{number / 2**20:.0f}"
        for name, number in (
            ("gpu_memory_mb", used),
            ("gpu_memory_peak_mb", peak),
            ("gpu_memory_free_mb", free),
            ("gpu_memory_total_mb", total),
        )
    }
