"""Getting the bytes of pictures: local files, http(s) with many at once, anything else through fsspec."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
import threading
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from embedkit.config import FetchSettings
from embedkit.errors import BadImage, FetchFailed, FetchTimeout, MissingExtra
from embedkit.urls import redact

if TYPE_CHECKING:
    import httpx

__all__ = ["FetchedImage", "Fetcher", "content_hash_of", "is_remote"]

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_PAUSE = 60.0  # seconds; a host that asks for more is left alone until the next run
_SOCKET_FILE = "it is no regular file"


@dataclass(frozen=True, slots=True)
class FetchedImage:
    """`data` None: the host says that it has not changed. `validator`: an ETag or date to ask with next time."""

    data: bytes | None
    validator: str | None
    content_hash: str | None


def content_hash_of(data: bytes) -> str:
    """blake2b-128 in hex."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def is_remote(uri: str) -> bool:
    """Whether a picture comes over a network or through fsspec rather than from a local file."""
    scheme, separator, _ = uri.partition("://")
    return bool(separator) and scheme.lower() != "file"


class Fetcher:
    """One event loop in one thread for http(s), a few threads for other schemes; both start when needed."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._loop: _HttpLoop | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False

    def submit(self, uri: str, validator: str | None = None) -> Future[FetchedImage]:
        """Start to fetch a remote picture; the future raises FetchTimeout, FetchFailed or BadImage."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the fetcher is closed")
            if urlsplit(uri).scheme.lower() in ("http", "https"):
                self._loop = self._loop or _HttpLoop(self._settings)
                return self._loop.submit(uri, validator)
            self._pool = self._pool or ThreadPoolExecutor(min(32, self._settings.concurrency), "fetch")
            return self._pool.submit(self._read_other, uri)

    def read_local(self, uri: str) -> FetchedImage:
        """Read a local file, here and now. Raises BadImage."""
        path = unquote(urlsplit(uri).path) if uri.lower().startswith("file://") else uri
        limit = self._settings.max_bytes
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as file:
                size = os.fstat(handle).st_size
                if size > limit:
                    raise BadImage(_too_large(path, size, limit))
                data = file.read(limit + 1)
        except (OSError, ValueError) as error:
            raise BadImage(f"{path}: {_reason(error)}") from error
        if len(data) > limit:
            raise BadImage(_too_large(path, len(data), limit))
        return FetchedImage(data, None, content_hash_of(data))

    def _read_other(self, uri: str) -> FetchedImage:
        import fsspec

        try:
            with fsspec.open(uri, "rb") as file:
                data: bytes = file.read(self._settings.max_bytes + 1)
        except ImportError as error:
            scheme = uri.partition("://")[0]
            raise MissingExtra(f"fsspec for {scheme}", "s3", needed_for=f"Reading {redact(uri)!r}") from error
        except FileNotFoundError as error:
            raise FetchFailed(f"{redact(uri)}: it is not there") from error
        except TimeoutError as error:
            raise FetchTimeout(f"{redact(uri)}: no answer in time") from error
        except Exception as error:
            raise FetchFailed(f"{redact(uri)}: {type(error).__name__}: {error}") from error
        if len(data) > self._settings.max_bytes:
            raise BadImage(_too_large(redact(uri), len(data), self._settings.max_bytes))
        return FetchedImage(data, None, content_hash_of(data))

    def close(self) -> None:
        """Stop what is on its way."""
        with self._lock:
            self._closed = True
            if self._loop is not None:
                self._loop.close()
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return str(error)
    if error.errno == errno.ENXIO:
        return _SOCKET_FILE
    return (error.strerror or str(error)).lower()


def _too_large(name: str, size: int, limit: int) -> str:
    return f"{name}: the file has {size:,} bytes or more; fetch.max_bytes allows {limit:,}"


class _HttpLoop:
    """The thread with the event loop and its pooled client."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fetch-http", daemon=True)
        self._thread.start()
        self._client: httpx.AsyncClient | None = None
        self._all = asyncio.Semaphore(settings.concurrency)
        self._hosts: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(settings.per_host))

    def submit(self, uri: str, validator: str | None) -> Future[FetchedImage]:
        return asyncio.run_coroutine_threadsafe(self._fetch(uri, validator), self._loop)

    def close(self) -> None:
        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._client is not None:
                await self._client.aclose()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _session(self) -> httpx.AsyncClient:
        import httpx

        if self._client is None:
            limits = httpx.Limits(max_connections=self._settings.concurrency, max_keepalive_connections=64)
            self._client = httpx.AsyncClient(
                http2=True,
                follow_redirects=True,
                timeout=self._settings.timeout,
                limits=limits,
                headers={"User-Agent": "embedkit", "Accept": "image/*,*/*;q=0.5"},
            )
        return self._client

    async def _fetch(self, uri: str, validator: str | None) -> FetchedImage:
        host = urlsplit(uri).netloc
        wait = 0.5
        for attempt in range(self._settings.retries + 1):
            try:
                async with self._hosts[host], self._all:
                    return await asyncio.wait_for(self._once(uri, validator), self._settings.timeout)
            except (FetchTimeout, TimeoutError, asyncio.TimeoutError) as error:
                asked = getattr(error, "retry_after", None)
                if attempt == self._settings.retries or (asked or 0) > _LONGEST_PAUSE:
                    text = str(error) or f"{redact(uri)}: no answer in {self._settings.timeout:g} s"
                    raise FetchTimeout(f"{text} (after {attempt + 1} tries)") from error
                await asyncio.sleep(asked if asked is not None else wait * random.uniform(0.5, 1.0))
                wait = min(2 * wait, _LONGEST_PAUSE)
        raise AssertionError("unreachable")

    async def _once(self, uri: str, validator: str | None) -> FetchedImage:
        import httpx

        try:
            async with self._session().stream("GET", uri, headers=_conditional(validator)) as answer:
                if answer.status_code == 304 and validator:
                    return FetchedImage(None, validator, None)
                _check_status(uri, answer.status_code, answer.headers.get("Retry-After"))
                data = await self._body(uri, answer)
                return FetchedImage(data, _validator_of(answer.headers), content_hash_of(data))
        except httpx.TimeoutException as error:
            raise FetchTimeout(f"{redact(uri)}: no answer in {self._settings.timeout:g} s") from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, UnicodeError) as error:
            raise FetchFailed(f"{redact(uri)}: {error}") from error
        except httpx.TransportError as error:
            raise FetchTimeout(f"{redact(uri)}: {error or type(error).__name__}") from error
        except httpx.HTTPError as error:
            raise FetchFailed(f"{redact(uri)}: {error}") from error

    async def _body(self, uri: str, answer: httpx.Response) -> bytes:
        limit, parts, size = self._settings.max_bytes, [], 0
        announced = answer.headers.get("Content-Length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise BadImage(_too_large(redact(uri), int(announced), limit))
        async for part in answer.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > limit:
                raise BadImage(_too_large(redact(uri), size, limit))
        return b"".join(parts)


def _conditional(validator: str | None) -> dict[str, str]:
    if validator is None:
        return {}
    name, _, value = validator.partition(":")
    return {"If-None-Match" if name == "etag" else "If-Modified-Since": value}


def _validator_of(headers: Any) -> str | None:
    if "ETag" in headers:
        return f"etag:{headers['ETag']}"
    return f"date:{headers['Last-Modified']}" if "Last-Modified" in headers else None


def _check_status(uri: str, status: int, retry_after: str | None) -> None:
    if status in _AGAIN:
        error = FetchTimeout(f"{redact(uri)}: the host answers {status}")
        error.retry_after = _seconds(retry_after)  # type: ignore[attr-defined]
        raise error
    if not 200 <= status < 300:
        raise FetchFailed(f"{redact(uri)}: the host answers {status}")


def _seconds(retry_after: str | None) -> float | None:
    """What ``Retry-After`` asks for: seconds or a date."""
    if not retry_after:
        return None
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time())
    except ValueError:
        return None
