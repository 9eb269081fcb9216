"""Errors of pymilvus and gRPC, in embedkit's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from pymilvus.exceptions import MilvusException

from embedkit.errors import BackendUnavailable, CollectionNotFound, DataCorrupt, DiskFull, EmbedkitError, Terminal

__all__ = ["not_found", "translated", "unavailable"]

_GONE = ("not found", "not exist", "can't find collection", "cannot find collection")
_FULL = ("no space left", "disk quota exceeded", "disk full", "file too large")
_AWAY = (
    "fail connecting",
    "unavailable",
    "timeout",
    "deadline",
    "connection",
    "not ready",
    "not healthy",
    "closed channel",
)
_NOT_FOUND_CODES = (4, 100)


def not_found(name: str) -> CollectionNotFound:
    """The error for a collection that is not there."""
    return CollectionNotFound(f"The backend 'milvus' has no collection {name!r}; create it by ingesting into it")


def unavailable(url: str, error: object) -> BackendUnavailable:
    """The error for a Milvus that does not answer."""
    details = error.details() if isinstance(error, grpc.Call) else ""  # the text of such an error begins with its class
    reason = str(details or getattr(error, "message", "") or error).strip().splitlines() or ["no answer"]
    return BackendUnavailable(
        f"Milvus at {url} does not answer ({reason[0][:200]}); "
        "check that it runs, and that URL, password and TLS settings are right"
    )


@contextmanager
def translated(url: str, name: str = "") -> Iterator[None]:
    """Raise an EmbedkitError for whatever the driver raises."""
    try:
        yield
    except EmbedkitError:
        raise
    except MilvusException as error:
        raise _of_milvus(url, name, error) from error
    except (grpc.RpcError, ConnectionError, TimeoutError) as error:
        raise unavailable(url, error) from error
    except OSError as error:
        raise _of_text(url, name, str(error)) or unavailable(url, error) from error
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        # pymilvus lets these escape, for example from a connection that was closed meanwhile
        raise unavailable(url, error) from error


def _of_milvus(url: str, name: str, error: MilvusException) -> EmbedkitError:
    text = str(error.message)
    if error.code in _NOT_FOUND_CODES and name:
        return not_found(name)
    found = _of_text(url, name, text)
    if found is not None:
        return found
    return Terminal(f"Milvus at {url} refuses: {text.strip().splitlines()[0][:300]}")


def _of_text(url: str, name: str, text: str) -> EmbedkitError | None:
    lower = text.lower()
    if any(word in lower for word in _FULL):
        return DiskFull(f"The disk of Milvus at {url} is full; free some space and run the same command again")
    if "collection" in lower and any(word in lower for word in _GONE):
        return not_found(name)
    if "corrupt" in lower:
        return DataCorrupt(f"Milvus at {url} reports broken files: {text.splitlines()[0][:200]}")
    if any(word in lower for word in _AWAY):
        return unavailable(url, text)
    return None
