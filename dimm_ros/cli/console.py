"""What every verb shares: what goes where, progress bars with the time left, exit codes, and errors as one sentence.

Results go to stdout (with ``--json`` nothing but them), everything else to stderr. Where both are one terminal, its
live bars are erased and drawn again by one console, so what is said meanwhile goes through that one. A verb raises a
``DimmError`` for what its user can mend, and lets ``OSError`` pass; ``sentence`` makes one line of either.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleRenderable
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from dimm_ros.cli.plan import StagePlan
from dimm_ros.errors import plain

if TYPE_CHECKING:
    from dimm_ros.mapping.build import BuildResult


class _Plain(Console):
    """A console that shows names in strangers' files as they are: what a terminal would obey is replaced."""

    def render_str(self, text: str, **how) -> Text:
        return super().render_str(plain(text), **how)


class _PlainLog(RichHandler):
    """The same for log messages."""

    def render_message(self, record: logging.LogRecord, message: str) -> ConsoleRenderable:
        return super().render_message(record, plain(message))


console = _Plain()
errors = _Plain(stderr=True)

#: Of every verb. Wrong usage (2) is typer's own: an unknown verb or option, a value of the wrong kind, a missing
#: argument.
EXIT_ERROR, EXIT_USAGE, EXIT_FINDINGS, EXIT_STOPPED = 1, 2, 3, 130

EXIT_CODES = (
    "Exit code: 0 done, 1 it could not be done and one sentence on stderr says why, 2 wrong usage, 3 dimm doctor found "
    "problems or an image was not localized (of eval and demo: none was), 130 stopped with Ctrl-C."
)

_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_RIGHTS = {errno.EACCES, errno.EPERM, errno.EROFS}


def sentence(error: OSError) -> str:
    """Cause and cure of what the operating system refused."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in _SPACE:
        cure = "free some space or write to another disk"
    elif error.errno in _RIGHTS:
        cure = "check who may read and write there, or choose another place"
    else:
        cure = "check the path and the disk"
    return f"{error.strerror or error}{where}; {cure}."


_bars_live = False


def _result_console() -> Console:
    """Where results go: stdout, but where that is a terminal with live bars the console that draws them."""
    return errors if _bars_live and console.is_terminal else console


def say(text: str) -> None:
    """One line of the result, as it is: no markup, no colours, no wrapping, so that scripts can read it and paths stay
    whole.
    """
    _result_console().print(text, markup=False, highlight=False, soft_wrap=True)


def show(table: Table) -> None:
    """A table of the result."""
    _result_console().print(table)


def note(text: str) -> None:
    """One line beside the result, on stderr."""
    errors.print(text, markup=False, highlight=False, soft_wrap=True)


def describe(result: BuildResult, images: int) -> str:
    """One line about a map that was written."""
    size = result.path.stat().st_size / 1e6
    times = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in result.seconds.items())
    return (
        f"{'Map' if result.complete else 'Unfinished but usable map'} of {images} images: {result.path} "
        f"({size:.1f} MB; {times})"
    )


def say_json(content: object) -> None:
    """What ``--json`` prints; NaN and infinity, which JSON lacks, become null."""
    print(json.dumps(_finite(content), indent=2, allow_nan=False))


def _finite(content: object) -> object:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def set_up_logging(verbose: bool) -> None:
    """Our own messages from INFO (DEBUG when verbose), other packages' from WARNING."""
    handler = _PlainLog(console=errors, show_time=False, show_path=False, show_level=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("dimm_ros").setLevel(logging.DEBUG if verbose else logging.INFO)


_COLUMNS = (
    TextColumn("{task.description:>10}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("left"),
    TimeRemainingColumn(),
    TextColumn("{task.fields[note]}"),
)
_TENTHS = 10


class Bars:
    """Progress of stages, each with the time left, and of all together where they are planned.

    ``stop`` becomes true on the first Ctrl-C.

    At a terminal they are live bars, which appear with the first stage; elsewhere a plain line at each tenth.
    """

    def __init__(self, visible: bool) -> None:
        self._visible, self.stop = visible, False
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, tuple[int, float, int]] = {}  # tenths printed, and when and where the stage began
        self._plan: StagePlan | None = None

    def plan(self, usual_seconds: Mapping[str, float]) -> None:
        """Show from now on the time left of all these stages, in order, given their usual times, see ``StagePlan``."""
        self._plan = StagePlan(usual_seconds)

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> bool:
        """Show a stage's progress; returns whether the user asked to stop."""
        left = None if self._plan is None else self._plan.seconds_left(stage, done, total, time.monotonic())
        if self._visible and errors.is_interactive:
            self._draw(stage, done, total, note, left)
        elif self._visible:
            self._tell(stage, done, total, note, left)
        return self.stop

    def close(self) -> None:
        """Leave the bars as they are."""
        global _bars_live
        if self._progress is not None:
            self._progress.stop()
            _bars_live = False

    def _draw(self, stage: str, done: int, total: int, note: str, whole: float | None) -> None:
        global _bars_live
        if self._progress is None:
            # What is printed goes past the bars, unless it is for a file.
            self._progress = Progress(*_COLUMNS, console=errors, redirect_stdout=console.is_terminal)
            self._progress.start()
            _bars_live = True
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, completed=done, note=note)
        if whole is not None and done < total:
            note = f"{note}  all: {_duration(whole)} left".strip()
        self._progress.update(self._tasks[stage], completed=done, total=total, note=note)

    def _tell(self, stage: str, done: int, total: int, text: str, whole: float | None) -> None:
        now, tenths = time.monotonic(), _TENTHS * done // max(total, 1)
        printed, begun, first = self._printed.get(stage, (0, now, done))
        self._printed[stage] = max(printed, tenths), begun, first
        if tenths <= printed:
            return
        left = (now - begun) * (total - done) / (done - first) if done > first else None
        more = [f"{left:.0f} s left"] if left and done < total else []
        more += [] if whole is None or whole < 1 else [f"of all {_duration(whole)} left"]
        note(", ".join([f"{stage}: {100 * tenths // _TENTHS} % ({done} of {total})", *more, *([text] if text else [])]))


def _duration(seconds: float) -> str:
    """For people: 40 s, 12 min, 1 h 30 min."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def bars(*, stoppable: bool = False, visible: bool = True) -> Iterator[Bars]:
    """Progress of what the block does, on stderr.

    Args:
        stoppable: the block heeds what the bars return: the first Ctrl-C asks it to stop safely, the second interrupts
            it. Otherwise the first one interrupts.
        visible: one of several processes shows them, the others heed Ctrl-C only.
    """
    shown = Bars(visible)

    def on_interrupt(*_: object) -> None:
        shown.stop = True
        signal.signal(signal.SIGINT, previous)
        with suppress(OSError):  # past Python's buffer: the signal may have come in the middle of a write to it
            os.write(sys.stderr.fileno(), b"\nstopping at the next safe moment; press Ctrl-C again to stop at once\n")

    previous = signal.signal(signal.SIGINT, on_interrupt) if stoppable else signal.getsignal(signal.SIGINT)
    try:
        yield shown
    finally:
        shown.close()
        signal.signal(signal.SIGINT, previous)
