"""Pictures over http(s): one pooled client on an event loop in a thread of its own.

Bounded are the pictures on their way, those of one host (also of a host that a redirect leads to), the
seconds of one try, the bytes after decompression and the number of tries.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from embedkit.config import FetchSettings
from embedkit.errors import BadImage, FetchFailed, FetchTimeout
from embedkit.ingest.fetched import FetchedImage, fetched, too_large
from embedkit.urls import redact

if TYPE_CHECKING:
    import httpx

__all__ = ["AGAIN", "HttpLoop"]

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses after which asking again may help
_LONGEST_PAUSE = 60.0  # seconds; a host that asks for more is left alone until the next run
_MOST_REDIRECTS = 10
_CONNECTIONS = 4  # of one client
_LAST_PORT = 65_535


@dataclass(slots=True)
class _Client:
    """A client with its pool, and how many requests it has under way."""

    session: httpx.AsyncClient
    busy: int = 0


class HttpLoop:
    """The thread with the event loop and its client."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fetch-http", daemon=True)
        self._thread.start()
        self._clients: list[_Client] = []
        self._tls: ssl.SSLContext | None = None
        self._all = asyncio.Semaphore(settings.concurrency)
        self._hosts: dict[tuple[str, int | None], asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(settings.per_host)
        )

    def submit(self, uri: str, validator: str | None) -> Future[FetchedImage]:
        """Start a picture; the future raises FetchTimeout, FetchFailed or BadImage."""
        return asyncio.run_coroutine_threadsafe(self._fetch(uri, validator), self._loop)

    def close(self) -> None:
        """Stop what is on its way."""

        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for client in self._clients:
                await client.session.aclose()

        try:
            asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    def _client(self) -> _Client:
        """The first client with a free connection: a pool looks at all its connections for every request,
        squared, so that a few small ones are several times as fast as a large one.
        """
        import httpx

        free = next((client for client in self._clients if client.busy < _CONNECTIONS), None)
        if free is None:
            self._tls = self._tls or httpx.create_ssl_context()
            session = httpx.AsyncClient(
                http2=True,
                verify=self._tls,
                timeout=self._settings.timeout,
                limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
                headers={
                    "User-Agent": "embedkit",
                    "Accept": "image/*,*/*;q=0.5",
                    "Accept-Encoding": "identity",  # pictures are compressed already
                },
            )
            self._clients.append(free := _Client(session))
        return free

    async def _fetch(self, uri: str, validator: str | None) -> FetchedImage:
        wait = 0.5
        for attempt in range(self._settings.retries + 1):
            try:
                return await self._once(uri, validator)
            except FetchTimeout as error:
                asked = getattr(error, "retry_after", None)
                if attempt == self._settings.retries or (asked or 0) > _LONGEST_PAUSE:
                    raise FetchTimeout(f"{error} (after {attempt + 1} tries)") from error
                await asyncio.sleep(asked if asked is not None else wait * random.uniform(0.5, 1.0))
                wait = min(2 * wait, _LONGEST_PAUSE)
        raise AssertionError("unreachable")

    async def _once(self, uri: str, validator: str | None) -> FetchedImage:
        """One try, with all its redirects; `timeout` is for all of them, waiting for a turn apart."""
        import httpx

        left = self._settings.timeout
        try:
            request: httpx.Request | None = self._client().session.build_request(
                "GET", uri, headers=_conditional(validator)
            )
            for _ in range(_MOST_REDIRECTS + 1):
                if request is None:
                    raise FetchFailed(f"{redact(uri)}: the host redirects to nowhere")
                here = request
                if not 0 <= (here.url.port or 0) <= _LAST_PORT:  # asyncio would raise an OverflowError
                    raise FetchFailed(f"{redact(uri)}: there is no port {here.url.port}; the last is {_LAST_PORT}")
                async with self._turn(here.url):
                    begun = monotonic()
                    request, found = await asyncio.wait_for(self._asked(here, uri, validator), left)
                    left -= monotonic() - begun
                if found is not None:
                    return found
        except (httpx.TimeoutException, TimeoutError, asyncio.TimeoutError) as error:
            raise FetchTimeout(f"{redact(uri)}: no answer in {self._settings.timeout:g} s") from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            reason = str(error) if redact(uri) == uri else "it is no URL; in a password write %40 for @, %2F for /"
            raise FetchFailed(f"{redact(uri)}: {reason}") from error  # the error would show a part of the password
        except httpx.TransportError as error:
            raise _unreachable(uri, error) from error
        except httpx.HTTPError as error:
            raise FetchFailed(f"{redact(uri)}: {error}") from error
        raise FetchFailed(f"{redact(uri)}: the host redirects more than {_MOST_REDIRECTS} times")

    @asynccontextmanager
    async def _turn(self, url: httpx.URL) -> AsyncIterator[None]:
        async with self._hosts[url.host, url.port], self._all:
            yield

    async def _asked(
        self, request: httpx.Request, uri: str, validator: str | None
    ) -> tuple[httpx.Request | None, FetchedImage | None]:
        """The picture, or the request to which the host redirects; httpx takes credentials out of that one."""
        client = self._client()
        client.busy += 1
        try:
            answer = await client.session.send(request, stream=True)
        except BaseException:
            client.busy -= 1
            raise
        try:
            if answer.has_redirect_location:
                return answer.next_request, None
            if answer.status_code == 304 and validator:
                return None, FetchedImage(None, validator, None)
            _check_status(uri, answer.status_code, answer.headers.get("Retry-After"))
            return None, fetched(await self._body(uri, answer), _validator_of(answer.headers))
        finally:
            client.busy -= 1
            await answer.aclose()

    async def _body(self, uri: str, answer: httpx.Response) -> bytes:
        limit, parts, size = self._settings.max_bytes, [], 0
        announced = answer.headers.get("Content-Length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise BadImage(too_large(redact(uri), int(announced), limit))
        async for part in answer.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > limit:
                raise BadImage(too_large(redact(uri), size, limit))
        return b"".join(parts)


def _unreachable(uri: str, error: httpx.TransportError) -> FetchFailed | FetchTimeout:
    """What no second try changes, apart from what may pass: no such host, a certificate that does not hold."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
            return FetchFailed(f"{redact(uri)}: there is no such host")
        if isinstance(cause, ssl.SSLCertVerificationError):
            return FetchFailed(f"{redact(uri)}: its certificate does not hold: {cause.verify_message}")
        cause = cause.__cause__ or cause.__context__
    return FetchTimeout(f"{redact(uri)}: {error or type(error).__name__}")


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
    if status in AGAIN:
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
