"""Margin loss with distance-weighted sampling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embedkit.specs import SpecText
from embedkit.training.losses.contract import PairLoss, check_labels
from embedkit.training.miners import DistanceWeighted, Miner
from embedkit.training.pairs import Batch

__all__ = ["Margin", "margin"]


class Margin(PairLoss):
    """Wu 2017, section 4: max(0, α + y (D - β)), y = 1 for one class and -1 for two; α = 0.2, β starts at 1.2.

    β is learned, one for every class (that of the anchor), or one for all when the number of classes is
    not known; ν weighs its penalty ν β. The negatives come from `DistanceWeighted`. The sum is divided by the number
    of pairs that cost something, as in the authors' code.
    """

    per_class = 5

    def __init__(
        self, classes: int = 0, *, alpha: float = 0.2, beta: float = 1.2, nu: float = 0.0, miner: Miner | None = None
    ) -> None:
        super().__init__(miner or DistanceWeighted())
        self.alpha, self.nu = alpha, nu
        self.beta = nn.Parameter(torch.full((max(1, classes),), beta))

    @property
    def per_class_beta(self) -> bool:
        """Whether every class has a β of its own."""
        return len(self.beta) > 1

    def prepare(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        embeddings = super().prepare(embeddings, labels)
        if self.per_class_beta:
            check_labels(labels, len(self.beta))
        return embeddings

    def of_batch(self, batch: Batch) -> Tensor:
        chosen = self.miner.triplets(batch)
        distance = batch.distances()
        beta = self.beta[batch.labels[chosen.anchor] if self.per_class_beta else torch.zeros_like(chosen.anchor)]
        near = (self.alpha + distance[chosen.anchor, chosen.positive] - beta).clamp_min(0)
        far = (self.alpha + beta - distance[chosen.anchor, chosen.negative]).clamp_min(0)
        active = (near > 0).sum() + (far > 0).sum()
        return (near.sum() + far.sum() + self.nu * beta.sum()) / active.clamp_min(1)


def margin(spec: SpecText, *, dim: int, classes: int) -> Margin:
    """``margin(alpha=0.2, beta=1.2, nu=0)``."""
    spec.only("alpha", "beta", "nu")
    return Margin(
        classes,
        alpha=spec.number("alpha", 0.2, 0.0, 2.0),
        beta=spec.number("beta", 1.2, 0.0, 2.0),
        nu=spec.number("nu", 0.0, 0.0, 1e6),
    )
