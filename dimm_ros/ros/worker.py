"""One thread for inference that always takes the newest item: a slow network never builds up a queue."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class LatestWorker(Generic[Item]):
    """Handles submitted items one at a time on its own thread; while it is busy only the newest waits.

    Args:
        prepare: called once on the thread before the first item.
        handle: called with each item.
        name: the thread's name.
        on_error: called, on the thread, with what any of these raises; the thread goes on with what comes next.
    """

    def __init__(
        self,
        prepare: Callable[[], None],
        handle: Callable[[Item], None],
        name: str,
        on_error: Callable[[Exception], object],
    ) -> None:
        self._handle, self._on_error = handle, on_error
        self._changed = threading.Condition()
        self._calls: deque[Callable[[], None]] = deque([prepare])
        self._waiting: Item | None = None
        self._busy = self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, item: Item) -> Item | None:
        """Hand over the newest item; returns the one it replaces, which will not be handled."""
        with self._changed:
            replaced, self._waiting = self._waiting, item
            self._changed.notify_all()
        return replaced

    def call(self, function: Callable[[], None]) -> None:
        """Have something done on the thread, before the next item."""
        with self._changed:
            self._calls.append(function)
            self._changed.notify_all()

    def clear(self) -> Item | None:
        """Take back the item that waits, if one does."""
        with self._changed:
            taken, self._waiting = self._waiting, None
        return taken

    def settle(self, timeout: float) -> bool:
        """Take back what waits, and wait until the present item is done; returns whether it was in time."""
        with self._changed:
            self._waiting = None
            return self._changed.wait_for(lambda: not self._busy, timeout)

    def stop(self, timeout: float | None = None) -> bool:
        """Ask the thread to end after its present item; returns whether it ended in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._stopping or self._calls or self._waiting is not None)
                if self._stopping:
                    return
                self._busy = True
                if self._calls:
                    function = self._calls.popleft()
                else:
                    item, self._waiting = self._waiting, None
                    function = lambda item=item: self._handle(item)  # noqa: E731
                    del item  # an image has a megabyte
            try:
                function()
            except Exception as error:  # noqa: BLE001  a thread that ends takes the robot's localization with it
                self._on_error(error)
            del function
