"""One thread for inference that always takes the newest item: a slow network never builds up a queue."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class LatestWorker(Generic[Item]):
    """Handles submitted items one at a time on its own thread; while it is busy only the newest waits.

    Args:
        prepare: called once on the thread before the first item.
        handle: called with each item; like ``prepare``, it deals with its own errors.
        name: the thread's name.
    """

    def __init__(self, prepare: Callable[[], None], handle: Callable[[Item], None], name: str) -> None:
        self._prepare, self._handle = prepare, handle
        self._changed = threading.Condition()
        self._waiting: Item | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, item: Item) -> Item | None:
        """Hand over the newest item; returns the one it replaces, which will not be handled."""
        with self._changed:
            replaced, self._waiting = self._waiting, item
            self._changed.notify()
        return replaced

    def clear(self) -> Item | None:
        """Take back the item that waits, if one does."""
        with self._changed:
            taken, self._waiting = self._waiting, None
        return taken

    def stop(self, timeout: float | None = None) -> bool:
        """Ask the thread to end after its present item; returns whether it ended in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self._prepare()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._waiting is not None)
                if self._stopping:
                    return
                item, self._waiting = self._waiting, None
            self._handle(item)
