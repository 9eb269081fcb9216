"""Driver errors, told as embedkit's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from embedkit.errors import DataCorrupt, DiskFull, EmbedkitError, StoreBusy, StoreError

__all__ = ["is_refusal", "not_writable", "told"]

_REFUSED = ("42501", "25006")  # PostgreSQL: the user may not; the server, or this connection, only reads
_GONE = ("connection", "server closed", "could not connect", "terminating")


@contextmanager
def told(url: str) -> Iterator[None]:
    """Raise what goes wrong inside as an EmbedkitError that names the store by its redacted URL."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        raise _translated(url, error) from error


def not_writable(url: str) -> StoreError:
    """The error for a write to a store that this process may only read."""
    return StoreError(
        f"The metadata store {url} can be read here and not written; give this user the right to write to it, its "
        "folder included, or ask another to."
    )


def is_refusal(error: exc.DBAPIError) -> bool:
    """Whether a database can be reached and does not let this user write to it."""
    return "readonly database" in str(error.orig) or getattr(error.orig, "sqlstate", None) in _REFUSED


def _translated(url: str, error: exc.SQLAlchemyError) -> EmbedkitError:
    cause = getattr(error, "orig", None) or error
    reason = " ".join(str(cause).split())
    lower = reason.lower()
    if "locked" in lower or "lock timeout" in lower or "deadlock" in lower:
        return StoreBusy(f"The metadata store {url} is locked by another process; let it finish, or stop it.")
    if "disk is full" in lower or "no space left" in lower or "disk i/o error" in lower:
        return DiskFull(f"The disk of the metadata store {url} has no room left; free some and run the same again.")
    if "no such module: fts5" in lower:
        return StoreError(
            f"The metadata store {url} has an index of keywords that the SQLite of this Python, built without FTS5, "
            "cannot write; use a Python whose SQLite has it."
        )
    if "not a database" in lower or "malformed" in lower:
        return DataCorrupt(f"The file of the metadata store {url} is not a readable database: {reason}.")
    if isinstance(error, exc.DBAPIError) and is_refusal(error):
        return _refused(url, reason)
    if "unable to open" in lower:
        return StoreError(f"The metadata store {url} cannot be opened; check the path and its permissions.")
    if isinstance(error, exc.OperationalError) and any(word in lower for word in _GONE):
        return StoreBusy(f"The metadata store {url} does not answer: {reason}.")
    if isinstance(error, exc.TimeoutError):
        return StoreBusy(f"Every connection to the metadata store {url} is in use.")
    return StoreError(f"The metadata store {url} refused: {reason}.")


def _refused(url: str, reason: str) -> StoreError:
    """PostgreSQL says which table; it may be one that the user may not even read."""
    if "permission denied" not in reason:
        return not_writable(url)
    return StoreError(f"The metadata store {url} does not let this user do that: {reason}; connect as one who may.")
