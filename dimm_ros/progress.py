"""Callbacks by which long work reports its progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

#: Of work in one stage, called with (items done, items in all); returning True asks to stop where that is possible.
StepCallback = Callable[[int, int], object]


class ProgressCallback(Protocol):
    """Of work in several stages: called with the stage's name, items done, items in all, and at times a note for people
    ("loss 0.12"). Returning True asks to stop at the next safe moment, where the work can be taken up again.
    """

    def __call__(self, stage: str, done: int, total: int, note: str = "", /) -> object: ...
