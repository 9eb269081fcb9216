"""Recall@1 of many vectors through embedkit beside a bare FAISS flat search of the same vectors, in one run.

Up to 200,000 vectors search each other; bare: `IndexFlatIP.search` with k=2, since the nearest to each vector is
itself, and the labels of the second compared. More of them are a gallery that `--queries` other vectors of the same
classes search, bare with k=1. embedkit: `retrieval_scores`, which also breaks ties by index and finds duplicates. Both
take unit vectors. Each is measured in a process of its own, in turn; the memory is what it adds at its peak. Linux
only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from embedkit.training.evaluation.retrieval import retrieval_scores

ALL = 200_000  # vectors that search each other, where --queries says nothing
QUERIES = 20_000


@dataclass(frozen=True)
class Vectors:
    """A gallery, and queries of the same classes that are not in it: None where it searches itself."""

    gallery: np.ndarray
    labels: np.ndarray
    queries: np.ndarray | None
    asked: np.ndarray

    def few(self) -> Vectors:
        """Some of them, to load libraries with."""
        queries = None if self.queries is None else self.queries[:100]
        return Vectors(self.gallery[:1_000], self.labels[:1_000], queries, self.asked[:100])


def made(count: int, dim: int, queries: int) -> Vectors:
    """Unit vectors in classes of five, loosely together; `queries`: so many more, each of a random class of them."""
    random = np.random.default_rng(0)
    labels = np.arange(count) // 5
    centres = 0.8 * random.standard_normal((labels[-1] + 1, dim), np.float32)
    asked = random.integers(0, len(centres), queries)
    gallery, other = (around(centres, of, random) for of in (labels, asked))
    return Vectors(gallery, labels, other if queries else None, asked)


def around(centres: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A unit vector near the centre of each label."""
    vectors = random.standard_normal((len(labels), centres.shape[1]), np.float32)
    vectors += centres[labels]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def bare(given: Vectors) -> float:
    """What one writes with FAISS alone."""
    index = faiss.IndexFlatIP(given.gallery.shape[1])
    index.add(given.gallery)
    if given.queries is not None:
        _, ids = index.search(given.queries, 1)
        return float((given.labels[ids[:, 0]] == given.asked).mean())
    _, ids = index.search(given.gallery, 2)
    other = np.where(ids[:, 0] == np.arange(len(ids)), ids[:, 1], ids[:, 0])
    return float((given.labels[other] == given.labels).mean())


def mine(given: Vectors) -> float:
    """The same through embedkit."""
    if given.queries is None:
        found = retrieval_scores(given.gallery, given.labels, recalls=(1,), precision=False)
    else:
        sides = (given.queries, given.asked, given.gallery, given.labels)
        found = retrieval_scores(*sides, recalls=(1,), precision=False)
    return found.values["recall@1"]


def measured(call: Callable[[Vectors], float], count: int, dim: int, queries: int, answer: Any) -> None:
    """Put (recall, seconds, megabytes added at the peak); runs in a process of its own."""
    given = made(count, dim, queries)
    call(given.few())  # libraries are loaded
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    before = high_water()
    begun = time.perf_counter()
    recall = call(given)
    answer.put((recall, time.perf_counter() - begun, high_water() - before))


def high_water() -> float:
    """The most memory this process has had, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def apart(call: Callable[[Vectors], float], count: int, dim: int, queries: int) -> tuple[float, float, float]:
    """`measured`, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=measured, args=(call, count, dim, queries, answer))
    process.start()
    found: tuple[float, float, float] = answer.get()
    process.join()
    return found


def main() -> None:
    """Print times, their ratio, and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--queries", type=int, help=f"0 for all; {QUERIES:,} where there are more than {ALL:,} vectors")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    print(
        "| vectors | queries | recall@1 | embedkit, s | bare FAISS, s | ratio | embedkit, MB | bare, MB | q × n, MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for count in options.sizes:
        queries = options.queries if options.queries is not None else QUERIES * (count > ALL)
        rounds = range(options.rounds)
        pairs = [[apart(call, count, options.dim, queries) for call in (mine, bare)] for _ in rounds]
        own, other = (np.median(np.array(runs), axis=0) for runs in zip(*pairs, strict=True))
        assert abs(own[0] - other[0]) < 1e-4, (own[0], other[0])
        asking = queries or count
        print(
            f"| {count:,} | {asking:,} | {own[0]:.4f} | {own[1]:.1f} | {other[1]:.1f} | {own[1] / other[1]:.2f} "
            f"| {own[2]:,.0f} | {other[2]:,.0f} | {4 * asking * count / 2**20:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
