"""Files that are there whole or not at all, whenever the power fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary neighbour of a file to write to, which takes the file's place when the block ends without an error.

    What was written is on the disk before the name points to it, so neither a full disk nor a crash nor a power cut
    leaves anything but the old file or the new one. Missing folders are made.

    Raises:
        OSError: a folder cannot be made, or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part{os.getpid()}")
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    with suppress(OSError):  # a file system that cannot sync folders has the new name all the same
        _sync(path.parent)


def write_whole(path: Path, text: str) -> Path:
    """The same for a text; raises OSError."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
