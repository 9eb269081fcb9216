"""A bounded queue between two threads that gives up when the run stops."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Channel", "Stop", "Stopped"]

T = TypeVar("T")
_POLL = 0.1  # seconds until a waiting thread looks whether the run has stopped


class Stopped(Exception):
    """The run was stopped while this thread waited."""


class Stop:
    """Tells every thread of a run to end, and keeps the first error that made it so."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self.error: BaseException | None = None

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self, error: BaseException | None = None) -> None:
        with self._lock:
            if self.error is None and not self._event.is_set():
                self.error = error
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Sleep, but not beyond the stop; True if the run has stopped."""
        return self._event.wait(seconds)


class Channel(Generic[T]):
    """`put` blocks while `size` items wait, so that memory does not grow with the catalog."""

    def __init__(self, size: int, stop: Stop) -> None:
        self._queue: queue.Queue[T | None] = queue.Queue(size)
        self._stop = stop

    def put(self, item: T) -> None:
        """Raises Stopped."""
        self._put(item)

    def end(self) -> None:
        """No more items; raises Stopped."""
        self._put(None)

    def _put(self, item: T | None) -> None:
        while not self._stop:
            try:
                self._queue.put(item, timeout=_POLL)
            except queue.Full:
                continue
            return
        raise Stopped

    def __iter__(self) -> Iterator[T]:
        """Items until the end; raises Stopped."""
        while not self._stop:
            try:
                item = self._queue.get(timeout=_POLL)
            except queue.Empty:
                continue
            if item is None:
                return
            yield item
        raise Stopped
