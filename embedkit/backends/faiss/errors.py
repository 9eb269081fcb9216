"""Errors of the operating system and of SQLite, in embedkit's words."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedkit.errors import (
    BackendUnavailable,
    CollectionNotFound,
    ConfigError,
    DataCorrupt,
    DiskFull,
    EmbedkitError,
)

__all__ = ["broken", "not_found", "translated"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def not_found(name: str) -> CollectionNotFound:
    """The error for a collection that is not there."""
    return CollectionNotFound(f"The backend 'faiss' has no collection {name!r}; create it by ingesting into it")


def broken(place: Path, what: str) -> DataCorrupt:
    """The error for files that do not hold what they should."""
    return DataCorrupt(
        f"{place}: {what}; delete the folder, run embedkit verify --repair for its collection, and ingest again"
    )


@contextmanager
def translated(place: Path, name: str = "") -> Iterator[None]:
    """Raise BackendUnavailable, ConfigError, DataCorrupt or DiskFull for what goes wrong with the files of `place`.

    `name`: the collection that lies there; CollectionNotFound if somebody has dropped it meanwhile.
    """
    try:
        yield
    except EmbedkitError:
        raise
    except sqlite3.Error as error:
        if name and _dropped(place):
            raise not_found(name) from error
        text = str(error)
        if "full" in text or "disk I/O" in text:
            raise _full(place, error) from error
        if "locked" in text or "busy" in text:
            raise BackendUnavailable(f"{place}: another process is writing to it ({error}); try again") from error
        if "readonly" in text:
            raise _closed_to_writes(place) from error
        raise broken(place, f"the row file cannot be read ({error})") from error
    except FileNotFoundError as error:
        if name and _dropped(place):
            raise not_found(name) from error
        if not place.is_dir():
            raise BackendUnavailable(f"{place}: {error.strerror}") from error
        raise broken(place, f"the file {Path(str(error.filename)).name!r} is missing") from error
    except PermissionError as error:
        raise ConfigError(f"{place}: {error.strerror}; check who may read and write there") from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise _closed_to_writes(place) from error
        if error.errno in _FULL:
            raise _full(place, error) from error
        raise BackendUnavailable(f"{place}: {error.strerror or error}") from error


def _dropped(place: Path) -> bool:
    """Whether a collection's folder is gone, and not the place around it."""
    return not place.exists() and place.parent.is_dir()


def _closed_to_writes(place: Path) -> ConfigError:
    return ConfigError(f"{place} may not be written here; check who may write there")


def _full(place: Path, error: Exception) -> DiskFull:
    return DiskFull(f"The disk of {str(place)!r} is full ({error}); free some space and run the same command again")
