"""Are these two the same? Accuracy over folds, and the true accepts at a rate of false ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import BadInput
from embedkit.training.evaluation.contract import Scores
from embedkit.training.evaluation.nearest import unit

if TYPE_CHECKING:
    from embedkit.training.datasets.contract import BoolArray
    from embedkit.types import FloatArray, IdArray

__all__ = ["best_threshold", "fold_accuracies", "pair_scores", "true_accepts_at"]


def pair_scores(
    vectors: FloatArray,
    first: IdArray,
    second: IdArray,
    same: BoolArray,
    folds: IdArray,
    *,
    rates: Sequence[float] = (0.1, 0.01, 0.001),
) -> Scores:
    """Figures of pairs of rows of `vectors`, by the cosine (LFW, Huang et al. 2007).

    ``accuracy``: the mean over the folds, each with the threshold that is best on the others; ``accuracy-se``: its
    standard error, the standard deviation over the folds / √folds; ``tar@far=x``: the share of pairs of one that is
    accepted where at most the share x of pairs of two is.
    """
    space = unit(vectors)
    cosines = np.einsum("nd,nd->n", space[first], space[second])
    accuracies = fold_accuracies(cosines, same, folds)
    values = {
        "accuracy": float(accuracies.mean()),
        "accuracy-se": float(accuracies.std(ddof=1) / np.sqrt(len(accuracies))) if len(accuracies) > 1 else 0.0,
    }
    values |= {f"tar@far={rate:g}": true_accepts_at(cosines, same, rate) for rate in rates}
    return Scores(values, "accuracy", len(first))


def fold_accuracies(scores: FloatArray, same: BoolArray, folds: IdArray) -> FloatArray:
    """The accuracy on each fold, with the threshold from the others. Raises BadInput for fewer than two folds."""
    known = np.unique(folds)
    if len(known) < 2:
        raise BadInput("Verification needs pairs in two folds or more: one is judged by the threshold of the others")
    accuracies = []
    for fold in known:
        judged = folds == fold
        threshold = best_threshold(scores[~judged], same[~judged])
        accuracies.append(((scores[judged] >= threshold) == same[judged]).mean())
    return np.array(accuracies, np.float32)


def best_threshold(scores: FloatArray, same: BoolArray) -> float:
    """The threshold from which on "same" is right most often; in the middle of a gap, the lowest of equals."""
    values = np.unique(scores.astype(np.float64))
    cuts = np.concatenate([[values[0] - 1.0], (values[1:] + values[:-1]) / 2, [values[-1] + 1.0]])
    accepted = len(scores) - np.searchsorted(np.sort(scores), cuts)
    hits = int(same.sum()) - np.searchsorted(np.sort(scores[same]), cuts)
    right = hits + (len(scores) - int(same.sum())) - (accepted - hits)
    return float(cuts[right.argmax()])


def true_accepts_at(scores: FloatArray, same: BoolArray, rate: float) -> float:
    """The largest share of same pairs over a threshold that at most the share `rate` of the others is over."""
    others = np.sort(scores[~same])[::-1]
    allowed = int(np.floor(rate * len(others) + 1e-9))
    if not same.any():
        return 0.0
    return float((scores[same] > others[allowed]).mean()) if allowed < len(others) else 1.0
