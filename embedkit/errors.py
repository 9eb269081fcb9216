"""Every error that embedkit raises.

EmbedkitError
├── Transient                 trying again later may succeed
│   ├── BackendUnavailable    the vector backend does not answer
│   ├── FetchTimeout          a remote picture did not arrive in time, or its host is overloaded
│   └── StoreBusy             the metadata store is locked by another writer
└── Terminal                  trying again gives the same answer
    ├── BadInput              the caller's data is at fault
    │   ├── BadImage          a picture cannot be read
    │   ├── BadRecord         a row of a catalog cannot be used
    │   ├── BadSource         a catalog cannot be opened
    │   ├── DimensionMismatch a vector has another length than its collection
    │   └── FilterError       a filter text cannot be parsed
    ├── CollectionExists
    ├── CollectionNotFound
    ├── ConfigError           a setting is unknown or has a bad value
    ├── DataCorrupt           files of embedkit's own do not hold what they should
    ├── DiskFull
    ├── EncoderMismatch       vectors of two encoders would be mixed
    ├── FetchFailed           a remote picture is not to be had
    ├── MissingExtra          an optional package is not installed
    ├── ProductNotFound
    ├── StoreError            the metadata store refuses or cannot be opened
    ├── TrainingFailed        the loss is no longer a number
    ├── UnknownName           no encoder, backend, source… of that name
    └── UnsupportedByBackend  the backend cannot do what was asked

A message says what went wrong (naming the file, row or URL), why, and what to do next.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence

__all__ = [
    "BackendUnavailable",
    "BadImage",
    "BadInput",
    "BadRecord",
    "BadSource",
    "CollectionExists",
    "CollectionNotFound",
    "ConfigError",
    "DataCorrupt",
    "DimensionMismatch",
    "DiskFull",
    "EmbedkitError",
    "EncoderMismatch",
    "FetchFailed",
    "FetchTimeout",
    "FilterError",
    "MissingExtra",
    "ProductNotFound",
    "StoreBusy",
    "StoreError",
    "Terminal",
    "TrainingFailed",
    "Transient",
    "UnknownName",
    "UnsupportedByBackend",
    "did_you_mean",
    "disk_is_full",
    "listed",
]


_AROUND = 60  # characters of a filter shown on either side of the fault
_FULL = (errno.ENOSPC, errno.EDQUOT)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The question after the nearest known names, '' if none is near.

    >>> did_you_mean("pricee", ["brand", "price"])
    "did you mean 'price'?"
    """
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names in a row, the first ones and how many more there are.

    >>> listed(["a", "b", "c", "d"], most=2)
    'a, b and 2 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error came of a disk that is full, or a quota; libraries wrap what the file says in their own words.

    >>> disk_is_full(OSError(errno.ENOSPC, "No space left on device")), disk_is_full(OSError(errno.EACCES, "denied"))
    (True, False)
    """
    while error is not None:
        if (isinstance(error, OSError) and error.errno in _FULL) or "No space left" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


class EmbedkitError(Exception):
    """Base class of everything embedkit raises on purpose."""


class Transient(EmbedkitError):
    """Trying again later may succeed."""


class Terminal(EmbedkitError):
    """Trying again gives the same answer."""


class BackendUnavailable(Transient):
    """The vector backend does not answer."""


class FetchTimeout(Transient):
    """A remote picture did not arrive in time, or its host is overloaded."""


class StoreBusy(Transient):
    """The metadata store is locked by another writer."""


class BadInput(Terminal):
    """The caller's data is at fault."""


class BadImage(BadInput):
    """A picture cannot be read."""


class BadRecord(BadInput):
    """A row of a catalog cannot be used."""


class BadSource(BadInput):
    """A catalog cannot be opened."""


class DimensionMismatch(BadInput):
    """A vector has another length than its collection."""


def _pointer(text: str, column: int) -> str:
    """The part of a text around a column on one line, and a mark below it."""
    start = max(0, column - 1 - _AROUND)
    end = column - 1 + _AROUND
    head, tail = "…" if start else "", "…" if end < len(text) else ""
    part = "".join(char if char.isprintable() else " " for char in text[start:end])
    return f"\n  {head}{part}{tail}\n  {' ' * (len(head) + column - 1 - start)}^"


class FilterError(BadInput):
    """A filter text cannot be parsed; `column` counts from 1."""

    def __init__(self, reason: str, *, text: str = "", column: int = 1) -> None:
        self.reason = reason
        self.text = text
        self.column = column
        pointer = _pointer(text, column) if text else ""
        where = f" at column {column}" if text else ""
        super().__init__(f"The filter cannot be read{where}: {reason}.{pointer}")


class CollectionExists(Terminal):
    """A collection of that name is already there."""


class CollectionNotFound(Terminal):
    """No collection has that name."""


class ConfigError(Terminal):
    """A setting is unknown or has a bad value."""


class DataCorrupt(Terminal):
    """Files of embedkit's own do not hold what they should."""


class DiskFull(Terminal):
    """The disk has no room left."""


class EncoderMismatch(Terminal):
    """Vectors of two encoders would be mixed in one collection."""


class FetchFailed(Terminal):
    """A remote picture is not to be had."""


class MissingExtra(Terminal):
    """An optional package is not installed; the message holds the install line. `extra` '' names the package alone."""

    def __init__(self, package: str, extra: str, *, needed_for: str) -> None:
        self.package = package
        self.extra = extra
        install = f"'embedkit-search[{extra}]'" if extra else package
        super().__init__(
            f"{needed_for} needs the package {package!r}, which is not installed; run: pip install {install}"
        )


class ProductNotFound(Terminal):
    """No product of the collection has that key."""


class StoreError(Terminal):
    """The metadata store refuses or cannot be opened."""


class TrainingFailed(Terminal):
    """The loss or its gradient is no longer a number."""


class UnknownName(Terminal):
    """No encoder, backend or source has that name; the message lists the nearest known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        known = sorted(known)
        hint = did_you_mean(name, known) or f"known: {', '.join(known) or 'none'}"
        super().__init__(f"There is no {kind} called {name!r}; {hint}")


class UnsupportedByBackend(Terminal):
    """The backend cannot do what was asked; `able` names the ones that can."""

    def __init__(self, backend: str, what: str, *, able: Iterable[str] = ()) -> None:
        self.backend = backend
        self.able = tuple(able)
        others = f"; it works with: {', '.join(self.able)}" if self.able else ""
        super().__init__(f"The backend {backend!r} cannot {what}{others}.")
