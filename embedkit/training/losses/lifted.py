"""Lifted structured feature embedding."""

from __future__ import annotations

import torch
from torch import Tensor

from embedkit.specs import SpecText
from embedkit.training.losses.contract import PairLoss
from embedkit.training.miners import Miner
from embedkit.training.pairs import Batch, masked_logsumexp, mean_of

__all__ = ["Lifted", "lifted"]


class Lifted(PairLoss):
    """Song 2016, eq. 4: for a positive pair (i, j), ½ max(0, J)² with α = 1 and

    J = log(Σ exp(α - D(i, k)) + Σ exp(α - D(j, l))) + D(i, j)

    over the negatives k of i and l of j, which the miner chooses for both alike; mean over the positive pairs.

    The paper's vectors have no fixed length, and a network that is not made for it gives any. On vectors of length 1
    no distance is above 2, and the sum sees near and far negatives nearly alike: the embedding gets worse. So D is
    `scale` times the distance of vectors of length 1. ``scale=1, normalise=no`` is the paper's.
    """

    def __init__(
        self, margin: float = 1.0, *, scale: float = 8.0, normalise: bool = True, miner: Miner | None = None
    ) -> None:
        super().__init__(miner)
        self.margin, self.scale, self.normalise = margin, scale, normalise

    def of_batch(self, batch: Batch) -> Tensor:
        positive, negative = self.miner.masks(batch)
        i, j = positive.nonzero(as_tuple=True)
        partners, place = torch.unique(j, return_inverse=True)
        there = batch.seen_from(partners)
        _, apart = self.miner.masks(there)
        distance = self.scale * batch.distances()
        from_i = masked_logsumexp(self.margin - distance, negative)[i]
        from_j = masked_logsumexp(self.margin - self.scale * there.distances(), apart)[place]
        cost = (torch.logaddexp(from_i, from_j) + distance[i, j]).clamp_min(0)
        return mean_of(cost.square(), negative.any(1)[i] | apart.any(1)[place]) / 2


def lifted(spec: SpecText, *, dim: int, classes: int) -> Lifted:
    """``lifted(margin=1.0, scale=8, normalise=yes)``."""
    spec.only("margin", "scale", "normalise")
    return Lifted(
        spec.number("margin", 1.0, 0.0, 1e6),
        scale=spec.number("scale", 8.0, 1e-3, 1e6),
        normalise=spec.choice("normalise", "yes", ("no", "yes")) == "yes",
    )
