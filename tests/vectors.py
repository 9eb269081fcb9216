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


def filled(kit, vectors, name="products"):
    """A collection of those vectors under the keys p0, p1, …; asked by vector or by product."""
    store, backend = kit._resources.store, kit._resources.backend
    view = ViewRow("image", "image", "none", "none", vectors.shape[1], "cosine", f"{name}_v1_image")
    backend.create(CollectionSpec(view.physical, view.dim))
    row = store.create_collection(name, backend_url=kit._resources.backend_url, views=(view,))
    run = store.start_run(row.id, source="test", source_fingerprint=None)
    writes = [ProductWrite(f"p{n}", None, None, {}, vectors={"image": ("h", "none")}) for n in range(len(vectors))]
    ids = np.array([issued["image"] for issued in store.begin(row.id, writes)])
    backend.upsert(view.physical, ids, vectors)
    store.commit(row.id, run_id=run.id, writes=writes, offset=0, counts=RunCounts())
    return kit.collection(name)
