"""The exact answer from rows that were read from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from embedkit.backends.contract import CollectionSpec, IndexSpec, SearchResult
from embedkit.backends.oracle.backend import OracleBackend
from embedkit.filters import Filter
from embedkit.types import Attributes

if TYPE_CHECKING:
    from embedkit.types import IdArray, VectorArray

__all__ = ["Page", "answered_exactly"]

Page: TypeAlias = "tuple[IdArray, VectorArray, Sequence[Attributes] | None]"  # ids, vectors, columns


def answered_exactly(
    spec: CollectionSpec, pages: Iterable[Page], queries: VectorArray, k: int, where: Filter | None = None
) -> SearchResult:
    """The k nearest rows of all pages that `where` admits."""
    exact = OracleBackend("oracle://rows")
    exact.create(replace(spec, index=IndexSpec()))
    for ids, vectors, columns in pages:
        exact.upsert(spec.name, ids, vectors, columns)
    return exact.search(spec.name, queries, k, where)
