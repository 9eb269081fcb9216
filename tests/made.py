"""Collections of made vectors: products and vectors written as an ingest does, without an encoder."""

from __future__ import annotations

import numpy as np

from embedkit.backends.contract import CollectionSpec
from embedkit.metadata.rows import ProductWrite, RunCounts, ViewRow
from embedkit.types import Product


def unit(count, dim, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill(kit, name, products, vectors, *, metric="cosine", encoder="none"):
    """A collection of `products`; `vectors`: by view ``(n, dim)`` float32, or ``(n, bytes)`` uint8 of codes.

    A row of NaN stands for a product that has no vector in the view.
    """
    store, backend = kit._resources.store, kit._resources.backend
    views = []
    for view, rows in vectors.items():
        kind, dim = ("binary", 8 * rows.shape[1]) if rows.dtype == np.uint8 else ("float", rows.shape[1])
        measured = "hamming" if kind == "binary" else metric
        physical = f"{name}_v1_{view}"
        backend.create(CollectionSpec(physical, dim, measured, kind))
        modality = "text" if view == "title" else "image"
        views.append(ViewRow(view, modality, encoder, "5" * 64, dim, measured, physical, kind=kind))
    row = store.create_collection(name, backend_url=kit._resources.backend_url, views=views)
    write(kit, row, products, vectors)
    return kit.collection(name)


def write(kit, row, products, vectors):
    """Write products into a collection that is there."""
    store, backend = kit._resources.store, kit._resources.backend
    run = store.start_run(row.id, source="made", source_fingerprint=None)
    there = {view: ~np.isnan(rows.astype(float)).any(axis=1) for view, rows in vectors.items()}
    writes = [
        ProductWrite(
            one.key, one.title, one.uri, one.attributes, vectors={v: ("h", "none") for v in vectors if there[v][place]}
        )
        for place, one in enumerate(products)
    ]
    issued = store.begin(row.id, writes)
    for view in row.views:
        chosen = np.flatnonzero(there[view.name])
        ids = np.array([issued[place][view.name] for place in chosen])
        columns = [dict(products[place].attributes) for place in chosen]
        backend.upsert(view.physical, ids, vectors[view.name][chosen], columns)
    store.commit(row.id, run_id=run.id, writes=writes, offset=len(writes), counts=RunCounts())


def product(number, title=None, **attributes):
    return Product(f"p{number:04}", title, None, attributes)
