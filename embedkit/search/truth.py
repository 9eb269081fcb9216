"""Who is truly nearest, and which rows are as near: what advice and tuning are measured by.

A row counts by its distance and not by its id, as in ann-benchmarks: of several at the k-th distance each will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray, Metric

__all__ = ["Rows", "Truth", "nearest_of", "neighbours"]

Rows: TypeAlias = "Callable[[IdArray], tuple[IdArray, FloatArray]]"
"""Of some ids those that exist, in the order given, and their vectors ``(m, dim)``; of codes the signs."""

_ROUNDING = float(np.finfo(np.float32).eps)  # of a number; a sum of d products is off by the root of d times that
_PAIRS = 10_000  # whose vectors are held at a time


class Truth:
    """The k nearest of some queries, found by comparing every row; answers are held to it.

    `metric`: that of floats. Codes are given as their signs, whose inner product orders as bits do, exactly.
    """

    def __init__(
        self,
        queries: FloatArray,
        metric: Metric,
        k: int,
        rows: Rows,
        pages: Iterable[IdArray],
        own: IdArray | None = None,
    ) -> None:
        """`pages`: the ids of every row, k others at least. `own`: the row of each query, not an answer to it."""
        self.k = k
        self._queries, self._metric, self._rows = queries, metric, rows
        ids = nearest_of(queries, map(rows, pages), k, metric=metric, own=own)
        there, last = rows(np.unique(ids[:, -1]))
        kth = last[np.searchsorted(there, ids[:, -1])]
        self._least = _exactly(queries, kth, metric)
        self._least -= _rounding(queries, kth, metric, self._least)
        self._near = [set(row) for row in ids.tolist()]
        self._far: list[set[int]] = [set() for _ in queries]

    def share(self, found: IdArray) -> float:
        """The share of the k nearest that is found: rows ``(queries, k)``, -1 for none, no farther than the k-th.

        They are measured by their own vectors, never by what a search says of their distances.
        """
        self._look_up(found)
        right = sum(len(near.intersection(row)) for near, row in zip(self._near, found.tolist(), strict=True))
        return right / (self.k * len(self._queries))

    def _look_up(self, found: IdArray) -> None:
        """Measure the rows that no answer has named before."""
        known = [{-1} | near | far for near, far in zip(self._near, self._far, strict=True)]
        pairs = [
            (query, row) for query, named in enumerate(found.tolist()) for row in set(named).difference(known[query])
        ]
        for start in range(0, len(pairs), _PAIRS):
            queries, ids = np.array(pairs[start : start + _PAIRS], np.int64).T
            there, vectors = self._rows(np.unique(ids))
            here = np.isin(ids, there)  # others have been deleted meanwhile
            measured = _exactly(self._queries[queries[here]], vectors[np.searchsorted(there, ids[here])], self._metric)
            near = np.zeros(len(ids), np.bool_)
            near[here] = measured >= self._least[queries[here]]
            for query, row, good in zip(queries.tolist(), ids.tolist(), near.tolist(), strict=True):
                (self._near if good else self._far)[query].add(row)


def neighbours(vectors: FloatArray, asked: IdArray, k: int, *, metric: Metric) -> list[IdArray]:
    """For each of some rows those, without itself, that are no farther than its k-th nearest: k, or more if tied."""
    found = _scores(vectors[asked], vectors, metric)
    found[np.arange(len(asked)), asked] = -np.inf
    kth = np.argpartition(-found, k - 1, axis=1)[:, k - 1]
    exact = _exactly(vectors[asked], vectors[kth], metric)
    least = found[np.arange(len(asked)), kth] - _rounding(vectors[asked], vectors[kth], metric, exact)
    return [np.flatnonzero(row) for row in found >= least[:, None]]


def nearest_of(
    queries: FloatArray,
    pages: Iterable[tuple[IdArray, FloatArray]],
    k: int,
    *,
    metric: Metric,
    own: IdArray | None = None,
) -> IdArray:
    """The ids ``(queries, k)`` of the nearest rows of all pages, the farthest of them last, the others in no order.

    `own`: ids of the queries, left out.
    """
    best = np.full((len(queries), k), -np.inf, np.float32)
    ids = np.full((len(queries), k), -1, np.int64)
    for page, vectors in pages:
        found = _scores(queries, vectors, metric)
        if own is not None:
            found[own[:, None] == page[None, :]] = -np.inf
        joined = np.concatenate([best, found], axis=1)
        named = np.concatenate([ids, np.broadcast_to(page, found.shape)], axis=1)
        first = np.argpartition(-joined, k - 1, axis=1)[:, :k]  # the k-th stands at its place
        best, ids = np.take_along_axis(joined, first, 1), np.take_along_axis(named, first, 1)
    return ids


def _scores(queries: FloatArray, vectors: FloatArray, metric: Metric) -> FloatArray:
    """Higher is nearer, ``(queries, vectors)``; in the order of the metric, not its values."""
    if metric != "l2":
        return np.asarray(queries @ vectors.T)
    middle = queries.mean(axis=0)  # far from the origin a difference of squares has few digits left
    moved = vectors - middle
    found: FloatArray = 2 * ((queries - middle) @ moved.T) - np.square(moved).sum(axis=1)
    return found


def _exactly(queries: FloatArray, vectors: FloatArray, metric: Metric) -> npt.NDArray[np.float64]:
    """The score of each pair of rows ``(n,)``, higher is nearer."""
    wide = vectors.astype(np.float64)
    if metric == "l2":
        return np.asarray(-np.square(wide - queries).sum(axis=1))
    return np.asarray((wide * queries).sum(axis=1))


def _rounding(
    queries: FloatArray, vectors: FloatArray, metric: Metric, scores: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """By how much a search in float32 may take the scores of pairs ``(n,)`` for others."""
    sizes = np.linalg.norm(queries, axis=1) * np.linalg.norm(vectors, axis=1) if metric != "l2" else -scores
    return np.asarray(_ROUNDING * queries.shape[1] ** 0.5 * sizes)
