"""Archives that stay open between two pictures."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from embedkit.ingest.places.archives import Archive, split_archive
from embedkit.ingest.places.open import open_archive

__all__ = ["OpenArchives"]

_MOST = 8  # archives open at once, beyond those that are being read


@dataclass(slots=True)
class _Held:
    users: int = 0
    archive: Archive | None = None
    error: OSError | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class OpenArchives:
    """Opens each archive once, for all threads; those not read for longest close first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[str, _Held] = OrderedDict()

    def read(self, uri: str, limit: int) -> tuple[bytes, str | None]:
        """Up to `limit` bytes of an archive's member, and the archive's validator. Raises MissingExtra, OSError."""
        inside = split_archive(uri)
        if inside is None:
            raise OSError("it names no member of an archive")
        key = f"{inside.kind}://::{inside.outer}"
        with self._lock:
            held = self._held.setdefault(key, _Held())
            self._held.move_to_end(key)
            held.users += 1
            idle = self._idle()
        for one in idle:
            one.close()
        try:
            archive = _opened(held, key)
            return archive.read(inside.member, limit), archive.validator
        finally:
            with self._lock:
                held.users -= 1

    def _idle(self) -> list[Archive]:
        """Archives to close, taken out."""
        spare = len(self._held) - _MOST
        gone = [key for key, held in self._held.items() if not held.users][: max(0, spare)]
        closed = [self._held.pop(key).archive for key in gone]
        return [archive for archive in closed if archive is not None]

    def close(self) -> None:
        with self._lock:
            every = list(self._held.values())
            self._held.clear()
        for held in every:
            if held.archive is not None:
                held.archive.close()


def _opened(held: _Held, key: str) -> Archive:
    """One thread opens; a damaged archive is not tried again for every picture, one that is not there is."""
    with held.lock:
        if held.archive is None:
            if held.error is not None:
                raise copy.copy(held.error) from held.error
            try:
                held.archive = open_archive(key)
            except (TimeoutError, FileNotFoundError):
                raise
            except OSError as error:
                held.error = error
                raise
        return held.archive
