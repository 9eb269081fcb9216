"""Vectors of a collection by chance: what advice and tuning are measured with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import BadInput

if TYPE_CHECKING:
    from embedkit.backends.contract import VectorBackend
    from embedkit.metadata.rows import CollectionRow, ViewRow
    from embedkit.metadata.store import MetadataStore
    from embedkit.types import IdArray, VectorArray

__all__ = ["fetched", "sampled", "some_ids"]


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
    return [fetched(backend, view, ids[:, place]) for place, view in enumerate(views)]


def some_ids(
    store: MetadataStore, row: CollectionRow, views: Sequence[ViewRow], count: int, rng: np.random.Generator
) -> IdArray:
    """Ids ``(n, views)`` of the vectors of products by chance that have one in every view."""
    keys = store.keys(row.id)
    picked = [keys[place] for place in rng.permutation(len(keys))[:count]]
    ids, names = store.vector_ids_of(row.id, picked), [view.slot for view in views]
    whole = [by_view for key in picked if (by_view := ids.get(key, {})).keys() >= set(names)]
    return np.array([[by_view[name] for name in names] for by_view in whole], np.int64).reshape(-1, len(names))


def fetched(backend: VectorBackend, view: ViewRow, ids: IdArray) -> VectorArray:
    """The vectors of some rows of a view. Raises BadInput where the backend lacks one."""
    vectors = backend.fetch(view.physical, ids).vectors
    if len(vectors) != len(ids):
        raise BadInput(f"The view {view.name!r} lacks vectors that the store knows; run: embedkit verify --repair")
    return vectors
