"""How many rows filters admit: how far a search looks depends on it, and never what it may find."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Counts"]

_FRESH = 60.0  # seconds
_KEPT = 256  # filters
_LONGEST = 10_000  # characters of a filter that is remembered


class Counts:
    """Counts that are asked for once a minute. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, int]] = {}
        self._lock = threading.Lock()

    def of(self, name: str, expression: str, ask: Callable[[], int]) -> int:
        """The rows of a collection that a filter admits, or did up to a minute ago."""
        with self._lock:
            since, count = self._known.get((name, expression), (-_FRESH, 0))
        if time.monotonic() - since < _FRESH:
            return count
        count = ask()
        if len(expression) <= _LONGEST:
            with self._lock:
                self._known.pop((name, expression), None)  # so that it goes last
                self._known[name, expression] = (time.monotonic(), count)
                while len(self._known) > _KEPT:
                    del self._known[next(iter(self._known))]
        return count

    def forget(self) -> None:
        """Collections have been made, dropped or renamed."""
        with self._lock:
            self._known.clear()
