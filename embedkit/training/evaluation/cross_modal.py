"""Pictures by captions and captions by pictures: Recall@k and median ranks, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from embedkit.codes import signs
from embedkit.encoders.contract import Encoder
from embedkit.training.datasets.contract import Captions, Subset
from embedkit.training.evaluation.contract import Scores
from embedkit.training.evaluation.nearest import comparable, nearest

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray

__all__ = ["cross_modal_scores", "encode_texts", "first_ranks"]

_RECALLS = (1, 5, 10)
_BATCH = 32


def cross_modal_scores(
    pictures: FloatArray, labels: IdArray, texts: FloatArray, text_labels: IdArray, *, subsets: Sequence[Subset] = ()
) -> Scores:
    """Figures of captions that search the pictures (``t2i``), and of pictures that search the captions (``i2t``).

    ``t2i-recall@k``: the share of captions that have a picture of their label among the k nearest of all pictures,
    however many pictures the label has; ``i2t-recall@k`` of pictures likewise. ``…-median-rank``: of the best right
    answer, from 1 on. ``mean-recall``, the mean of the six recalls, decides. With `subsets`, parts of the pictures, the
    means of their figures too, as ``t2i-recall@1:folds``: COCO's 1K test.
    """
    values = _both(pictures, labels, texts, text_labels)
    folds = []
    for subset in subsets:
        own = labels[subset.rows]
        known = np.isin(text_labels, own)
        if len(own) and known.any():
            folds.append(_both(pictures[subset.rows], own, texts[known], text_labels[known]))
    if folds:
        values |= {f"{name}:folds": float(np.mean([fold[name] for fold in folds])) for name in folds[0]}
    return Scores(values, "mean-recall", len(labels) + len(text_labels))


def _both(pictures: FloatArray, labels: IdArray, texts: FloatArray, text_labels: IdArray) -> dict[str, float]:
    values: dict[str, float] = {}
    ways = {
        "t2i": first_ranks(texts, text_labels, pictures, labels),
        "i2t": first_ranks(pictures, labels, texts, text_labels),
    }
    for way, ranks in ways.items():
        values |= {f"{way}-recall@{k}": float((ranks <= k).mean()) for k in _RECALLS}
        values[f"{way}-median-rank"] = float(np.median(ranks))
    recalls = [value for name, value in values.items() if "recall" in name]
    return {"mean-recall": float(np.mean(recalls)), **values}


def first_ranks(queries: FloatArray, labels: IdArray, gallery: FloatArray, gallery_labels: IdArray) -> IdArray:
    """The rank (n,) of the nearest entry of a query's label, from 1 on; one more than there are, if there is none."""
    ranks = np.empty(len(labels), np.int64)
    for block in nearest(comparable(queries), comparable(gallery), k=len(gallery)):
        rows = slice(block.start, block.start + len(block.ids))
        hits = gallery_labels[block.ids] == labels[rows, None]
        ranks[rows] = np.where(hits.any(axis=1), hits.argmax(axis=1), len(gallery)) + 1
    return ranks


def encode_texts(encoder: Encoder, captions: Captions) -> FloatArray:
    """Vectors of captions ``(m, dim)`` float32, in their order; bits become ±1, as those of pictures do."""
    parts = [list(captions.texts[start : start + _BATCH]) for start in range(0, len(captions), _BATCH)]
    if not parts:
        return np.empty((0, encoder.spec.dim), np.float32)
    with ThreadPoolExecutor(encoder.concurrency, thread_name_prefix="embedkit-encode") as pool:
        found = np.concatenate(list(pool.map(encoder.encode, parts)))
    if encoder.spec.kind == "binary":
        return signs(found.view(np.uint8), encoder.spec.dim)
    return found.astype(np.float32, copy=False)
