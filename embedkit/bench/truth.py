"""Who is truly nearest, and how much of that an answer found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.search.truth import nearest_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from embedkit.types import FloatArray, IdArray, Metric

__all__ = ["distances_of", "exact_truth", "limits_of", "recall_of"]

_PAGE = 20_000
_AT_ONCE = 4_000_000  # numbers that are gathered for distances
_ROUNDING = 1e-6  # of float32, when distances are sums of products: of two rows nearer than this either may be first


def exact_truth(base: npt.NDArray[Any], queries: FloatArray, k: int, *, metric: Metric) -> IdArray:
    """The places ``(queries, k)`` of the nearest rows of `base`, the nearest first, found by a scan of all."""
    unit = metric == "cosine"

    def pages() -> Iterator[tuple[IdArray, FloatArray]]:
        for start in range(0, len(base), _PAGE):
            part = np.asarray(base[start : start + _PAGE], np.float32)
            yield np.arange(start, start + len(part)), _unit(part) if unit else part

    found = nearest_of(_unit(queries) if unit else queries, pages(), k, metric=metric)
    order = np.argsort(distances_of(base, queries, found, metric=metric), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)


def distances_of(base: npt.NDArray[Any], queries: FloatArray, ids: IdArray, *, metric: Metric) -> FloatArray:
    """Of every query to rows of `base`, ``(queries, k)`` float32, lower is nearer; infinite where an id is below 0.

    Equal vectors get equal distances, to the last bit: no product of matrices is used.
    """
    found = np.empty(ids.shape, np.float32)
    step = max(1, _AT_ONCE // (ids.shape[1] * base.shape[1]))
    asked = _unit(queries) if metric == "cosine" else queries
    for start in range(0, len(ids), step):
        part = ids[start : start + step]
        rows = np.asarray(base[np.maximum(part, 0)], np.float32)
        rows = _unit(rows) if metric == "cosine" else rows
        one = asked[start : start + step, None, :]
        apart = np.square(rows - one).sum(axis=2) if metric == "l2" else -(rows * one).sum(axis=2)
        found[start : start + step] = np.where(part < 0, np.inf, apart)
    return found


def limits_of(base: npt.NDArray[Any], queries: FloatArray, truth: IdArray, *, metric: Metric) -> FloatArray:
    """How far away a hit may be to be one of the k nearest: ``(queries, k)``, in column k - 1.

    The distance of the k-th true neighbour, and what float32 may make of it.
    """
    apart = distances_of(base, queries, truth, metric=metric)
    if metric == "cosine":
        return np.sort(apart, axis=1) + np.float32(_ROUNDING)
    norms = np.square(queries).sum(axis=1, keepdims=True)
    others = distances_of(base, np.zeros_like(queries), truth, metric="l2")  # squared lengths
    size = norms + others if metric == "l2" else np.sqrt(norms * others)
    return np.sort(apart + np.float32(_ROUNDING) * size, axis=1)


def recall_of(distances: FloatArray, limits: FloatArray, k: int) -> float:
    """The share of the first k of an answer that are as near as the true k-th.

    By distance, as ann-benchmarks counts: of several rows at the same distance any is right. `distances` of the hits
    by `distances_of`, `limits` by `limits_of`.
    """
    return float(np.mean(distances[:, :k] <= limits[:, k - 1 : k]))


def _unit(rows: FloatArray) -> FloatArray:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1), np.float32)
