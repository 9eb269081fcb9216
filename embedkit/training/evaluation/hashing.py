"""How good binary codes are: rankings by Hamming distance, and what lies within a radius."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.errors import BadInput
from embedkit.training.datasets.relevance import Relevance

if TYPE_CHECKING:
    from embedkit.training.datasets.contract import BoolArray
    from embedkit.types import FloatArray, IdArray

__all__ = ["HashCurves", "HashScores", "hashing_scores"]

TOP = 1_000  # of the mean average precision, as on ImageNet-100
RADIUS = 2
_CELLS = 2**22  # distances that are held at once
_CURVE = 1_000  # ranks of the curve

Distances: TypeAlias = npt.NDArray[np.int16]
Values: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class HashCurves:
    """Means over the queries: `precision` and `recall` within the Hamming radii 0, 1, … bits, ``(bits + 1,)``.

    `precision_at`: the share of right ones among the nearest 1, 2, …, ``(n,)``.
    """

    precision: Values
    recall: Values
    precision_at: Values


@dataclass(frozen=True, slots=True, eq=False)
class HashScores:
    """`values`: figures by name; `curves` beside them."""

    values: dict[str, float]
    curves: HashCurves


def hashing_scores(
    queries: FloatArray,
    labels: IdArray,
    gallery: FloatArray | None = None,
    gallery_labels: IdArray | None = None,
    *,
    top: int = TOP,
    relevance: Relevance | None = None,
) -> HashScores:
    """Figures of codes, ``(n, bits)`` of ±1 float32, in a gallery, or among themselves, none of them finding itself.

    ``map@1000``: the mean over the queries of the average precision of the nearest 1,000, which is the mean of the
    precision at every right one *of these*, 0 without any: as the code of HashNet and its successors has it.
    ``precision@h2``: the share of right ones among all within Hamming distance 2, 0 where there are none;
    ``recall@h2``: which share of all right ones lies there. Equal distances go by index. Queries whose class has
    nothing else in the gallery are left out. `relevance`: what is right, if that is not the label. Raises BadInput for
    anything but codes.
    """
    bits = _checked(queries, labels)
    alone = gallery is None
    space, against = (queries, labels) if gallery is None or gallery_labels is None else (gallery, gallery_labels)
    if _checked(space, against) != bits:
        raise BadInput(f"Codes of {bits} bits cannot be compared with codes of {space.shape[1]}")
    ranks = np.arange(1, max(1, min(max(top, _CURVE), len(space) - alone)) + 1)
    precise, precision, recall = np.zeros(len(ranks)), np.zeros(bits + 1), np.zeros(bits + 1)
    relevance, every = relevance or Relevance(labels, gallery_labels), np.arange(len(space))
    shares, count = 0.0, 0
    for start, distances in _distances(queries, space, bits):
        rows = np.arange(start, start + len(distances))
        right = relevance(slice(start, start + len(rows)), np.broadcast_to(every, distances.shape))
        if alone:
            right[np.arange(len(rows)), rows] = False
        counted = right.any(axis=1)
        rows, distances, right = rows[counted], distances[counted], right[counted]
        if not len(rows):
            continue
        if alone:
            distances[np.arange(len(rows)), rows] = bits + 1  # behind everything
        hits = _nearest_hits(distances, right, len(ranks))
        shares += _average_precision(hits[:, :top])
        precise += (np.cumsum(hits, axis=1) / ranks).sum(axis=0)
        found, correct = _up_to(distances, np.ones_like(right), bits), _up_to(distances, right, bits)
        precision += (correct / np.maximum(found, 1)).sum(axis=0)
        recall += (correct / right.sum(axis=1, keepdims=True)).sum(axis=0)
        count += len(rows)
    many = max(count, 1)
    curves = HashCurves(precision / many, recall / many, precise[:_CURVE] / many)
    values = {
        f"map@{top}": shares / many,
        f"precision@h{RADIUS}": float(curves.precision[min(RADIUS, bits)]),
        f"recall@h{RADIUS}": float(curves.recall[min(RADIUS, bits)]),
    }
    return HashScores(values, curves)


def _checked(codes: FloatArray, labels: IdArray) -> int:
    if codes.ndim != 2 or len(codes) != len(labels) or not (np.abs(codes) == 1).all():
        raise BadInput(f"Codes are numbers of ±1 (n, bits) with n labels, not an array of shape {codes.shape}")
    return int(codes.shape[1])


def _distances(queries: FloatArray, gallery: FloatArray, bits: int) -> Iterator[tuple[int, Distances]]:
    """Hamming distances of blocks of queries; exact, for the products of whole numbers are."""
    step = max(1, _CELLS // max(1, len(gallery)))
    for start in range(0, len(queries), step):
        yield start, ((bits - queries[start : start + step] @ gallery.T) / 2).astype(np.int16)


def _nearest_hits(distances: Distances, right: BoolArray, count: int) -> BoolArray:
    """Which of the `count` nearest are right, best first; equal distances by index."""
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    hits: BoolArray = np.take_along_axis(right, order, axis=1)
    return hits


def _average_precision(hits: BoolArray) -> float:
    """Summed over the queries."""
    precise = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return float(((precise * hits).sum(axis=1) / np.maximum(hits.sum(axis=1), 1)).sum())


def _up_to(distances: Distances, which: BoolArray, bits: int) -> npt.NDArray[np.int64]:
    """For each query and radius 0 to bits, how many of those lie within: ``(n, bits + 1)``."""
    width = bits + 2
    place = np.arange(len(distances))[:, None] * width + distances
    counts = np.bincount(place[which], minlength=len(distances) * width).reshape(len(distances), width)
    return np.cumsum(counts[:, : bits + 1], axis=1)
