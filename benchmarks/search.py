"""A search through embedkit beside the bare client on the same vectors, in one run.

embedkit: `Collection.search(vector=…)` with the products joined from the metadata store. Bare: what one writes with
the client alone, which gives ids and no products. FAISS: an `IndexFlatIP`, and for the filter a selector made from an
array of prices. Milvus: a collection with a FLAT index and the price as a dynamic field. Both sides are asked in
turn, so that the machine's moods fall on both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import faiss
import numpy as np

import embedkit
from embedkit.backends.contract import CollectionSpec, IndexSpec
from embedkit.metadata.rows import ProductWrite, RunCounts, ViewRow
from embedkit.testing.servers import milvus_server

DIM, K, CHUNK = 128, 10, 5_000
WHERE = "price < 10"
Search: TypeAlias = Callable[[np.ndarray], object]


def made(count: int) -> np.ndarray:
    """Unit vectors."""
    vectors = np.random.default_rng(0).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill(kit: Any, vectors: np.ndarray) -> Any:
    """Products and vectors written as an ingest does, without pictures."""
    store, backend, name = kit._resources.store, kit._resources.backend, f"bench_{len(vectors)}"
    physical = f"{name}_v1_image"
    backend.create(CollectionSpec(physical, DIM))
    view = ViewRow("image", "image", "none", "none", DIM, "cosine", physical)
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
        backend.upsert(physical, ids, part, [{"price": w.attributes["price"], "key": w.key} for w in writes])
        store.commit(row.id, run_id=run.id, writes=writes, offset=start, counts=RunCounts())
    backend.build_index(physical, IndexSpec("flat"))  # a server's segments are sealed by it, as by the client's flush
    return kit.collection(name)


def bare_faiss(vectors: np.ndarray) -> tuple[Search, Search]:
    """Without and with the filter."""
    index = faiss.IndexFlatIP(DIM)
    index.add(vectors)
    prices = np.arange(len(vectors)) % 100

    def filtered(query: np.ndarray) -> object:
        bits = np.packbits(prices < 10, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(prices), faiss.swig_ptr(bits))
        return index.search(query[None], K, params=faiss.SearchParameters(sel=selector))

    return lambda query: index.search(query[None], K), filtered


def bare_milvus(kit: Any, vectors: np.ndarray) -> tuple[Search, Search]:
    """Without and with the filter."""
    from pymilvus import DataType

    client, name = kit._resources.backend._client, f"bare_{len(vectors)}"
    params = client.prepare_index_params()
    params.add_index("vector", index_type="FLAT", metric_type="COSINE")
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    client.create_collection(name, schema=schema, index_params=params, consistency_level="Session")
    for start in range(0, len(vectors), CHUNK):
        part = vectors[start : start + CHUNK]
        rows = [{"id": start + n, "vector": v, "price": (start + n) % 100} for n, v in enumerate(part)]
        client.insert(name, rows)
    client.flush(name)
    return (
        lambda query: client.search(name, [query], limit=K, output_fields=["id"]),
        lambda query: client.search(name, [query], limit=K, output_fields=["id"], filter=WHERE),
    )


def compared(mine: Search, other: Search, queries: np.ndarray) -> tuple[float, float]:
    """Median milliseconds of one query at a time, of both, asked in turn."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number, query in enumerate(queries):
        for call, times in zip((mine, other), taken, strict=True):
            begun = time.perf_counter()
            call(query)
            if number >= len(queries) // 10:  # the first ones warm up
                times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(taken[0]), statistics.median(taken[1])


@contextmanager
def plans(home: Path, options: argparse.Namespace) -> Iterator[list[tuple[str, str, int]]]:
    """(label, URL, size) of what is to be measured."""
    found = [("FAISS", f"faiss:///{home}/faiss", size) for size in options.sizes]
    found += [("Milvus Lite", f"milvus:///{home}/lite-{size}.db", size) for size in options.lite]
    if not options.server:
        yield found
        return
    with milvus_server(home / "server") as server:
        yield [*found, *(("Milvus server", server.url, size) for size in options.server)]


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[50_000, 500_000])
    parser.add_argument("--lite", type=int, nargs="*", default=[50_000, 500_000])
    parser.add_argument("--server", type=int, nargs="*", default=[50_000, 500_000])
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    print(f"p50 of {options.rounds} single queries, {DIM}-d, k={K}, exact; the filter, {WHERE!r}, admits a tenth\n")
    print("| backend | vectors | filter | embedkit, ms | bare client, ms | ratio |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as name, plans(Path(name), options) as planned:
        for label, url, size in planned:
            vectors = made(size)
            measure(label, url, Path(name) / f"{label}{size}", vectors, options.rounds)


def measure(label: str, url: str, home: Path, vectors: np.ndarray, rounds: int) -> None:
    """Two lines of the table."""
    queries = vectors[:: max(1, len(vectors) // rounds)][:rounds]
    with embedkit.connect(backend=url, home=home) as kit:
        products = fill(kit, vectors)
        bare = bare_faiss(vectors) if label == "FAISS" else bare_milvus(kit, vectors)
        for where, other in zip((None, WHERE), bare, strict=True):
            mine, theirs = compared(partial(asked, products, where), other, queries)
            print(
                f"| {label} | {len(vectors):,} | {'yes' if where else 'no'} | {mine:.2f} | {theirs:.2f} "
                f"| {mine / theirs:.2f} |",
                flush=True,
            )
        products.drop()


def asked(products: Any, where: str | None, query: np.ndarray) -> object:
    """One search through the SDK."""
    return products.search(vector=query, k=K, where=where)


if __name__ == "__main__":
    main()
