"""Values of ``/diagnostics`` beside the counts: rates in and out, and memory."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable

from dimm_ros.ros.health import Health

#: Rates are those of this long, seconds, at least.
_SPAN_S = 5.0


class Vitals:
    """Derives values from what is there already, each time it is asked.

    Args:
        health: the counts.
        clock: steady, seconds.
    """

    def __init__(self, health: Health, clock: Callable[[], float] = time.monotonic) -> None:
        self._health, self._clock = health, clock
        self._past: deque[tuple[float, int, int]] = deque()

    def values(self) -> dict[str, str]:
        """Rates of images and of poses (hertz) since at most a few seconds, and the memory of CUDA (MB) where it is used."""
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
    return {name: f"{number / 2**20:.0f}" for name, number in (
        ("gpu_memory_mb", used), ("gpu_memory_peak_mb", peak), ("gpu_memory_free_mb", free), ("gpu_memory_total_mb", total),
    )}
