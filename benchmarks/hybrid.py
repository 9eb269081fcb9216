"""What the other ways to ask cost beside a plain search, on one FAISS collection of made vectors, in one run.

Titles are five words of 2,000, drawn as in a language (the r-th by 1 / r). "Many at once" is `Collection.search_many`
beside the same questions one by one. `dedup` compares every vector with every other one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import embedkit
from embedkit import Question
from embedkit.backends.contract import CollectionSpec
from embedkit.metadata.rows import ProductWrite, RunCounts, ViewRow

DIM, CHUNK, WORDS = 128, 5_000, 2_000
WHERE = "price < 10"


def fill(kit: Any, vectors: np.ndarray) -> Any:
    """Products with titles and vectors, written as an ingest does."""
    store, backend = kit._resources.store, kit._resources.backend
    backend.create(CollectionSpec("bench_v1_image", DIM))
    view = ViewRow("image", "image", "none", "none", DIM, "cosine", "bench_v1_image")
    row = store.create_collection("bench", backend_url=kit._resources.backend_url, views=(view,))
    run = store.start_run(row.id, source="bench", source_fingerprint=None)
    random, shares = np.random.default_rng(1), 1 / np.arange(1, WORDS + 1)
    words = random.choice(WORDS, (len(vectors), 5), p=shares / shares.sum())
    for start in range(0, len(vectors), CHUNK):
        writes = [
            ProductWrite(
                f"p{n:07}", " ".join(f"w{word}" for word in words[n]), None,
                {"price": n % 100, "seller": f"s{n % 50}"}, vectors={"image": ("h", "none")},
            )
            for n in range(start, min(start + CHUNK, len(vectors)))
        ]  # fmt: skip
        ids = np.array([issued["image"] for issued in store.begin(row.id, writes)])
        backend.upsert("bench_v1_image", ids, vectors[start : start + CHUNK], [dict(w.attributes) for w in writes])
        store.commit(row.id, run_id=run.id, writes=writes, offset=start, counts=RunCounts())
    return kit.collection("bench")


def p50(call: Callable[[int], object], rounds: int) -> float:
    """Median milliseconds; the first tenth warms up."""
    taken = []
    for number in range(rounds):
        begun = time.perf_counter()
        call(number)
        taken.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(taken[rounds // 10 :])


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--many", type=int, default=1_000)
    options = parser.parse_args()
    vectors = np.random.default_rng(0).standard_normal((options.size, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with (
        tempfile.TemporaryDirectory(prefix="embedkit-bench-") as name,
        embedkit.connect(backend=f"faiss:///{name}/faiss", home=Path(name) / "home") as kit,
    ):
        there = fill(kit, vectors)
        ways: dict[str, dict[str, Any]] = {
            "one vector": {},
            "one vector, offset 90": {"offset": 90},
            "group_by, 50 sellers": {"group_by": "seller"},
            "diversity 0.3": {"diversity": 0.3},
            "vector and keywords, weighted": {"keywords": "w20 w300"},
            "vector and keywords, rrf": {"keywords": "w20 w300", "fusion": "rrf"},
        }
        print(f"{options.size:,} products, {DIM}-d, k=10, FAISS flat, SQLite\n\n| what | p50, ms |\n|---|---|")
        for label, wish in ways.items():
            print(f"| {label} | {p50(lambda n, w=wish: there.search(vector=vectors[n], **w), options.rounds):.2f} |")
        for label, wish in {
            "keywords, two rarer words": {"keywords": "w200 w300"},
            "keywords, a word of every second title": {"keywords": "w0 w300"},
            "the same, of a tenth of the products": {"keywords": "w0 w300", "where": WHERE},
        }.items():
            print(f"| {label} | {p50(lambda _, w=wish: there.search(**w), options.rounds // 5):.2f} |")
        asked = [Question(vector=vector) for vector in vectors[: options.many]]
        alone = seconds(lambda: [there.search(vector=one.vector) for one in asked])
        together = seconds(lambda: there.search_many(asked))
        print(
            f"\n{len(asked):,} questions one by one: {alone:.2f} s, at once: {together:.2f} s, {alone / together:.1f} x"
        )
        print(f"dedup: {seconds(lambda: there.dedup(threshold=0.9)):.1f} s")
        print(f"cluster, k=50: {seconds(lambda: there.cluster(50)):.1f} s")


if __name__ == "__main__":
    main()
