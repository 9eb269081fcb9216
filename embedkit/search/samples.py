"""Vectors of a collection by chance, and who is truly nearest to them: what advice and tuning are measured by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import BadInput

if TYPE_CHECKING:
    from embedkit.backends.contract import VectorBackend
    from embedkit.metadata.rows import CollectionRow, ViewRow
    from embedkit.metadata.store import MetadataStore
    from embedkit.types import FloatArray, IdArray, Metric, VectorArray

__all__ = ["exact_neighbours", "nearest_of", "neighbours", "sampled", "scores", "some_ids"]

_PAGE = 10_000


def sampled(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    views: Sequence[ViewRow],
    count: int,
    rng: np.random.Generator,
) -> list[VectorArray]:
    """Vectors of products by chance that have one in every view: an array for each view, in the same order.

    Raises BadInput where the backend lacks vectors that the store knows.
    """
    ids = some_ids(store, row, views, count, rng)
    return [_fetched(backend, view, ids[:, place]) for place, view in enumerate(views)]


def some_ids(
    store: MetadataStore, row: CollectionRow, views: Sequence[ViewRow], count: int, rng: np.random.Generator
) -> IdArray:
    """Ids ``(n, views)`` of the vectors of products by chance that have one in every view."""
    keys: list[str] = []
    while page := store.keys(row.id, after=keys[-1] if keys else "", limit=_PAGE):
        keys += page
    picked = [keys[place] for place in rng.permutation(len(keys))[:count]]
    ids, names = store.vector_ids_of(row.id, picked), [view.slot for view in views]
    whole = [by_view for key in picked if (by_view := ids.get(key, {})).keys() >= set(names)]
    return np.array([[by_view[name] for name in names] for by_view in whole], np.int64).reshape(-1, len(names))


def _fetched(backend: VectorBackend, view: ViewRow, ids: IdArray) -> VectorArray:
    vectors = backend.fetch(view.physical, ids).vectors
    if len(vectors) != len(ids):
        raise BadInput(f"The view {view.name!r} lacks vectors that the store knows; run: embedkit verify --repair")
    return vectors


def scores(queries: FloatArray, vectors: FloatArray, metric: Metric) -> FloatArray:
    """Higher is nearer, ``(queries, vectors)``; in the order of the metric, not its values."""
    found: FloatArray = queries @ vectors.T
    if metric == "l2":
        found = 2 * found - np.square(vectors).sum(axis=1)
    return found


def neighbours(vectors: FloatArray, asked: IdArray, k: int, *, metric: Metric) -> IdArray:
    """The rows ``(queries, k)`` that are nearest to some rows, without themselves."""
    found = scores(vectors[asked], vectors, metric)
    found[np.arange(len(asked)), asked] = -np.inf
    return np.argpartition(-found, k - 1, axis=1)[:, :k]


def exact_neighbours(backend: VectorBackend, view: ViewRow, asked: IdArray, k: int) -> tuple[FloatArray, IdArray]:
    """Vectors of some rows of a view of floats, and the ids ``(queries, k)`` of the nearest others in all of it."""
    queries = _fetched(backend, view, asked).astype(np.float32, copy=False)
    return queries, nearest_of(queries, _every(backend, view), k, metric=view.metric, own=asked)


def nearest_of(
    queries: FloatArray,
    pages: Iterable[tuple[IdArray, FloatArray]],
    k: int,
    *,
    metric: Metric,
    own: IdArray | None = None,
) -> IdArray:
    """The ids ``(queries, k)`` of the nearest rows of all pages, in no order. `own`: ids of the queries, left out."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    ids = np.full((len(queries), k), -1, np.int64)
    for page, vectors in pages:
        found = scores(queries, vectors, metric)
        if own is not None:
            found[own[:, None] == page[None, :]] = -np.inf
        joined = np.concatenate([best, found], axis=1)
        named = np.concatenate([ids, np.broadcast_to(page, found.shape)], axis=1)
        first = np.argpartition(-joined, k - 1, axis=1)[:, :k]
        best, ids = np.take_along_axis(joined, first, 1), np.take_along_axis(named, first, 1)
    return ids


def _every(backend: VectorBackend, view: ViewRow) -> Iterator[tuple[IdArray, FloatArray]]:
    for page in backend.scan_ids(view.physical, _PAGE):
        fetched = backend.fetch(view.physical, page)
        yield fetched.ids, fetched.vectors.astype(np.float32, copy=False)
