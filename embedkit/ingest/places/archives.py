"""Zip and tar archives, opened once and read from many threads.

A member is addressed as fsspec does it: ``zip://img/1.jpg::/shop/catalog.zip``. A compressed tar is
unpacked into a temporary file first, since in a compressed stream every step back starts from the beginning.
"""

from __future__ import annotations

import io
import posixpath
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Literal, TypeAlias, cast

from embedkit.ingest.places.contract import Entry, Place, joined
from embedkit.ingest.places.streams import COMPRESSED, Guarded, decompressed, spooled

__all__ = ["Archive", "ArchiveKind", "ArchivePlace", "ArchiveUri", "archive_kind", "split_archive"]

ArchiveKind: TypeAlias = Literal["zip", "tar"]

_SUFFIXES: dict[str, ArchiveKind] = {
    ".zip": "zip",
    ".tar": "tar",
    ".tgz": "tar",
    ".tbz2": "tar",
    ".txz": "tar",
    **{f".tar{suffix}": "tar" for suffix in COMPRESSED},
}
_SHORT = {".tgz": ".gz", ".tbz2": ".bz2", ".txz": ".xz"}
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True)
class ArchiveUri:
    """The parts of ``zip://member::outer``; `member` '' is the archive's root."""

    kind: ArchiveKind
    member: str
    outer: str


def archive_kind(name: str) -> ArchiveKind | None:
    """What archive a file name promises."""
    lower = name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if lower.endswith(suffix)), None)


def split_archive(uri: str) -> ArchiveUri | None:
    """The parts of an archive member's address, None if it is another address.

    >>> split_archive("zip://a/1.jpg::/x.zip")
    ArchiveUri(kind='zip', member='a/1.jpg', outer='/x.zip')
    """
    head, chained, outer = uri.partition("::")
    scheme, separator, member = head.partition("://")
    scheme = scheme.lower()
    if not (chained and separator and outer) or scheme not in ("zip", "tar"):
        return None
    return ArchiveUri("zip" if scheme == "zip" else "tar", member.strip("/"), outer)


class Archive:
    """The members of one archive by normal path. Takes `file` and its place over.

    `validator`: of the file on this machine that all of it lies in. Raises OSError when it is no such archive.
    """

    def __init__(
        self,
        file: BinaryIO,
        kind: ArchiveKind,
        name: str,
        place: Place | None = None,
        *,
        validator: str | None = None,
    ) -> None:
        self.validator = validator
        self._place = place
        self._lock = threading.Lock()
        self._file = file
        self.problems: list[Entry] = []
        self._zip: zipfile.ZipFile | None = None
        self._tar: tarfile.TarFile | None = None
        try:
            if kind == "zip":
                self._zip = zipfile.ZipFile(file)
                found = [(one.filename, one, one.is_dir()) for one in self._zip.infolist()]
                self._members = self._by_path(found)
            else:
                plain = decompressed(file, _long(name))
                self._file = file if plain is file else spooled(plain)
                self._tar = tarfile.open(fileobj=self._file, mode="r:")  # noqa: SIM115  closed in close
                listed = [(one.name, one, one.isdir()) for one in self._tar.getmembers() if _has_bytes(one)]
                _check_end(self._tar, self._file)
                self._members = self._by_path(listed)
        except _DAMAGED as error:
            self.close()
            raise OSError(f"it is no {kind} archive, or it is damaged: {error}") from error
        except BaseException:
            self.close()
            raise

    def _by_path(
        self, found: list[tuple[str, zipfile.ZipInfo, bool]] | list[tuple[str, tarfile.TarInfo, bool]]
    ) -> dict[str, zipfile.ZipInfo | tarfile.TarInfo | None]:
        """None stands for a folder."""
        members: dict[str, zipfile.ZipInfo | tarfile.TarInfo | None] = {}
        for name, info, is_folder in found:
            path, problem = _normal(name)
            if problem:
                self.problems.append(Entry(name, False, _mark(info), problem))
                continue
            if path:
                members[path] = None if is_folder else info
                while (path := posixpath.dirname(path)) and path not in members:
                    members[path] = None
        return members

    def tree(self) -> dict[str, list[Entry]]:
        """What each folder holds; '' is the root."""
        folders: dict[str, list[Entry]] = {"": list(self.problems)}
        for path, info in self._members.items():
            folder, _, name = path.rpartition("/")
            folders.setdefault(folder, []).append(Entry(name, info is None, _mark(info)))
            if info is None:
                folders.setdefault(path, [])
        return folders

    def open(self, path: str) -> BinaryIO:
        """A stream of one member, for the thread that has the archive to itself."""
        return io.BufferedReader(Guarded(self._plain(path), _undamaged))

    def _plain(self, path: str) -> BinaryIO:
        """A stream whose errors are those of the archive."""
        info = self._members.get(path)
        if info is None:
            raise FileNotFoundError(2, "it is not in the archive")
        try:
            with _undamaged():
                if self._zip is not None:
                    return cast("BinaryIO", self._zip.open(cast("zipfile.ZipInfo", info)))
                stream = cast("tarfile.TarFile", self._tar).extractfile(cast("tarfile.TarInfo", info))
        except KeyError as error:
            raise OSError("it is a link to what is not in the archive") from error
        if stream is None:
            raise OSError("it is no regular file")
        return cast("BinaryIO", stream)

    def read(self, path: str, limit: int) -> bytes:
        """Up to `limit` bytes of a member, from any thread.

        ZipFile guards its file by a lock of its own, so that inflating goes on beside; TarFile does not.
        """
        with _undamaged():
            if self._zip is not None:
                with self._plain(path) as stream:
                    return stream.read(limit)
            info = self._members.get(path)
            with self._lock:
                if isinstance(info, tarfile.TarInfo) and info.isreg() and not info.issparse():
                    self._file.seek(info.offset_data)
                    return self._file.read(min(info.size, limit))
                with self._plain(path) as stream:
                    return stream.read(limit)

    def close(self) -> None:
        for opened in (self._zip, self._tar, self._file, self._place):
            if opened is not None:
                opened.close()


def _long(name: str) -> str:
    """The name with ``.tgz`` as ``.gz``, and so on."""
    suffix = posixpath.splitext(name)[1].lower()
    return name + _SHORT.get(suffix, "")


def _check_end(tar: tarfile.TarFile, file: BinaryIO) -> None:
    """To tarfile a header that it cannot read is the end. Raises ReadError where there is more than zeros."""
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("a member in its middle has a broken header")


def _has_bytes(info: tarfile.TarInfo) -> bool:
    return info.isreg() or info.isdir() or info.islnk() or info.issym()


def _normal(name: str) -> tuple[str, str]:
    """The path of a member without ``./``, or the reason why it cannot be used."""
    if name.startswith("/"):
        return "", "its path in the archive is absolute; pack it with relative paths"
    if ".." in name.split("/"):
        return "", "its path leads out of the archive; pack it with plain relative paths"
    if "::" in name:
        return "", "its name holds '::', which an address cannot; rename it"
    path = posixpath.normpath(name)
    return ("" if path == "." else path), ""


def _mark(info: zipfile.ZipInfo | tarfile.TarInfo | None) -> str | None:
    if isinstance(info, zipfile.ZipInfo):
        return f"{info.file_size},{info.CRC}"
    return f"{info.size},{info.mtime}" if info is not None else None


@contextmanager
def _undamaged() -> Iterator[None]:
    """The many errors of a damaged or encrypted member as one OSError."""
    try:
        yield
    except _DAMAGED as error:
        if "encrypted" in str(error):
            raise OSError("it is encrypted; pack the archive without a password") from error
        raise OSError(f"its part of the archive is damaged: {error}") from error


class ArchivePlace(Place):
    """The inside of an archive. `outer`: its absolute path or URL; `mark`: that of the archive as a file."""

    def __init__(self, archive: Archive, kind: ArchiveKind, outer: str) -> None:
        self._archive, self._kind, self._outer = archive, kind, outer
        self._tree = archive.tree()

    def find(self, path: str) -> Entry | None:
        if path in self._tree:
            return Entry(posixpath.basename(path), True, None)
        folder, _, name = path.rpartition("/")
        return next((entry for entry in self._tree.get(folder, ()) if entry.name == name and not entry.problem), None)

    def entries(self, folder: str) -> list[Entry]:
        try:
            listed = self._tree[folder]
        except KeyError:
            raise FileNotFoundError(2, "it is not in the archive") from None
        return [entry for entry in listed if folder or entry.name != "__MACOSX"]

    def open(self, path: str, *, seek: bool = False) -> BinaryIO:
        stream = self._archive.open(path)
        return spooled(stream) if seek and self._kind == "zip" else stream

    def uri(self, path: str) -> str:
        return f"{self._kind}://{path}::{self._outer}"

    def beside(self, path: str, reference: str) -> str:
        folder = posixpath.dirname(path)
        path = posixpath.normpath(joined("" if reference.startswith("/") else folder, reference.lstrip("/")))
        if path.startswith("..") or "::" in path:
            raise ValueError(f"the picture {reference!r} leads out of the archive")
        return self.uri(path)

    def close(self) -> None:
        self._archive.close()
