"""Deleting from an index of a million vectors: the FAISS backend beside the bare library.

embedkit leaves a tombstone, and compacts behind one's back. A bare `IndexFlat` moves every row behind the deleted
one, `IndexIVFFlat` reads all its lists, `IndexHNSWFlat` refuses. The last lines show what searches notice of a
compaction, and what another process pays to see a write.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from embedkit.backends.contract import CollectionSpec, IndexSpec
from embedkit.backends.open import open_backend

DIM, CHUNK = 128, 10_000


def milliseconds(call: Callable[[], object]) -> float:
    """Of one call."""
    begun = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begun)


def deleting(delete: Callable[[np.ndarray], object], chance: np.random.Generator, count: int) -> list[float]:
    """Median milliseconds of deletes of 1, 100 and 1,000 rows at random places."""
    sizes = ((1, 9), (100, 5), (1_000, 3))
    return [
        statistics.median(
            milliseconds(lambda n=n: delete(chance.choice(count, n, replace=False))) for _ in range(times)
        )
        for n, times in sizes
    ]


def fill(backend: Any, vectors: np.ndarray) -> None:
    """One collection with a column."""
    backend.create(CollectionSpec("c", DIM, "l2"))
    for start in range(0, len(vectors), CHUNK):
        part = vectors[start : start + CHUNK]
        rows = [{"price": row % 100} for row in range(len(part))]
        backend.upsert("c", np.arange(start, start + len(part)), part, rows)


def compaction(backend: Any, vectors: np.ndarray) -> tuple[float, list[float]]:
    """Seconds of a compaction that a large delete starts, and milliseconds of the searches meanwhile."""
    taken: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            taken.append(milliseconds(lambda: backend.search("c", vectors[:1], 10)))

    asking = threading.Thread(target=ask)
    begun = time.perf_counter()
    backend.delete("c", np.arange(len(vectors) // 3))
    asking.start()
    upkeep = backend._get("c")._upkeep
    if upkeep is not None:
        upkeep.join()
    seconds = time.perf_counter() - begun
    stop.set()
    asking.join()
    return seconds, taken


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--hnsw", action="store_true", help="build HNSW too, which takes minutes")
    options = parser.parse_args()
    chance = np.random.default_rng(0)
    vectors = chance.standard_normal((options.count, DIM)).astype(np.float32)
    print(f"{options.count:,} vectors of {DIM} floats; milliseconds of one delete\n")
    print("| what | 1 row | 100 rows | 1,000 rows |\n|---|---|---|---|")
    flat, ivf = faiss.IndexFlatL2(DIM), faiss.index_factory(DIM, "IVF1024,Flat")
    ivf.cp.niter = 4
    ivf.train(vectors[:50_000])
    for label, index in (("bare IndexFlat", flat), ("bare IndexIVFFlat", ivf)):
        index.add(vectors)
        times = deleting(index.remove_ids, chance, options.count)
        print(f"| {label} | {' | '.join(f'{ms:.1f}' for ms in times)} |", flush=True)
        index.reset()
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as name:
        backend, other = open_backend(f"faiss:///{name}/f"), open_backend(f"faiss:///{name}/f")
        fill(backend, vectors)
        for text in ("flat", "ivf(nlist=1024)", *(("hnsw(m=16)",) if options.hnsw else ())):
            backend.build_index("c", IndexSpec.parse(text))
            times = deleting(lambda ids: backend.delete("c", ids), chance, options.count)
            print(f"| embedkit, {text} | {' | '.join(f'{ms:.1f}' for ms in times)} |", flush=True)
        backend.build_index("c", IndexSpec("flat"))
        quiet = statistics.median(milliseconds(lambda: backend.search("c", vectors[:1], 10)) for _ in range(20))
        opened = milliseconds(lambda: other.count("c"))
        backend.upsert("c", np.array([7]), vectors[:1])
        seen = milliseconds(lambda: other.count("c"))
        seconds, taken = compaction(backend, vectors)
        backend.close()
        other.close()
    print(
        f"\nA second process opens the collection in {opened:.0f} ms and sees one more row after {seen:.0f} ms.\n"
        f"A compaction of a third of the rows takes {seconds:.1f} s behind one's back; a search takes {quiet:.0f} ms "
        f"before, {statistics.median(taken):.0f} ms meanwhile (median of {len(taken)}), at most {max(taken):.0f} ms."
    )


if __name__ == "__main__":
    main()
