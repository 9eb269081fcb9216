"""Mean average precision and CMC over a whole gallery, and R@1 over random galleries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedkit.training.evaluation.contract import Scores
from embedkit.training.evaluation.nearest import comparable, nearest
from embedkit.training.evaluation.retrieval import hits_at

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray

__all__ = ["cross_camera_scores", "random_gallery_scores"]

_JUNK = -1


def cross_camera_scores(
    queries: FloatArray,
    labels: IdArray,
    cameras: IdArray,
    gallery: FloatArray,
    gallery_labels: IdArray,
    gallery_cameras: IdArray,
    *,
    ranks: Sequence[int] = (1, 5, 10, 20),
) -> Scores:
    """``map`` and ``cmc@k`` (Market-1501, Zheng et al. 2015): as if the junk were not in the gallery.

    Junk: entries of identity -1, and those of the query's identity from the query's camera. Average precision is the
    mean of the precision at every right answer. Queries without a right answer are left out.
    """
    found = dict.fromkeys(ranks, 0)
    total, count = 0.0, 0
    for block in nearest(comparable(queries), comparable(gallery), k=len(gallery_labels)):
        rows = slice(block.start, block.start + len(block.ids))
        same = gallery_labels[block.ids] == labels[rows, None]
        junk = (gallery_labels[block.ids] == _JUNK) | (same & (gallery_cameras[block.ids] == cameras[rows, None]))
        right = same & ~junk
        counted = right.any(axis=1)
        right, place = right[counted], np.cumsum(~junk[counted], axis=1)
        precise = np.cumsum(right, axis=1) / np.maximum(place, 1)
        total += float(((precise * right).sum(axis=1) / right.sum(axis=1)).sum())
        first = np.take_along_axis(place, right.argmax(axis=1)[:, None], axis=1)[:, 0]
        for k in ranks:
            found[k] += int((first <= k).sum())
        count += int(counted.sum())
    values = {"map": total / max(count, 1), **{f"cmc@{k}": found[k] / max(count, 1) for k in ranks}}
    return Scores(values, "map", count, len(labels) - count)


def random_gallery_scores(
    vectors: FloatArray,
    labels: IdArray,
    *,
    draws: int = 10,
    seed: int = 0,
    ranks: Sequence[int] = (1, 5),
) -> Scores:
    """``recall@k`` with one random picture of each class as the gallery and the rest as queries, mean of the draws.

    That is the protocol of VehicleID (Liu et al. 2016). ``recall@1-std``: the standard deviation over the draws.
    """
    random = np.random.default_rng(seed)
    figures: dict[int, list[float]] = {k: [] for k in ranks}
    asked = 0
    for _ in range(draws):
        order = random.permutation(len(labels))
        _, first = np.unique(labels[order], return_index=True)
        chosen = np.zeros(len(labels), np.bool_)
        chosen[order[first]] = True
        asked = int((~chosen).sum())
        hits = hits_at(vectors[~chosen], labels[~chosen], vectors[chosen], labels[chosen], ks=ranks)
        for k in ranks:
            figures[k].append(float(hits[k].mean()) if asked else 0.0)
    values = {f"recall@{k}": float(np.mean(figures[k])) for k in ranks}
    values["recall@1-std"] = float(np.std(figures[ranks[0]]))
    return Scores(values, "recall@1", asked)
