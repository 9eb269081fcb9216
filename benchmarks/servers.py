"""Writing and asking a server through embedkit's backend beside the bare client, in one run.

Rows have a vector of 128 floats, a price and a brand, on which both sides can filter. Milvus, bare: `insert` and
`upsert` of rows with dynamic fields by `MilvusClient`, and its `search`, which gives ids. Vearch, bare: the official
client's upsert of documents with two indexed fields, and its search. Both sides have an HNSW index of the same
parameters, send requests of their best size, and are asked in turn. embedkit always upserts: a batch that is sent again
after its answer was lost doubles nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from embedkit.backends.contract import CollectionSpec, IndexSpec, SearchParams
from embedkit.backends.open import open_backend
from embedkit.testing.servers import milvus_server

DIM, K, BATCH, EF = 128, 10, 5_000, 64
INDEX = IndexSpec.parse("hnsw(m=16, ef_construction=200)")
Rows: TypeAlias = list[dict[str, Any]]
Write: TypeAlias = Callable[[int, np.ndarray], object]
Ask: TypeAlias = Callable[[np.ndarray], object]


def made(count: int) -> np.ndarray:
    """Unit vectors around a thousand centres."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1_000, DIM))[rng.integers(0, 1_000, count)] + rng.standard_normal((count, DIM))
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def columns(start: int, count: int) -> Rows:
    """What a row holds beside its vector."""
    return [{"price": number % 100, "brand": f"brand {number % 50}"} for number in range(start, start + count)]


class Milvus:
    """The bare client."""

    best = "insert"

    def __init__(self, backend: Any) -> None:
        self._client, self._name = backend.client, "bare"

    def create(self) -> None:
        from pymilvus import DataType

        params = self._client.prepare_index_params()
        built = {"M": 16, "efConstruction": 200}
        params.add_index("vector", index_type="HNSW", metric_type="COSINE", params=built)
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
        self._client.create_collection(self._name, schema=schema, index_params=params, consistency_level="Session")

    def insert(self, start: int, part: np.ndarray) -> None:
        self._client.insert(self._name, self._rows(start, part))

    def upsert(self, start: int, part: np.ndarray) -> None:
        self._client.upsert(self._name, self._rows(start, part))

    def _rows(self, start: int, part: np.ndarray) -> Rows:
        rows = enumerate(zip(part, columns(start, len(part)), strict=True))
        return [{"id": start + n, "vector": vector, **more} for n, (vector, more) in rows]

    def settle(self) -> None:
        self._client.flush(self._name)

    def search(self, query: np.ndarray) -> object:
        return self._client.search(self._name, [query], limit=K, search_params={"params": {"ef": EF}})

    def drop(self) -> None:
        self._client.drop_collection(self._name)


class Vearch:
    """The bare client: the class that `vearch.core.vearch.Vearch` calls."""

    best = "upsert"

    def __init__(self, backend: Any) -> None:
        self._rest, self._db, self._name = backend._client._rest, backend._client.db, "bare"

    def create(self) -> None:
        from vearch.schema.field import Field
        from vearch.schema.index import HNSWIndex, ScalarIndex
        from vearch.schema.space import SpaceSchema
        from vearch.utils import DataType, MetricType

        index = HNSWIndex("vector", MetricType.Inner_product, 16, 200)
        fields = [
            Field("price", DataType.INTEGER, index=ScalarIndex("price")),
            Field("brand", DataType.STRING, index=ScalarIndex("brand")),
            Field("vector", DataType.VECTOR, index=index, dimension=DIM),
        ]
        self._rest._create_space(self._db, SpaceSchema(self._name, fields, partition_num=1, replica_num=1))

    def upsert(self, start: int, part: np.ndarray) -> None:
        rows = enumerate(zip(part.tolist(), columns(start, len(part)), strict=True))
        documents = [{"_id": str(start + n), "vector": vector, **more} for n, (vector, more) in rows]
        for first in range(0, len(documents), 1_000):
            self._rest._upsert(self._db, self._name, documents[first : first + 1_000])

    insert = upsert

    def settle(self) -> None:
        """Nothing that a client could do."""

    def search(self, query: np.ndarray) -> object:
        from vearch.utils import VectorInfo

        asked = VectorInfo("vector", query.tolist())
        return self._rest._search_documents(
            self._db, self._name, [asked], None, ["_id"], False, K, index_params={"efSearch": EF}
        )

    def drop(self) -> None:
        self._rest._drop_space(self._db, self._name)


def seconds(write: Write, vectors: np.ndarray) -> float:
    """Of writing all, batch by batch."""
    begun = time.perf_counter()
    for start in range(0, len(vectors), BATCH):
        write(start, vectors[start : start + BATCH])
    return time.perf_counter() - begun


def compared(mine: Ask, other: Ask, queries: np.ndarray) -> tuple[float, float]:
    """Median milliseconds of both, asked in turn; the first tenth warms up."""
    taken: tuple[list[float], list[float]] = ([], [])
    for query in queries:
        for call, times in zip((mine, other), taken, strict=True):
            begun = time.perf_counter()
            call(query)
            times.append(1e3 * (time.perf_counter() - begun))
    warm = len(queries) // 10
    return statistics.median(taken[0][warm:]), statistics.median(taken[1][warm:])


def measure(label: str, url: str, bare: Any, options: argparse.Namespace) -> None:
    """The lines of one server."""
    vectors = made(options.size)
    backend = open_backend(url)
    other, name = bare(backend), "bench"
    writes: dict[str, list[float]] = {"embedkit": [], "insert": [], "upsert": []}
    for _ in range(options.rounds):
        backend.drop(name)
        backend.create(CollectionSpec(name, DIM, index=INDEX))

        def mine(start: int, part: np.ndarray) -> None:
            ids = np.arange(start, start + len(part))
            backend.upsert(name, ids, part, columns(start, len(part)))

        writes["embedkit"].append(seconds(mine, vectors))
        for way in dict.fromkeys((other.best, "upsert")):
            other.drop() if writes[way] or writes[other.best] else None
            other.create()
            writes[way].append(seconds(getattr(other, way), vectors))
    ours = statistics.median(writes["embedkit"])
    for way in dict.fromkeys((other.best, "upsert")):
        theirs = statistics.median(writes[way])
        print(
            f"| {label} | {way} | {len(vectors) / ours:,.0f} rows/s | {len(vectors) / theirs:,.0f} rows/s "
            f"| {theirs / ours:.2f} |",
            flush=True,
        )
    backend.flush(name)
    other.settle()
    time.sleep(options.settle)
    queries, knobs = made(options.size + options.queries)[-options.queries :], SearchParams(ef=EF)
    asked, answered = compared(lambda query: backend.search(name, query[None], K, None, knobs), other.search, queries)
    print(f"| {label} | search, p50 | {asked:.2f} ms | {answered:.2f} ms | {asked / answered:.2f} |", flush=True)
    backend.drop(name)
    other.drop()
    backend.close()


@contextmanager
def servers(home: Path, options: argparse.Namespace) -> Iterator[list[tuple[str, str, Any]]]:
    """(label, URL, bare client) of what is to be measured; servers that no URL names are started."""
    if "milvus" in options.only and not options.milvus:
        with milvus_server(home / "milvus") as server:
            options.milvus = server.url
            with servers(home, options) as found:
                yield found
        return
    if "vearch" in options.only and not options.vearch:
        sys.path.append(str(Path(__file__).parents[1]))
        from tests.services.vearch import vearch_server

        with vearch_server(home / "vearch") as router:
            options.vearch = router.url
            with servers(home, options) as found:
                yield found
        return
    every = {"milvus": ("Milvus server", options.milvus, Milvus), "vearch": ("Vearch", options.vearch, Vearch)}
    yield [every[name] for name in options.only]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3, help="of writing all")
    parser.add_argument("--settle", type=float, default=10.0, help="seconds between writing and asking")
    parser.add_argument("--only", nargs="*", choices=["milvus", "vearch"], default=["milvus", "vearch"])
    parser.add_argument("--milvus", help="URL of a server; one of the package `milvus` is started if none is given")
    parser.add_argument("--vearch", help="URL of a cluster; the router of the tests, over the real engine, if not")
    options = parser.parse_args()
    print(f"{options.size:,} vectors of {DIM}, {INDEX}, k={K}, ef={EF}; medians\n")
    print("| server | what | embedkit | bare client | ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as home, servers(Path(home), options) as found:
        for label, url, bare in found:
            measure(label, url, bare, options)


if __name__ == "__main__":
    main()
