"""What every verb shares: the console, progress bars with the time left, and errors as one sentence."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console()
errors = Console(stderr=True)

EXIT_ERROR, EXIT_STOPPED = 2, 130


def set_up_logging(verbose: bool) -> None:
    """Our own messages from INFO (DEBUG when verbose), other packages' from WARNING."""
    handler = RichHandler(console=errors, show_time=False, show_path=False, show_level=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("dimm_ros").setLevel(logging.DEBUG if verbose else logging.INFO)


class Bars:
    """Progress bars, one per stage, each with the time left; ``stop`` becomes true on the first Ctrl-C."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._tasks = progress, {}
        self.stop = False

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> bool:
        """Show a stage's progress; returns whether the user asked to stop."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, completed=done, note=note)
        self._progress.update(self._tasks[stage], completed=done, total=total, note=note)
        return self.stop


@contextmanager
def bars(*, stoppable: bool = False) -> Iterator[Bars]:
    """Progress bars while the block runs.

    Args:
        stoppable: the block heeds what the bars return: the first Ctrl-C asks it to stop safely, the second interrupts it.
            Otherwise the first one interrupts.
    """
    columns = (
        TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=errors) as progress:
        shown = Bars(progress)

        def on_interrupt(*_: object) -> None:
            shown.stop = True
            signal.signal(signal.SIGINT, previous)
            errors.print("stopping at the next safe moment; press Ctrl-C again to stop at once")

        previous = signal.signal(signal.SIGINT, on_interrupt) if stoppable else signal.getsignal(signal.SIGINT)
        try:
            yield shown
        finally:
            signal.signal(signal.SIGINT, previous)
