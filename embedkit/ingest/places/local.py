"""Folders and files of this machine."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Hashable
from typing import BinaryIO
from urllib.parse import unquote

from embedkit.ingest.places.contract import Entry, Place

__all__ = ["LocalPlace", "file_validator", "local_path", "open_regular"]

_SETTLED = 2_000_000_000  # ns; FAT has the coarsest clock
_IRREGULAR = "it is no regular file"


def local_path(text: str) -> str | None:
    """The path that a text names, None if it is a URL of another scheme. Only ``file://`` URLs are decoded.

    >>> local_path("a%20b#1"), local_path("file:///a%20b"), local_path("s3://a/b")
    ('a%20b#1', '/a b', None)
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return text
    if scheme.lower() != "file":
        return None
    _, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return unquote(slash + path)


def open_regular(path: str) -> BinaryIO:
    """Open a file without ever waiting for it: pipes, sockets and devices raise OSError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, _IRREGULAR) from error
        raise
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, os.strerror(number) if stat.S_ISDIR(mode) else _IRREGULAR)
    return os.fdopen(handle, "rb")


def file_validator(found: os.stat_result) -> str | None:
    """What no other content of the file will have; None while a second writing could still get the same times.

    The system sets the time of the last change (ctime) at every writing and renaming, whatever times a tool asks for,
    so a file that took the place of another is seen even with the size and date of the old one.
    """
    if time.time_ns() - found.st_ctime_ns < _SETTLED:
        return None
    return f"file:{found.st_size},{found.st_mtime_ns},{found.st_ctime_ns},{found.st_ino}"


class LocalPlace(Place):
    """Paths are absolute, and are addresses as they stand."""

    def find(self, path: str) -> Entry | None:
        try:
            return _entry(os.path.basename(path), os.stat(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def entries(self, folder: str) -> list[Entry]:
        with os.scandir(folder) as listing:
            return [_listed(entry) for entry in listing]

    def open(self, path: str, *, seek: bool = False) -> BinaryIO:
        del seek
        return open_regular(path)

    def uri(self, path: str) -> str:
        return path

    def beside(self, path: str, reference: str) -> str:
        return reference if reference.startswith("/") else f"{os.path.dirname(path)}/{reference}"

    def identity(self, folder: str) -> Hashable:
        here = os.stat(folder)
        return here.st_dev, here.st_ino


def _listed(entry: os.DirEntry[str]) -> Entry:
    try:
        return _entry(entry.name, entry.stat())
    except OSError:
        return Entry(entry.name, False, "unreadable")


def _entry(name: str, found: os.stat_result) -> Entry:
    return Entry(name, stat.S_ISDIR(found.st_mode), f"{found.st_size},{found.st_mtime_ns}")
