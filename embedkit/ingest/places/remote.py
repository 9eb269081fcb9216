"""Any file system that fsspec knows: object stores, SFTP, memory…"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from embedkit.errors import EmbedkitError, MissingExtra
from embedkit.ingest.places.contract import Entry, Place, joined
from embedkit.ingest.places.streams import Guarded
from embedkit.urls import redact

__all__ = ["RemotePlace", "missing_protocol"]

_BUFFER = 4 << 20
_TAGS = ("ETag", "etag", "md5", "md5Hash", "content_md5", "checksum", "crc32c", "sha256")
_TIMES = ("mtime", "modified", "LastModified", "last_modified", "updated", "created")
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    "hf": "huggingface_hub",
    "smb": "smbprotocol",
    "webdav": "webdav4",
}


def missing_protocol(url: str, error: ImportError) -> MissingExtra:
    """What to install for the scheme of a URL."""
    scheme = re.split(r"://|::", url, maxsplit=1)[0].lower()
    named = re.search(r"[Ii]nstall (?:the )?([\w.-]+)", str(error))
    package = _PACKAGES.get(scheme) or (error.name or (named[1] if named else f"fsspec[{scheme}]"))
    return MissingExtra(package, "s3" if package == "s3fs" else "", needed_for=f"Reading {redact(url)!r}")


class RemotePlace(Place):
    """Everything below one URL. Paths are relative to it; '' is the URL itself.

    Drivers keep what they listed for as long as the process lives; `afresh` forgets it, and so does `close`.
    Raises MissingExtra, OSError.
    """

    def __init__(self, url: str, *, afresh: bool = False) -> None:
        import fsspec

        self._url = url.rstrip("/") if not url.endswith("://") else url
        try:
            with _translated():
                self._files, self._root = fsspec.core.url_to_fs(self._url)
        except OSError as error:
            if isinstance(error.__cause__, ImportError):
                raise missing_protocol(url, error.__cause__) from error
            raise
        if afresh:
            self._files.invalidate_cache()

    def _full(self, path: str) -> str:
        return joined(self._root, path)

    def find(self, path: str) -> Entry | None:
        try:
            with _translated():
                return _entry(self._files.info(self._full(path)))
        except FileNotFoundError:
            return None

    def entries(self, folder: str) -> list[Entry]:
        here = self._full(folder).strip("/")
        with _translated():
            listed = self._files.ls(self._full(folder), detail=True)
        return [_entry(info) for info in listed if str(info["name"]).strip("/") != here]

    def open(self, path: str, *, seek: bool = False) -> BinaryIO:
        del seek
        with _translated():
            stream = self._files.open(self._full(path), "rb")
        return io.BufferedReader(Guarded(stream, _translated), _BUFFER)

    def read(self, limit: int) -> tuple[bytes, str | None]:
        """Up to `limit` bytes of the file that the URL names, and its validator as it was before they were read."""
        with _translated(), self._files.open(self._root, "rb") as stream:
            details = getattr(stream, "details", None)
            told = _told(details, _TAGS) if isinstance(details, Mapping) else None
            return stream.read(limit), told

    def validator(self) -> str | None:
        """What no other content of the file that the URL names will have; times alone are too coarse for that."""
        with _translated():
            return _told(self._files.info(self._root), _TAGS)

    def uri(self, path: str) -> str:
        return f"{self._url}{'' if self._url.endswith('/') or not path else '/'}{path}"

    def beside(self, path: str, reference: str) -> str:
        """An absolute reference starts at the top of the host or bucket."""
        scheme, separator, rest = self._url.rpartition("://")
        authority, _, top = rest.partition("/")
        if scheme.rpartition("::")[2].lower() == "memory":
            authority, top = "", rest
        start = "" if reference.startswith("/") else joined(top, posixpath.dirname(path))
        place = posixpath.normpath(joined(start, reference.lstrip("/")))
        if place.startswith("..") or "::" in place:
            raise ValueError(f"the picture {reference!r} leads out of {redact(self._url)}")
        return f"{scheme}{separator}{joined(authority, place)}"

    def close(self) -> None:
        self._files.invalidate_cache()


@contextmanager
def _translated() -> Iterator[None]:
    """Every driver has errors of its own; all of them as OSError, in plain words."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(2, "it is not there") from error
    except PermissionError as error:
        raise PermissionError(13, "access is denied; check the credentials") from error
    except TimeoutError as error:
        raise TimeoutError("no answer in time") from error
    except (OSError, EmbedkitError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _entry(info: Mapping[str, Any]) -> Entry:
    name = posixpath.basename(str(info["name"]).rstrip("/"))
    problem = "its name holds '::', which an address cannot; rename it" if "::" in name else ""
    return Entry(name, info.get("type") == "directory", _told(info, _TAGS + _TIMES), problem)


def _told(info: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The size, and the first of these that a file system knows."""
    told = next((name for name in names if info.get(name) is not None), None)
    return f"{info.get('size')},{info[told]}" if told else None
