"""Recall@1 of many vectors through embedkit beside a bare FAISS flat search of the same vectors, in one run.

Bare: `IndexFlatIP.search` with k=2, since the nearest to each vector is itself, and the labels of the second compared.
embedkit: `retrieval_scores`, which also breaks ties by index and finds duplicates. Both take unit vectors. Each is
measured in a process of its own, in turn; the memory is what it adds at its peak. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from embedkit.training.evaluation.retrieval import retrieval_scores


def made(count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors in classes of five, loosely together."""
    random = np.random.default_rng(0)
    labels = np.arange(count) // 5
    vectors = random.standard_normal((count, dim), np.float32)
    vectors += 0.8 * random.standard_normal((labels[-1] + 1, dim), np.float32)[labels]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels


def bare(vectors: np.ndarray, labels: np.ndarray) -> float:
    """What one writes with FAISS alone."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    _, ids = index.search(vectors, 2)
    other = np.where(ids[:, 0] == np.arange(len(ids)), ids[:, 1], ids[:, 0])
    return float((labels[other] == labels).mean())


def mine(vectors: np.ndarray, labels: np.ndarray) -> float:
    """The same through embedkit."""
    return retrieval_scores(vectors, labels, recalls=(1,), precision=False).values["recall@1"]


def measured(call: Callable[[np.ndarray, np.ndarray], float], count: int, dim: int, answer: Any) -> None:
    """Put (recall, seconds, megabytes added at the peak); runs in a process of its own."""
    vectors, labels = made(count, dim)
    call(vectors[:1_000], labels[:1_000])  # libraries are loaded
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    before = high_water()
    begun = time.perf_counter()
    recall = call(vectors, labels)
    answer.put((recall, time.perf_counter() - begun, high_water() - before))


def high_water() -> float:
    """The most memory this process has had, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def apart(call: Callable[[np.ndarray, np.ndarray], float], count: int, dim: int) -> tuple[float, float, float]:
    """`measured`, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=measured, args=(call, count, dim, answer))
    process.start()
    found: tuple[float, float, float] = answer.get()
    process.join()
    return found


def main() -> None:
    """Print times, their ratio, and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    print("| vectors | recall@1 | embedkit, s | bare FAISS, s | ratio | embedkit, MB | bare, MB | n × n, MB |")
    print("|---|---|---|---|---|---|---|---|")
    for count in options.sizes:
        pairs = [[apart(call, count, options.dim) for call in (mine, bare)] for _ in range(options.rounds)]
        own, other = (np.median(np.array(runs), axis=0) for runs in zip(*pairs, strict=True))
        assert abs(own[0] - other[0]) < 1e-4, (own[0], other[0])
        print(
            f"| {count:,} | {own[0]:.4f} | {own[1]:.1f} | {other[1]:.1f} | {own[1] / other[1]:.2f} "
            f"| {own[2]:,.0f} | {other[2]:,.0f} | {4 * count**2 / 2**20:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
