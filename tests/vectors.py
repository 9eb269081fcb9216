"""A collection of vectors without pictures: products written as an ingest does."""

from __future__ import annotations

import numpy as np

from embedkit.backends.contract import CollectionSpec
from embedkit.metadata.rows import ProductWrite, RunCounts, ViewRow


def clustered(count, dim=32, seed=0):
    """Unit vectors around forty directions: near ones are near for a reason."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((40, dim))[rng.integers(0, 40, count)] + 0.7 * rng.standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered_codes(count, bits=64, seed=0):
    """Packed codes around forty, of which about one bit in ten differs: many are at one distance."""
    rng = np.random.default_rng(seed)
    signs = rng.integers(0, 2, (40, bits))[rng.integers(0, 40, count)] ^ (rng.random((count, bits)) < 0.1)
    return np.packbits(signs.astype(np.uint8), axis=1)


def filled(kit, vectors, name="products"):
    """A collection of those vectors, or codes, under the keys p0, p1, …; asked by vector or by product."""
    store, backend = kit._resources.store, kit._resources.backend
    kind, metric, dim = "float", "cosine", vectors.shape[1]
    if vectors.dtype == np.uint8:
        kind, metric, dim = "binary", "hamming", 8 * dim
    view = ViewRow("image", "image", "none", "none", dim, metric, f"{name}_v1_image", kind=kind)
    backend.create(CollectionSpec(view.physical, dim, metric, kind))
    row = store.create_collection(name, backend_url=kit._resources.backend_url, views=(view,))
    run = store.start_run(row.id, source="test", source_fingerprint=None)
    writes = [ProductWrite(f"p{n}", None, None, {}, vectors={"image": ("h", "none")}) for n in range(len(vectors))]
    ids = np.array([issued["image"] for issued in store.begin(row.id, writes)])
    backend.upsert(view.physical, ids, vectors)
    store.commit(row.id, run_id=run.id, writes=writes, offset=0, counts=RunCounts())
    return kit.collection(name)
