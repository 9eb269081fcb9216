"""Driver errors, told as embedkit's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from embedkit.errors import DataCorrupt, DiskFull, EmbedkitError, StoreBusy, StoreError

__all__ = ["told"]

_GONE = ("connection", "server closed", "could not connect", "terminating")


@contextmanager
def told(url: str) -> Iterator[None]:
    """Raise what goes wrong inside as an EmbedkitError that names the store by its redacted URL."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        raise _translated(url, error) from error


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
    if "unable to open" in lower or "readonly" in lower:
        return StoreError(f"The metadata store {url} cannot be opened for writing; check the path and its permissions.")
    if isinstance(error, exc.OperationalError) and any(word in lower for word in _GONE):
        return StoreBusy(f"The metadata store {url} does not answer: {reason}.")
    if isinstance(error, exc.TimeoutError):
        return StoreBusy(f"Every connection to the metadata store {url} is in use.")
    return StoreError(f"The metadata store {url} refused: {reason}.")
