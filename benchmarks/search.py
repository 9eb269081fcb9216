"""A search through embedkit beside the bare client on the same vectors, in one run.

embedkit: `Collection.search(vector=…)` with the products joined. Bare: the client's own search, ids only.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

import embedkit
from embedkit.backends.contract import CollectionSpec
from embedkit.metadata.rows import ProductWrite, RunCounts, ViewRow

DIM, K, ROUNDS, CHUNK = 128, 10, 60, 5_000


def fill(kit: Any, vectors: np.ndarray) -> Any:
    """Products and vectors written as an ingest does, without pictures."""
    store, backend, name = kit._resources.store, kit._resources.backend, f"bench_{len(vectors)}"
    backend.drop(f"{name}_v1_image")
    backend.create(CollectionSpec(f"{name}_v1_image", DIM))
    view = ViewRow("image", "image", "none", "none", DIM, "cosine", f"{name}_v1_image")
    row = store.create_collection(name, backend_url=kit._resources.backend_url, views=(view,))
    run = store.start_run(row.id, source="bench", source_fingerprint=None)
    for start in range(0, len(vectors), CHUNK):
        part = vectors[start : start + CHUNK]
        writes = [
            ProductWrite(
                f"p{start + n}", f"product {n}", None, {"price": (start + n) % 100}, vectors={"image": ("h", "none")}
            )
            for n in range(len(part))
        ]
        ids = np.array([issued["image"] for issued in store.begin(row.id, writes)])
        backend.upsert(f"{name}_v1_image", ids, part, [{"price": w.attributes["price"], "key": w.key} for w in writes])
        store.commit(row.id, run_id=run.id, writes=writes, offset=start, counts=RunCounts())
    backend.flush(f"{name}_v1_image")
    return kit.collection(name)


def p50(call: Callable[[np.ndarray], object], queries: np.ndarray) -> float:
    """Median milliseconds of one query at a time."""
    call(queries[0])
    taken = []
    for query in queries[:ROUNDS]:
        begun = time.perf_counter()
        call(query)
        taken.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(taken)


def bare_faiss(vectors: np.ndarray) -> Callable[[np.ndarray], object]:
    """An IndexFlatIP in memory."""
    index = faiss.IndexFlatIP(DIM)
    index.add(vectors)
    return lambda query: index.search(query[None], K)


def bare_milvus(kit: Any, count: int) -> Callable[[np.ndarray], object]:
    """The client's search on the very same collection."""
    client = kit._resources.backend._client
    return lambda query: client.search(
        f"bench_{count}_v1_image", [query], limit=K, output_fields=["id"], consistency_level="Session"
    )


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50_000, 500_000])
    parser.add_argument("--lite", type=int, nargs="*", default=[50_000])
    parser.add_argument("--server", default="", help="URL of a Milvus server to measure too")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as name:
        plans = [("faiss", f"faiss:///{name}/faiss", size) for size in options.sizes]
        plans += [("milvus lite", f"milvus:///{name}/lite.db", size) for size in options.lite]
        plans += [("milvus server", options.server, size) for size in options.sizes if options.server]
        for label, url, size in plans:
            vectors = rng.standard_normal((size, DIM)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            with embedkit.connect(backend=url, home=Path(name) / f"{label}{size}") as kit:
                products = fill(kit, vectors)
                bare = bare_faiss(vectors) if label == "faiss" else bare_milvus(kit, size)
                mine = p50(lambda query, here=products: here.search(vector=query, k=K), vectors)
                other = p50(bare, vectors)
                some = p50(lambda query, here=products: here.search(vector=query, k=K, where="price < 10"), vectors)
                print(
                    f"{label:<14} {size:>8,} x {DIM}: embedkit {mine:7.2f} ms, bare client {other:7.2f} ms, "
                    f"ratio {mine / other:.2f}; with a filter {some:.2f} ms"
                )


if __name__ == "__main__":
    main()
