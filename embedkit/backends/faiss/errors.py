"""Errors of the operating system and of SQLite, in embedkit's words."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedkit.errors import BackendUnavailable, CollectionNotFound, DataCorrupt, DiskFull, EmbedkitError

__all__ = ["not_found", "translated"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def not_found(name: str) -> CollectionNotFound:
    """The error for a collection that is not there."""
    return CollectionNotFound(f"The backend 'faiss' has no collection {name!r}; create it by ingesting into it")


@contextmanager
def translated(place: Path) -> Iterator[None]:
    """Raise DiskFull, BackendUnavailable or DataCorrupt for what goes wrong with the files of `place`."""
    try:
        yield
    except EmbedkitError:
        raise
    except sqlite3.Error as error:
        text = str(error)
        if "full" in text or "disk I/O" in text:
            raise _full(place, error) from error
        if "locked" in text or "busy" in text:
            raise BackendUnavailable(f"{place}: another process is writing to it ({error}); try again") from error
        raise DataCorrupt(
            f"{place}: the row file cannot be read ({error}); delete the folder and ingest again"
        ) from error
    except OSError as error:
        if error.errno in _FULL:
            raise _full(place, error) from error
        raise BackendUnavailable(f"{place}: {error.strerror or error}") from error


def _full(place: Path, error: Exception) -> DiskFull:
    return DiskFull(f"The disk of {str(place)!r} is full ({error}); free some space and run the same command again")
