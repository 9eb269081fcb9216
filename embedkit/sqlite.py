"""SQLite files: opened for writing, or for reading alone where they may not be written.

A file in WAL mode is read with the help of two files beside it, ``-wal`` and ``-shm``, which SQLite makes and who
writes has open. Where this process may not make them and nobody has, no one is writing, and the file is opened as one
that does not change (``immutable``). Then SQLite looks for no changes either, so `SqliteConnection.is_current` does.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TypeAlias

from embedkit.errors import ConfigError

__all__ = ["SqliteConnection", "connect_sqlite", "may_write"]

_Look: TypeAlias = tuple[int, int, int, bool]


class SqliteConnection(sqlite3.Connection):
    """Made by `connect_sqlite`. `writes`: whether the file may be written."""

    writes = True
    _path: Path
    _seen: _Look | None = None  # what a file looked like that is taken for one that does not change

    def is_current(self) -> bool:
        """Whether it sees what others have written since it was opened; if not, a new connection does."""
        return self._seen is None or self._seen == _look(self._path)


def may_write(path: Path) -> bool:
    """Whether this process may write a file, and others beside it; one that is not there is asked of its folder."""
    return os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))


def connect_sqlite(path: Path, *, timeout: float) -> SqliteConnection:
    """A connection that begins no transaction by itself, for use by several threads.

    `timeout`: seconds to wait for a writer. Raises ConfigError for a file whose last changes cannot be read without
    writing, sqlite3.Error.
    """
    if may_write(path):
        return _connect(str(path), timeout)
    seen = _look(path)
    if seen[-1]:  # who writes has left a -shm, by which SQLite reads along
        opened = _connect(f"{_uri(path)}?mode=ro", timeout)
    elif _size(path, "-wal"):
        raise ConfigError(
            f"{path} cannot be read where it cannot be written: its last changes are still in {path.name}-wal; "
            "open it once as a user who may write to its folder"
        )
    else:
        opened = _connect(f"{_uri(path)}?mode=ro&immutable=1", timeout)
        opened._seen = seen
    opened.writes = False
    opened._path = path
    return opened


def _connect(place: str, timeout: float) -> SqliteConnection:
    return sqlite3.connect(
        place,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
        factory=SqliteConnection,
        uri=place.startswith("file:"),
    )


def _uri(path: Path) -> str:
    return path.absolute().as_uri()


def _look(path: Path) -> _Look:
    try:
        stat = os.stat(path)
    except OSError:
        return (0, 0, 0, False)
    return stat.st_ino, stat.st_mtime_ns, stat.st_size, os.path.exists(f"{path}-shm")


def _size(path: Path, ending: str) -> int:
    try:
        return os.stat(f"{path}{ending}").st_size
    except OSError:
        return 0
