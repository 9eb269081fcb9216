"""A reindex of many vectors while ten queries a second are asked: failed queries, and p99 beside the quiet p99.

python benchmarks/reindex.py                              100,000 vectors of 128 numbers, to hnsw, on FAISS
python benchmarks/reindex.py --kills 5                    the reindex is killed and begun again, five times
python benchmarks/reindex.py --backend lite               Milvus Lite, in threads of one process, which it belongs to

The queries are asked at fixed moments, whether the one before is answered or not, so that a pause counts for every
query that falls into it. The quiet p99 is that of the same queries just before. After the switch it is rolled back,
and every vector is compared.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import embedkit
from embedkit.backends.contract import CollectionSpec
from embedkit.metadata.rows import ProductWrite, RunCounts, ViewRow

DIM, K, CHUNK, NAME = 128, 10, 5_000, "bench"
SCRIPT = """
import sys, embedkit
with embedkit.connect(backend=sys.argv[1], home=sys.argv[2]) as kit:
    print("ready", flush=True)
    report = kit.collection("bench").reindex(index=sys.argv[3])
    print(report.switched is not None, report.copied, report.skipped, round(report.comparison[0].overlap, 4))
"""


def fill(kit: Any, count: int) -> Any:
    """Products and vectors written as an ingest does, without pictures: unit vectors in clusters."""
    store, backend = kit._resources.store, kit._resources.backend
    view = ViewRow("image", "image", "", "imported", DIM, "cosine", f"{NAME}_v1_image")
    backend.create(CollectionSpec(view.physical, DIM))
    row = store.create_collection(NAME, backend_url=kit._resources.backend_url, views=(view,))
    run = store.start_run(row.id, source="bench", source_fingerprint=None)
    chance = np.random.default_rng(0)
    centres = chance.standard_normal((max(2, count // 100), DIM)).astype(np.float32)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        near = centres[chance.integers(len(centres), size=size)]
        vectors = near + 0.6 * chance.standard_normal((size, DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        writes = [
            ProductWrite(
                f"p{start + n}", f"product {n}", None, {"price": n % 100}, "h", vectors={"image": ("h", "imported")}
            )
            for n in range(size)
        ]
        ids = np.array([issued["image"] for issued in store.begin(row.id, writes)])
        backend.upsert(view.physical, ids, vectors, [{"price": w.attributes["price"], "key": w.key} for w in writes])
        store.commit(row.id, run_id=run.id, writes=writes, offset=start, counts=RunCounts())
    return kit.collection(NAME)


class Questions:
    """Ten queries a second; `seconds`: from the moment a query was due to its answer."""

    def __init__(self, products: Any, count: int, rate: float) -> None:
        self._products, self._rate = products, rate
        self._chance = np.random.default_rng(1)
        self._count = count
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(16)
        self.seconds: list[float] = []
        self.failed: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Questions:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._pool.shutdown()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self._pool.submit(self._ask, due, f"p{self._chance.integers(self._count)}")
            due += 1 / self._rate
            time.sleep(max(0.0, due - time.monotonic()))

    def _ask(self, due: float, key: str) -> None:
        try:
            hits = self._products.search(product=key, where="price < 90", k=K)
            if len(hits) != K:
                self.failed.append(f"{key}: {len(hits)} hits")
        except Exception as error:  # noqa: BLE001  counted, whatever it is
            self.failed.append(f"{key}: {error!r}")
        self.seconds.append(time.monotonic() - due)

    def told(self) -> str:
        p50, p99 = np.percentile(self.seconds, [50, 99]) * 1000
        return f"{len(self.seconds):,} queries, {len(self.failed)} failed, p50 {p50:.1f} ms, p99 {p99:.1f} ms"

    @property
    def p99(self) -> float:
        return float(np.percentile(self.seconds, 99))


def reindex(arguments: list[str], kills: int, niceness: int) -> None:
    """In a process of its own; killed at moments by chance, then to its end."""
    chance = np.random.default_rng(2)
    command = ["nice", "-n", str(niceness), sys.executable, "-c", SCRIPT, *arguments]
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.5 + 4 * float(chance.random()))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    print("the last run: switched, copied, there already, overlap@10:", done.stdout.split("\n")[1])


def vectors_of(products: Any) -> dict[str, bytes]:
    """The vector of every product, by the version that serves."""
    resources = products._resources
    row = resources.store.collection(NAME, resources.backend_url)
    found: dict[str, bytes] = {}
    for keys in resources.store.key_pages(row.id, batch=CHUNK):
        ids = {by[row.views[0].slot]: key for key, by in resources.store.vector_ids_of(row.id, keys).items()}
        fetched = resources.backend.fetch(row.views[0].physical, np.array(sorted(ids)))
        found.update((ids[i], v.tobytes()) for i, v in zip(fetched.ids.tolist(), fetched.vectors, strict=True))
    return found


def main() -> None:
    """Fill, ask quietly, ask during the reindex, compare, roll back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--index", default="hnsw(m=16)")
    parser.add_argument("--rate", type=float, default=10.0, help="queries a second")
    parser.add_argument("--quiet", type=float, default=20.0, help="seconds of queries before the reindex")
    parser.add_argument("--nice", type=int, default=10, help="of the process that reindexes")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--backend", choices=["faiss", "lite"], default="faiss")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="embedkit-reindex-") as name:
        root = Path(name)
        url = f"faiss:///{root}/faiss" if options.backend == "faiss" else f"milvus:///{root}/lite.db"
        with embedkit.connect(backend=url, home=root / "home") as kit:
            products = fill(kit, options.count)
            before = vectors_of(products)
            for number in range(50):
                products.search(product=f"p{number}", where="price < 90", k=K)
            with Questions(products, options.count, options.rate) as quiet:
                time.sleep(options.quiet)
            print("quiet:         ", quiet.told(), flush=True)
            begun = time.monotonic()
            with Questions(products, options.count, options.rate) as busy:
                if options.backend == "faiss":
                    reindex([url, str(root / "home"), options.index], options.kills, options.nice)
                else:
                    products.reindex(index=options.index)
            print("during reindex:", busy.told(), f"in {time.monotonic() - begun:.0f} s", flush=True)
            for line in busy.failed[:5]:
                print("  failed:", line)
            same = vectors_of(products) == before and products.status().version == 2
            report = products.verify()
            products.rollback()
            back = vectors_of(products) == before and products.status().version == 1
            ratio = busy.p99 / quiet.p99
            print(
                f"{options.backend}, {options.count:,} vectors to {options.index}, {options.kills} kills, "
                f"{os.cpu_count()} cores: p99 {ratio:.2f} times the quiet one; vectors equal after the switch: {same}, "
                f"after the rollback: {back}; store and backend agree: {report.ok}"
            )


if __name__ == "__main__":
    main()
