"""Streams of bytes: guarded, decompressed, copied to disk where a reader must jump about."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["COMPRESSED", "Guarded", "buffered", "decompressed", "spool", "spooled"]

COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst"})
_BUFFER = 1 << 20
_MOST = 64 << 30  # bytes of a copy: what grows beyond is taken for a bomb
_SPARE = 1 << 30  # bytes of the disk that a copy leaves free, a tenth of a small disk


def buffered(stream: BinaryIO) -> io.BufferedReader:
    """Read ahead, with `peek`."""
    if isinstance(stream, io.BufferedReader):
        return stream
    return io.BufferedReader(cast("io.RawIOBase", stream), _BUFFER)


class Guarded(io.RawIOBase):
    """A stream whose own kinds of errors come out as OSError: `guard` is around every step and translates them."""

    def __init__(self, inner: Any, guard: Callable[[], AbstractContextManager[None]]) -> None:
        self._inner, self._guard = inner, guard

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._inner.seekable())

    def tell(self) -> int:
        return int(self._inner.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._guard():
            return int(self._inner.seek(offset, whence))

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        with self._guard():
            data = cast("bytes", self._inner.read(len(view)))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
        super().close()


def decompressed(stream: BinaryIO, name: str) -> BinaryIO:
    """The stream as it was before compression, if the name ends in one of COMPRESSED; closing it closes both."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in COMPRESSED:
        return stream
    return cast("BinaryIO", io.BufferedReader(_Inner(stream, suffix), _BUFFER))


class _Inner(io.RawIOBase):
    """A decompressor together with what it reads from, and its many errors as one OSError."""

    def __init__(self, outer: BinaryIO, suffix: str) -> None:
        self._outer = outer
        self._inner = _decompressor(outer, suffix)
        self._name = suffix[1:]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        try:
            data = self._inner.read(len(view))
        except OSError as error:
            raise OSError(f"the {self._name} compression is damaged: {error}") from error
        except (EOFError, lzma.LZMAError, ValueError, zlib.error) as error:
            raise OSError(f"the {self._name} compression is damaged or cut off: {error}") from error
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
            self._outer.close()
        super().close()


def _decompressor(stream: BinaryIO, suffix: str) -> BinaryIO:
    if suffix == ".gz":
        return cast("BinaryIO", gzip.GzipFile(fileobj=stream))
    if suffix == ".bz2":
        return cast("BinaryIO", bz2.BZ2File(stream))
    if suffix == ".xz":
        return cast("BinaryIO", lzma.LZMAFile(stream))
    import pyarrow

    return cast("BinaryIO", pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, "r"), "zstd"))


def spool(parts: Iterable[bytes], file: IO[bytes]) -> None:
    """Write a copy into a temporary file. Raises OSError when it grows too large, or would fill the disk."""
    written, folder = 0, tempfile.gettempdir()
    for part in parts:
        written += len(part)
        if written > _MOST:
            raise OSError(
                f"it is larger than {_MOST / 2**30:g} GiB where it must be copied or unpacked to be read; unpack it "
                "yourself and give the folder"
            )
        disk = shutil.disk_usage(folder)
        if disk.free - len(part) < min(_SPARE, disk.total // 10):
            raise OSError(
                f"its copy in {folder} would fill the disk, at {written / 2**20:,.0f} MiB; set TMPDIR to a folder "
                "with more room"
            )
        file.write(part)


def spooled(stream: BinaryIO) -> BinaryIO:
    """A copy in a file without a name, which goes when it is closed; `stream` is closed. Raises OSError as `spool`."""
    file = tempfile.TemporaryFile(prefix="embedkit-")  # noqa: SIM115  handed to the caller
    try:
        with stream:
            spool(iter(lambda: stream.read(_BUFFER), b""), file)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return cast("BinaryIO", file)
