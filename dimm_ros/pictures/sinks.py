"""The picture writers that a command line chooses, as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from dimm_ros.data.recording import Frame
from dimm_ros.estimate import Estimate
from dimm_ros.pictures.shown import ShownFrame, ShownRun, Sink

RERUN_FILE, FOXGLOVE_BAG = "rays.rrd", "foxglove"

Show = Callable[[Frame, np.ndarray, Estimate], None]


@contextmanager
def sinks(
    run: ShownRun, folder: Path, *, rerun: bool = False, spawn: bool = False, mcap: bool = False
) -> Iterator[Show | None]:
    """A function that shows a frame, its image and its estimate in every writer that is wanted; None when none is.

    Args:
        run: what is shown.
        folder: where the files go: ``rays.rrd`` and ``foxglove/foxglove.mcap``.
        rerun: write the former.
        spawn: open the rerun viewer.
        mcap: write the latter.

    Raises:
        InputError: rerun-sdk is needed and not installed.
        DataError: the MCAP file cannot be written.
    """
    with ExitStack() as stack:
        opened: list[Sink] = []
        if rerun or spawn:
            from dimm_ros.pictures.rerun_file import rerun_sink

            opened += [stack.enter_context(rerun_sink(run, folder / RERUN_FILE))] if rerun else []
            opened += [stack.enter_context(rerun_sink(run, spawn=True))] if spawn else []
        if mcap:
            from dimm_ros.pictures.foxglove import foxglove_sink

            opened.append(stack.enter_context(foxglove_sink(run, folder / FOXGLOVE_BAG)))

        def show(frame: Frame, image: np.ndarray, estimate: Estimate) -> None:
            shown = ShownFrame.of(frame, image, estimate)
            for sink in opened:
                sink.add(shown)

        yield show if opened else None


def written(folder: Path) -> list[Path]:
    """The files that the writers left in a folder."""
    return [path for path in (folder / RERUN_FILE, folder / FOXGLOVE_BAG / f"{FOXGLOVE_BAG}.mcap") if path.exists()]
