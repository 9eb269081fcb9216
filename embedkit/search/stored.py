"""Every vector of a view, to be compared with each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from embedkit.backends.contract import VectorBackend
from embedkit.codes import signs
from embedkit.errors import BadInput
from embedkit.filters import Filter
from embedkit.matching import matches
from embedkit.metadata.rows import CollectionRow, ViewRow
from embedkit.metadata.store import MetadataStore
from embedkit.search.ranks import attributes_of

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray, VectorArray

__all__ = ["as_unit", "every_vector"]

_PAGE = 5_000


def every_vector(
    store: MetadataStore, backend: VectorBackend, row: CollectionRow, view: ViewRow, where: Filter | None
) -> tuple[IdArray, VectorArray]:
    """The live vectors of a view whose products a filter admits: ids ``(n,)`` ascending, vectors ``(n, width)``.

    Raises BadInput where the backend lacks one.
    """
    found: list[VectorArray] = []
    kept: list[IdArray] = []
    for page in store.scan_vector_ids(row.id, view.slot, batch=_PAGE):
        ids = page
        if where is not None:
            products = store.products_by_vector(row.id, view.slot, ids.tolist())
            admitted = [one for one, product in products.items() if matches(where, attributes_of(product))]
            ids = np.array(sorted(admitted), np.int64)
        if not len(ids):
            continue
        fetched = backend.fetch(view.physical, ids)
        if len(fetched.ids) != len(ids):
            raise BadInput(f"The view {view.name!r} lacks vectors that the store knows; run: embedkit verify --repair")
        kept.append(fetched.ids)
        found.append(fetched.vectors)
    if not found:
        width, dtype = (view.dim // 8, np.uint8) if view.kind == "binary" else (view.dim, np.float32)
        return np.empty(0, np.int64), cast("VectorArray", np.empty((0, width), dtype))
    return np.concatenate(kept), cast("VectorArray", np.concatenate(found))


def as_unit(vectors: VectorArray) -> FloatArray:
    """``(n, dim)`` float32 of length 1, of codes their signs; a vector of zeros stays."""
    floats = signs(vectors.view(np.uint8), 8 * vectors.shape[1]) if vectors.dtype == np.uint8 else vectors
    lengths = np.linalg.norm(floats, axis=1, keepdims=True)
    return np.asarray(floats / np.maximum(lengths, np.float32(1e-12)), np.float32)
