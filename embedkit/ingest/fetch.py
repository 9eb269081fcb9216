"""Getting the bytes of pictures: local files, archives, http(s) with many at once, anything else through fsspec."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from embedkit.config import FetchSettings
from embedkit.errors import BadImage, EmbedkitError, FetchFailed, FetchTimeout
from embedkit.ingest.fetched import FetchedImage, content_hash_of, fetched, too_large
from embedkit.ingest.http import HttpLoop
from embedkit.ingest.places.archives import split_archive
from embedkit.ingest.places.contract import reason_of
from embedkit.ingest.places.held import OpenArchives
from embedkit.ingest.places.local import file_validator, local_path, open_regular
from embedkit.ingest.places.open import is_web, validator_at
from embedkit.ingest.places.remote import RemotePlace
from embedkit.urls import redact

__all__ = ["FetchedImage", "Fetcher", "content_hash_of", "is_remote"]


def is_remote(uri: str) -> bool:
    """Whether a picture comes over a network or through fsspec rather than from a local file or archive.

    >>> [is_remote(uri) for uri in ("a.png", "file:///a.png", "zip://a.png::/x.zip", "zip://a.png::s3://b/x.zip")]
    [False, False, False, True]
    """
    inside = split_archive(uri)
    return is_remote(inside.outer) if inside is not None else local_path(uri) is None


class Fetcher:
    """One event loop in one thread for http(s), a few threads for other schemes; both start when needed.

    An archive is opened once and stays open until the end.
    """

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._loop: HttpLoop | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._archives = OpenArchives()
        self._closed = False

    def submit(self, uri: str, validator: str | None = None) -> Future[FetchedImage]:
        """Start to fetch a remote picture; the future raises FetchTimeout, FetchFailed, BadImage or MissingExtra.

        With the `validator` of an earlier fetch, only what is new since is fetched.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the fetcher is closed")
            if is_web(uri):
                self._loop = self._loop or HttpLoop(self._settings)
                return self._loop.submit(uri, validator)
            self._pool = self._pool or ThreadPoolExecutor(min(32, self._settings.concurrency), "fetch")
            return self._pool.submit(self._read_other, uri, validator)

    def read_local(self, uri: str, validator: str | None = None) -> FetchedImage:
        """Read a local file or a member of a local archive, here and now. Raises BadImage.

        With the `validator` of an earlier reading, only if the file has been touched since.
        """
        if validator is not None and validator == validator_at(uri):
            return FetchedImage(None, validator, None)
        limit = self._settings.max_bytes
        inside = split_archive(uri) is not None
        path = uri if inside else local_path(uri) or uri
        try:
            data, told = self._archives.read(uri, limit + 1) if inside else _file(path, limit)
        except (OSError, ValueError) as error:
            raise BadImage(f"{path}: {reason_of(error).lower()}") from error
        if len(data) > limit:
            raise BadImage(too_large(path, len(data), limit))
        return fetched(data, told)

    def _read_other(self, uri: str, validator: str | None) -> FetchedImage:
        limit = self._settings.max_bytes
        try:
            if split_archive(uri):
                data, told = self._archives.read(uri, limit + 1)
            else:
                place = RemotePlace(uri)
                if validator is not None and validator == place.validator():
                    return FetchedImage(None, validator, None)
                data, told = place.read(limit + 1)
        except EmbedkitError:
            raise
        except TimeoutError as error:
            raise FetchTimeout(f"{redact(uri)}: {reason_of(error)}") from error
        except (OSError, ValueError) as error:
            raise FetchFailed(f"{redact(uri)}: {reason_of(error)}") from error
        if len(data) > limit:
            raise BadImage(too_large(redact(uri), len(data), limit))
        return fetched(data, told)

    def close(self) -> None:
        """Stop what is on its way."""
        with self._lock:
            self._closed = True
            if self._loop is not None:
                self._loop.close()
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)
        self._archives.close()


def _file(path: str, limit: int) -> tuple[bytes, str | None]:
    """Up to a byte more than `limit`, and its validator; of a file that says it is larger, a message and no bytes."""
    with open_regular(path) as file:
        found = os.fstat(file.fileno())  # before the bytes: what is written while they are read is newer than this
        if found.st_size > limit:
            raise BadImage(too_large(path, found.st_size, limit))
        return file.read(limit + 1), file_validator(found)
