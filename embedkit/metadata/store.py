"""The metadata store: the source of truth for what exists. SQLite (WAL) or PostgreSQL."""

from __future__ import annotations

from pathlib import Path

from embedkit.metadata.collections import Collections
from embedkit.metadata.engine import open_engine
from embedkit.metadata.failures import Failures
from embedkit.metadata.keywords import Keywords
from embedkit.metadata.locks import Locks
from embedkit.metadata.products import Products
from embedkit.metadata.runs import Runs
from embedkit.metadata.vectors import Vectors
from embedkit.urls import redact

__all__ = ["MetadataStore", "open_store"]


class MetadataStore(Collections, Locks, Runs, Products, Vectors, Failures, Keywords):
    """Everything that is known of collections, in one database. Thread-safe; made by `open_store`.

    Every method may raise StoreBusy (Transient), DiskFull, StoreError or DataCorrupt. The parts that it
    is made of each hold one table's questions; none reaches into another's.
    """


def open_store(url: str, *, folder: Path | None = None) -> MetadataStore:
    """Open a database and bring its tables up to date.

    ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://user:password@host/database``.
    `folder`: the one that a relative path is in, now and for as long as it is open; the working directory if unset.
    Raises ConfigError, DataCorrupt, DiskFull, MissingExtra, StoreBusy, StoreError.
    """
    return MetadataStore(open_engine(url, folder or Path()), redact(url))
