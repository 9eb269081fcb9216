"""Recall@k, R-precision and MAP@R: what is found among the nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedkit.training.datasets.relevance import Relevance
from embedkit.training.evaluation.contract import Scores
from embedkit.training.evaluation.nearest import comparable, nearest

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray

__all__ = ["RECALLS", "category_scores", "hits_at", "retrieval_scores"]

RECALLS = (1, 2, 4, 5, 8, 10, 20, 30, 40, 50, 100, 1_000)


def retrieval_scores(
    queries: FloatArray,
    labels: IdArray,
    gallery: FloatArray | None = None,
    gallery_labels: IdArray | None = None,
    *,
    relevance: Relevance | None = None,
    recalls: Sequence[int] = RECALLS,
    precision: bool = True,
) -> Scores:
    """Figures of queries in a gallery, or among themselves, none of them finding itself.

    ``recall@k``: the share of queries with one of their class among the k nearest. ``r-precision``: the share of
    their class among the R nearest, R being how many there are. ``map@r`` (Musgrave et al. 2020, eq. 5 and 6): the
    mean over i = 1…R of the precision at i where the i-th is of the class, else 0. Queries whose class has nothing
    else in the gallery are left out and counted as unmatched. `relevance`: what counts as of their class, if that is
    not the label.
    """
    against = labels if gallery_labels is None else gallery_labels
    size = len(against) - (gallery is None)
    relevance = relevance or Relevance(labels, gallery_labels)
    relevant = relevance.counts()
    wanted = sorted({k for k in recalls if k <= size} | {1})
    depth = max(wanted[-1], int(relevant.max(initial=1)) if precision else 1)
    found = {k: 0.0 for k in wanted}
    r_precision = map_r = 0.0
    space = None if gallery is None else comparable(gallery)
    for block in nearest(comparable(queries), space, k=depth):
        rows = slice(block.start, block.start + len(block.ids))
        counted = relevant[rows] > 0
        hits = relevance(rows, block.ids)[counted]
        for k in wanted:
            found[k] += float(hits[:, :k].any(axis=1).sum())
        if precision:
            share, mean = _at_r(hits, relevant[rows][counted])
            r_precision, map_r = r_precision + share, map_r + mean
    count = int(np.count_nonzero(relevant > 0))
    values = {f"recall@{k}": found[k] / max(count, 1) for k in wanted}
    if precision:
        values |= {"r-precision": r_precision / max(count, 1), "map@r": map_r / max(count, 1)}
    return Scores(values, "recall@1", count, len(labels) - count)


def _at_r(hits: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], relevant: IdArray) -> tuple[float, float]:
    """The sums over queries of R-precision and of MAP@R."""
    ranks = np.arange(1, hits.shape[1] + 1)
    inside = hits & (ranks <= relevant[:, None])
    precise = np.cumsum(inside, axis=1) / ranks
    return float((inside.sum(axis=1) / relevant).sum()), float(((precise * inside).sum(axis=1) / relevant).sum())


def hits_at(
    queries: FloatArray, labels: IdArray, gallery: FloatArray, gallery_labels: IdArray, *, ks: Sequence[int]
) -> Mapping[int, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """For each k, which queries have one of their class among the k nearest: (n,) bool."""
    found = {k: np.zeros(len(labels), np.bool_) for k in ks}
    for block in nearest(comparable(queries), comparable(gallery), k=max(ks)):
        rows = slice(block.start, block.start + len(block.ids))
        hits = gallery_labels[block.ids] == labels[rows, None]
        for k in ks:
            found[k][rows] = hits[:, :k].any(axis=1)
    return found


def category_scores(
    queries: FloatArray,
    labels: IdArray,
    categories: IdArray,
    gallery: FloatArray,
    gallery_labels: IdArray,
    gallery_categories: IdArray,
    *,
    names: Sequence[str],
    within: bool,
    ks: Sequence[int] = (1, 5, 10, 20, 50),
) -> Scores:
    """Top-k accuracy of consumers' pictures among the shops', over all and by category: ``top-20:dresses``.

    `within`: a query searches its own category only (Kiapour et al. 2015), else the whole gallery. Queries whose
    item is not in what they search are left out.
    """
    found = {k: np.zeros(len(labels), np.bool_) for k in ks}
    counted = np.zeros(len(labels), np.bool_)
    everything = np.ones(len(gallery_labels), np.bool_)
    for place in range(len(names)):
        rows = np.flatnonzero(categories == place)
        there = gallery_categories == place if within else everything
        if not (len(rows) and there.any()):
            continue
        counted[rows] = np.isin(labels[rows], gallery_labels[there])
        part = gallery if there.all() else gallery[there]
        for k, hits in hits_at(queries[rows], labels[rows], part, gallery_labels[there], ks=ks).items():
            found[k][rows] = hits
    values = {f"top-{k}": _mean(found[k][counted]) for k in ks}
    for place, name in enumerate(names):
        part_of = counted & (categories == place)
        if part_of.any():
            values |= {f"top-{k}:{name}": _mean(found[k][part_of]) for k in ks}
    return Scores(values, "top-20", int(counted.sum()), int((~counted).sum()))


def _mean(hits: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    return float(hits.mean()) if len(hits) else 0.0
