"""Hamming search through embedkit beside the bare `IndexBinaryFlat`, and beside a search of floats, in one run.

Random codes with planted neighbours: each query has ten codes within three bits. Bare: `IndexBinaryFlat` in memory, on
the same cores, asked the same way. Both sides are asked in turns of ten calls, so that the machine's moods fall on both
and neither finds its codes out of the cache for the other's sake, and must give the same distances. Floats: an exact
collection of as many unit vectors in the same backend, asked the same way.
With ``--products`` the codes also get products, and `Collection.search(vector=…)` is asked one by one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import faiss
import numpy as np

import embedkit
from embedkit.backends.contract import CollectionSpec
from embedkit.metadata.rows import ProductWrite, RunCounts, ViewRow

K, CHUNK, PLANTED, TURN = 10, 50_000, 10, 10
Search: TypeAlias = Callable[[np.ndarray], Any]


def made(count: int, bits: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes and queries; ten codes lie within three bits of each query."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (count, bits // 8), dtype=np.uint8)
    asked = rng.integers(0, 256, (queries, bits // 8), dtype=np.uint8)
    near = np.unpackbits(np.repeat(asked, PLANTED, axis=0), axis=1)
    for _ in range(3):
        near[np.arange(len(near)), rng.integers(0, bits, len(near))] ^= 1
    codes[rng.choice(count, len(near), replace=False)] = np.packbits(near, axis=1)
    return codes, asked


def unit_vectors(count: int, dim: int, seed: int) -> np.ndarray:
    """Random ones."""
    vectors = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def filled(backend: Any, spec: CollectionSpec, rows: np.ndarray) -> Search:
    """A collection of those rows, and how it is asked."""
    backend.create(spec)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        backend.upsert(spec.name, np.arange(start, start + len(part)), part)
    return lambda queries: backend.search(spec.name, queries, K)


def with_products(kit: Any, codes: np.ndarray) -> Search:
    """The codes with their products, written as an ingest does, and asked one by one through the SDK."""
    store, backend = kit._resources.store, kit._resources.backend
    view = ViewRow("image", "image", "none", "none", 8 * codes.shape[1], "hamming", "coded_v1_image", kind="binary")
    backend.create(CollectionSpec(view.physical, view.dim, "hamming", "binary"))
    row = store.create_collection("coded", backend_url=kit._resources.backend_url, views=(view,))
    run = store.start_run(row.id, source="bench", source_fingerprint=None)
    for start in range(0, len(codes), CHUNK):
        part = codes[start : start + CHUNK]
        writes = [
            ProductWrite(f"p{start + n}", f"product {n}", None, {}, vectors={"image": ("h", "none")})
            for n in range(len(part))
        ]
        ids = np.array([issued["image"] for issued in store.begin(row.id, writes)])
        backend.upsert(view.physical, ids, part)
        store.commit(row.id, run_id=run.id, writes=writes, offset=start, counts=RunCounts())
    there = kit.collection("coded")
    return lambda query: there.search(vector=query[0], k=K)


def compared(mine: Search, other: Search, batches: list[np.ndarray]) -> tuple[float, float]:
    """Queries a second of both, by the median call; the first tenth warms up."""
    taken: tuple[list[float], list[float]] = ([], [])
    for start in range(0, len(batches), TURN):
        for call, times in zip((mine, other), taken, strict=True):
            for batch in batches[start : start + TURN]:
                begun = time.perf_counter()
                call(batch)
                times.append(time.perf_counter() - begun)
    warm = len(batches) // 10
    size = len(batches[0])
    return size / statistics.median(taken[0][warm:]), size / statistics.median(taken[1][warm:])


def report(what: str, pairs: list[tuple[str, Search, Search, list[np.ndarray]]], least: float) -> None:
    """Lines of the table; `least`: the ratio that is aimed at."""
    for how, mine, other, batches in pairs:
        ours, theirs = compared(mine, other, batches)
        print(f"| {what} | {how} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.2f} | {least:.2f} |", flush=True)


def main() -> None:
    """Print queries a second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--dim", type=int, default=128, help="of the floats")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--products", action="store_true", help="also with products, through the SDK")
    options = parser.parse_args()
    codes, asked = made(options.size, options.bits, options.batch)
    singles = [asked[n : n + 1] for n in np.arange(3 * options.rounds) % len(asked)]
    batches = [np.roll(asked, n, axis=0) for n in range(options.rounds)]
    bare_index = faiss.IndexBinaryFlat(options.bits)
    bare_index.add(codes)

    def bare(queries: np.ndarray) -> Any:
        return bare_index.search(queries, K)

    print(f"{options.size:,} codes of {options.bits} bits, k={K}; floats of {options.dim} dimensions\n")
    print(
        "| beside | asked | codes in embedkit, queries/s | the other, queries/s | ratio | goal |\n"
        "|---|---|---|---|---|---|"
    )
    with (
        tempfile.TemporaryDirectory(prefix="embedkit-bench-") as name,
        embedkit.connect(backend=f"faiss:///{name}/faiss", home=Path(name) / "home") as kit,
    ):
        backend = kit._resources.backend
        mine = filled(backend, CollectionSpec("codes", options.bits, "hamming", "binary"), codes)
        np.testing.assert_array_equal(mine(asked).distances, bare(asked)[0])
        ways = [(f"batches of {options.batch}", mine, bare, batches), ("one by one", mine, bare, singles)]
        if options.products:
            ways.append(("one by one, with products", with_products(kit, codes), bare, singles))
        report("bare IndexBinaryFlat", ways, 1 / 1.1)
        floats = filled(backend, CollectionSpec("floats", options.dim), unit_vectors(options.size, options.dim, 0))
        vectors = unit_vectors(options.batch, options.dim, 1)
        paired = {batch.tobytes(): np.roll(vectors, n, axis=0) for n, batch in enumerate(batches)}
        paired |= {single.tobytes(): vectors[n % len(vectors)][None] for n, single in enumerate(singles)}
        few = max(3, options.rounds // 5)
        report(
            f"{options.dim} floats",
            [
                (f"batches of {options.batch}", mine, lambda b: floats(paired[b.tobytes()]), batches[:few]),
                ("one by one", mine, lambda b: floats(paired[b.tobytes()]), singles[: 3 * few]),
            ],
            20,
        )


if __name__ == "__main__":
    main()
