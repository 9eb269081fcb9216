"""Files behind http(s), read by ranges; from a host that knows no ranges, copied to disk once."""

from __future__ import annotations

import io
import os
import posixpath
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import unquote, urljoin, urlsplit

import httpx

from embedkit.ingest.http import AGAIN
from embedkit.ingest.places.contract import Entry, Place
from embedkit.ingest.places.streams import spool

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["WebPlace"]

_TIMEOUT = 30.0  # seconds for a connection, and between two pieces of an answer
_TRIES = 4
_FIRST, _LARGEST = 64 << 10, 4 << 20  # bytes of a piece; reading on and on makes pieces larger
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Head:
    """What a first question tells of a file. `copy`: where it lies on disk, if its host knows no ranges."""

    size: int
    mark: str | None
    etag: str | None
    date: str | None
    copy: str | None


class WebPlace(Place):
    """Paths are whole URLs. A web server lists nothing, so there are no folders."""

    def __init__(self) -> None:
        self._client = httpx.Client(
            follow_redirects=True,
            timeout=_TIMEOUT,
            headers={"User-Agent": "embedkit", "Accept-Encoding": "identity"},
        )
        self._heads: dict[str, _Head] = {}

    def find(self, path: str) -> Entry | None:
        try:
            head = self._head(path)
        except FileNotFoundError:
            return None
        return Entry(posixpath.basename(unquote(urlsplit(path).path)), False, head.mark)

    def entries(self, folder: str) -> list[Entry]:
        del folder
        raise OSError(
            "a web server does not list its folders; give the URL of a table or of an archive, "
            "for example https://host/products.csv or https://host/shop.zip"
        )

    def open(self, path: str, *, seek: bool = False) -> BinaryIO:
        del seek
        head = self._head(path)
        if head.copy is not None:
            return open(head.copy, "rb")
        return io.BufferedReader(_Ranges(self._client, path, head))

    def uri(self, path: str) -> str:
        return path

    def beside(self, path: str, reference: str) -> str:
        return urljoin(path, reference)

    def _head(self, url: str) -> _Head:
        if url not in self._heads:
            self._heads[url] = _again(lambda: self._asked(url))
        return self._heads[url]

    def _asked(self, url: str) -> _Head:
        with self._client.stream("GET", url, headers={"Range": "bytes=0-0"}) as answer:
            if answer.status_code == 416:
                return _Head(0, None, None, None, None)
            _check(answer)
            etag = answer.headers.get("ETag")
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if answer.status_code == 206 and total.isdecimal():
                copy, size = None, int(total)
            else:
                copy, size = _copied(answer)
        date = answer.headers.get("Last-Modified")
        return _Head(size, etag or (f"{size},{date}" if date else None), etag, date, copy)

    def close(self) -> None:
        self._client.close()
        for head in self._heads.values():
            if head.copy is not None:
                with suppress(OSError):
                    os.unlink(head.copy)
        self._heads.clear()


class _Ranges(io.RawIOBase):
    """Reads from any offset, one request a piece; keeps the last piece."""

    def __init__(self, client: httpx.Client, url: str, head: _Head) -> None:
        self._client, self._url, self._head = client, url, head
        self._at = 0
        self._piece, self._start, self._size = b"", 0, _FIRST

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._head.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        offset = self._at - self._start
        if not 0 <= offset < len(self._piece):
            if self._at >= self._head.size:
                return 0
            offset = 0
            self._read_piece(len(view))
        data = self._piece[offset : offset + len(view)]
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _read_piece(self, wanted: int) -> None:
        goes_on = self._piece and self._at == self._start + len(self._piece)
        self._size = min(2 * self._size, _LARGEST) if goes_on else _FIRST
        end = min(self._at + max(wanted, self._size), self._head.size)
        self._piece, self._start = _again(lambda: self._asked(self._at, end)), self._at

    def _asked(self, start: int, end: int) -> bytes:
        headers = {"Range": f"bytes={start}-{end - 1}"}
        etag = self._head.etag
        if etag and not etag.startswith("W/"):
            headers["If-Range"] = etag
        with self._client.stream("GET", self._url, headers=headers) as answer:
            _check(answer)
            if answer.status_code != 206 or self._changed(answer.headers):
                raise OSError("it has changed while it was read; run the same command again")
            data = answer.read()
        if len(data) != end - start:
            raise httpx.RemoteProtocolError("the answer is cut off")
        return data

    def _changed(self, headers: httpx.Headers) -> bool:
        """Whether the answer tells of another file; what If-Range does not tell where there is no strong ETag."""
        head, size = self._head, headers.get("Content-Range", "").rpartition("/")[2]
        if size.isdecimal() and int(size) != head.size:
            return True
        etag, date = headers.get("ETag"), headers.get("Last-Modified")
        if head.etag and etag:
            return bool(head.etag != etag)
        return bool(head.date and date and head.date != date)


def _copied(answer: httpx.Response) -> tuple[str, int]:
    with tempfile.NamedTemporaryFile(prefix="embedkit-", delete=False) as file:
        try:
            spool(answer.iter_bytes(), file)
        except BaseException:
            os.unlink(file.name)
            raise
        return file.name, file.tell()


def _again(work: Callable[[], T]) -> T:
    """Do it, again after what passes by itself; then any failure as an OSError with a sentence."""
    for attempt in range(_TRIES):
        last = attempt == _TRIES - 1
        try:
            return work()
        except _Busy as error:
            if last:
                raise TimeoutError(str(error)) from error
        except httpx.TimeoutException as error:
            if last:
                raise TimeoutError(f"no answer in {_TIMEOUT:g} s") from error
        except httpx.InvalidURL as error:  # which would show what stands for the port, and may be of a password
            raise OSError("it is no URL; in a password write %40 for @, %2F for /") from error
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, UnicodeError) as error:
            raise OSError(str(error)) from error
        except httpx.HTTPError as error:
            if last:
                raise OSError(f"the host cannot be reached: {error or type(error).__name__}") from error
        time.sleep(0.25 * 2**attempt)
    raise AssertionError("unreachable")


class _Busy(Exception):
    pass


def _check(answer: httpx.Response) -> None:
    status = answer.status_code
    if status in AGAIN:
        raise _Busy(f"the host answers {status}, so try again later")
    if status in (404, 410):
        raise FileNotFoundError(2, f"it is not there (the host answers {status})")
    if status in (401, 403, 407):
        raise PermissionError(13, f"access is denied (the host answers {status})")
    if not answer.is_success:
        raise OSError(f"the host answers {status}")
