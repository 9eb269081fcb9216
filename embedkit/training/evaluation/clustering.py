"""Do the clusters that k-means finds agree with the classes: NMI and pair-wise F1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embedkit.training.evaluation.nearest import unit

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray

__all__ = ["cluster", "cluster_scores", "normalized_mutual_information", "pair_f1"]

_ITERATIONS = 25
_STARTS = 3
_LARGE = 10**8  # (vector, centre) pairs; beyond, one start, which takes minutes


def cluster_scores(vectors: FloatArray, labels: IdArray, *, starts: int = 0, seed: int = 0) -> dict[str, float]:
    """``nmi`` and ``f1`` of as many clusters as there are classes; the best start by k-means' own objective."""
    found = cluster(unit(vectors), len(np.unique(labels)), starts=starts, seed=seed)
    return {"nmi": normalized_mutual_information(labels, found), "f1": pair_f1(labels, found)}


def cluster(vectors: FloatArray, k: int, *, starts: int = 0, seed: int = 0) -> IdArray:
    """The cluster of each row, (n,) int64: Lloyd's iterations in FAISS from seeds of greedy k-means++.

    The best of `starts` by the sum of squared distances; 0 makes three, or one where there is very much to do.
    """
    import faiss

    vectors = np.ascontiguousarray(vectors, np.float32)
    if k >= len(vectors):
        return np.arange(len(vectors))
    random = np.random.default_rng(seed)
    best, found = np.inf, np.empty(0, np.int64)
    for _ in range(starts or (_STARTS if len(vectors) * k <= _LARGE else 1)):
        means = faiss.Kmeans(
            vectors.shape[1], k, niter=_ITERATIONS, seed=1, min_points_per_centroid=1,
            max_points_per_centroid=len(vectors),
        )  # fmt: skip
        means.train(vectors, init_centroids=vectors[_seeds(vectors, k, random)])
        distances, places = means.assign(vectors)
        if float(distances.sum()) < best:
            best, found = float(distances.sum()), places.astype(np.int64)
    return found


def _seeds(vectors: FloatArray, k: int, random: np.random.Generator) -> IdArray:
    """Rows to begin with, each the best of a few drawn ∝ squared distance (Arthur and Vassilvitskii 2007, sect. 2.2).

    The few tries, 2 + ln k, make it the greedy form of their conclusion, which scikit-learn uses too.
    """
    squares = np.einsum("nd,nd->n", vectors, vectors)
    chosen = [int(random.integers(len(vectors)))]
    nearest = _squared(vectors, squares, chosen)[0]
    for _ in range(k - 1):
        total = np.cumsum(nearest, dtype=np.float64)
        drawn = np.searchsorted(total, random.random(2 + int(np.log(k))) * total[-1])
        tries = np.minimum(drawn, len(vectors) - 1)
        closer = np.minimum(_squared(vectors, squares, tries), nearest)
        best = int(closer.sum(axis=1).argmin())
        chosen.append(int(tries[best]))
        nearest = closer[best]
    return np.array(chosen, np.int64)


def _squared(vectors: FloatArray, squares: FloatArray, rows: IdArray | list[int]) -> FloatArray:
    distances = squares[rows][:, None] + squares - 2 * (vectors[rows] @ vectors.T)
    return np.maximum(distances, 0)


def _table(classes: IdArray, clusters: IdArray) -> tuple[IdArray, IdArray, IdArray]:
    """How often class and cluster meet (cells that are not 0), the sizes of the classes, and of the clusters."""
    _, a = np.unique(classes, return_inverse=True)
    _, b = np.unique(clusters, return_inverse=True)
    _, met = np.unique(a.astype(np.int64) * (int(b.max(initial=0)) + 1) + b, return_counts=True)
    return met, np.bincount(a), np.bincount(b)


def normalized_mutual_information(classes: IdArray, clusters: IdArray) -> float:
    """2 I(A; B) / (H(A) + H(B)), natural logarithms; 1 where there is one class and one cluster."""
    met, sizes_a, sizes_b = _table(classes, clusters)
    together, a, b = _entropy(met), _entropy(sizes_a), _entropy(sizes_b)
    if a + b == 0:
        return 1.0
    return float(np.clip(2 * (a + b - together) / (a + b), 0.0, 1.0))


def _entropy(counts: IdArray) -> float:
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum())


def pair_f1(classes: IdArray, clusters: IdArray) -> float:
    """F1 over pairs: precision is the share of pairs in one cluster that are of one class, recall the reverse."""
    met, sizes_a, sizes_b = (_pairs(part) for part in _table(classes, clusters))
    return 2 * met / (sizes_a + sizes_b) if sizes_a + sizes_b else 1.0


def _pairs(counts: IdArray) -> int:
    return int((counts * (counts - 1) // 2).sum())
