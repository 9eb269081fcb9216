"""Orders in plain terms: joined by reciprocal ranks, thinned to one of a group, spread out by MMR."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedkit.filters import Path
from embedkit.matching import value_at
from embedkit.types import Hit, Product

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["RRF_K", "attributes_of", "firsts_of_groups", "group_of", "maximal_marginal_relevance", "reciprocal_ranks"]

RRF_K = 60  # of the paper: what the first places are worth over the next ones


def reciprocal_ranks(
    rankings: Sequence[Sequence[str]], weights: Sequence[float], *, k: int = RRF_K
) -> dict[str, float]:
    """Scores by reciprocal rank fusion (Cormack, Clarke and Büttcher 2009): ``Σ weight / (k + rank)``, ranks from 1.

    The paper's weights are 1. A key that a ranking lacks gets nothing of it.

    >>> reciprocal_ranks([["a", "b"], ["b"]], [1, 1])["b"] == 1 / 62 + 1 / 61
    True
    """
    scores: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, key in enumerate(ranking, 1):
            scores[key] = scores.get(key, 0.0) + weight / (k + rank)
    return scores


def attributes_of(product: Product) -> Mapping[str, object]:
    """What filters and groups read: the attributes, with the product's own key and title."""
    return {**product.attributes, "key": product.key, "title": product.title}


def firsts_of_groups(hits: Sequence[Hit], path: Path) -> list[Hit]:
    """The first hit of each value at a path, in order; a product without a value stands for itself."""
    seen: set[str] = set()
    kept = []
    for hit in hits:
        value = value_at(attributes_of(hit.product), path)
        group = group_of(value)
        if value is None or group not in seen:
            seen.add(group)
            kept.append(hit)
    return kept


def group_of(value: object) -> str:
    """The group of a value, a text: 1 and 1.0 are one number, true and '1' are others; long ids stay apart."""
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value, sort_keys=True)


def maximal_marginal_relevance(
    relevance: npt.NDArray[np.float64],
    likeness: Callable[[int], npt.NDArray[np.float64]],
    count: int,
    *,
    diversity: float,
) -> list[int]:
    """Places in the order of maximal marginal relevance (Carbonell and Goldstein 1998), at most `count`.

    Each next one has the largest ``(1 - diversity) * relevance - diversity * max(likeness to those before)``; of equal
    ones the first. `relevance`: (n,); `likeness(i)`: (n,) of every place to place i, on the same scale.
    """
    left = np.ones(len(relevance), np.bool_)
    nearest = np.zeros(len(relevance))
    order: list[int] = []
    while len(order) < min(count, len(relevance)):
        gains = (1 - diversity) * relevance - diversity * nearest
        best = int(np.argmax(np.where(left, gains, -np.inf)))
        like = likeness(best)
        nearest = np.maximum(nearest, like) if order else like
        order.append(best)
        left[best] = False
    return order
