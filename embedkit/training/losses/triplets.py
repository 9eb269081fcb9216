"""Triplet losses: Deep Ranking, FaceNet's semi-hard negatives, batch-hard."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from embedkit.specs import SpecText
from embedkit.training.losses.contract import PairLoss
from embedkit.training.miners import BatchHard, Miner, SemiHard
from embedkit.training.pairs import Batch, mean_of

__all__ = ["Hard", "Triplet", "batch_hard", "facenet", "triplet"]


class Triplet(PairLoss):
    """max(0, g + D(p, p⁺) - D(p, p⁻)) with D the squared Euclidean distance of vectors of length 1.

    Deep Ranking: Wang 2014, eq. 3, all triplets of the batch. FaceNet: Schroff 2015, eq. 3, g = 0.2, semi-hard ones.
    The mean is over the triplets that cost something: the others, soon nearly all, would only shrink the step.
    """

    def __init__(self, margin: float = 0.2, miner: Miner | None = None) -> None:
        super().__init__(miner)
        self.margin = margin

    def of_batch(self, batch: Batch) -> Tensor:
        chosen = self.miner.triplets(batch)
        squared = batch.squared_distances()
        near, far = squared[chosen.anchor, chosen.positive], squared[chosen.anchor, chosen.negative]
        cost = (self.margin + near - far).clamp_min(0)
        return mean_of(cost, cost > 0)


class Hard(PairLoss):
    """Batch-hard: Hermans 2017, eq. 5, plain (not squared) distances, mean over the anchors.

    `margin` 0 is the soft margin ln(1 + exp(d⁺ - d⁻)), with which the paper has its best results; another m gives
    max(0, m + d⁺ - d⁻). As in the paper the vectors are not scaled.
    """

    normalise = False

    def __init__(self, margin: float = 0.0, *, normalise: bool = False, miner: Miner | None = None) -> None:
        super().__init__(miner or BatchHard())
        self.margin, self.normalise = margin, normalise

    def of_batch(self, batch: Batch) -> Tensor:
        chosen = self.miner.triplets(batch)
        distance = batch.distances()
        gap = distance[chosen.anchor, chosen.positive] - distance[chosen.anchor, chosen.negative]
        cost = (self.margin + gap).clamp_min(0) if self.margin else F.softplus(gap)
        return cost.sum() / max(1, len(chosen))


def triplet(spec: SpecText, *, dim: int, classes: int) -> Triplet:
    """``triplet(margin=0.2)``; the paper names no gap, 0.2 is FaceNet's."""
    return Triplet(spec.only("margin").number("margin", 0.2, 0.0, 4.0))


def facenet(spec: SpecText, *, dim: int, classes: int) -> Triplet:
    """``semi-hard(margin=0.2)``."""
    margin = spec.only("margin").number("margin", 0.2, 0.0, 4.0)
    return Triplet(margin, SemiHard(margin))


def batch_hard(spec: SpecText, *, dim: int, classes: int) -> Hard:
    """``batch-hard(margin=soft, normalise=no)``; margin=0.2 is a hard margin."""
    spec.only("margin", "normalise")
    margin = 0.0 if spec.options.get("margin", "soft") == "soft" else spec.number("margin", 0.0, 1e-6, 1e6)
    return Hard(margin, normalise=spec.choice("normalise", "no", ("no", "yes")) == "yes")
