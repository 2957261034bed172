"""Times of the stages that an image goes through."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Times named stages in milliseconds; waits for CUDA so that a stage's time is its own.

    Attributes:
        stages: milliseconds of each stage so far.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.stages: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.stages[stage] = self.stages.get(stage, 0.0) + (time.perf_counter() - start) * 1e3
