"""Contrastive loss (DrLIM), alone and beside a classifier (DeepID2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embedkit.specs import SpecText
from embedkit.training.losses.contract import ClassLoss, PairLoss, class_vectors, known_classes, nothing
from embedkit.training.miners import Miner
from embedkit.training.pairs import Batch, mean_of

__all__ = ["Contrastive", "DeepID2", "contrastive", "deepid2"]


class Contrastive(PairLoss):
    """Hadsell 2006, eq. 4: ½ d² for a pair of one class, ½ max(0, m - d)² for two classes; m = 1.

    Summed over the pairs, as in eq. 3, and divided by the number of anchors: a pair counts the same whichever kind it
    is of. With a mean for each kind the many pairs of two classes weigh no more than the few of one, and the embedding
    shrinks together.
    """

    def __init__(self, margin: float = 1.0, miner: Miner | None = None) -> None:
        super().__init__(miner)
        self.margin = margin

    def of_batch(self, batch: Batch) -> Tensor:
        positive, negative = self.miner.masks(batch)
        distance = batch.distances()
        short = (self.margin - distance).clamp_min(0)
        cost = torch.where(positive, distance.square(), 0) + torch.where(negative, short.square(), 0)
        return cost.sum() / (2 * max(1, len(batch.labels)))


def _verification(distance: Tensor, positive: Tensor, negative: Tensor, margin: Tensor) -> Tensor:
    """Each kind of pair by its own mean, that of two classes over the pairs nearer than the margin."""
    short = (margin - distance).clamp_min(0)
    return (mean_of(distance.square(), positive) + mean_of(short.square(), negative & (short > 0))) / 2


class DeepID2(ClassLoss):
    """Sun 2014: softmax identification (eq. 1) + λ times L2 verification (eq. 2) on features as they are; λ = 0.05.

    The margin of eq. 2 is no parameter: the paper sets it again and again to the distance at which the verification
    errors of the last pairs are fewest. Here it follows that distance batch by batch (both kinds of error weigh the
    same, 0.99 of the old value is kept), unless `margin` fixes it.
    """

    normalise = False
    margin: Tensor

    def __init__(self, dim: int, classes: int, *, weight: float = 0.05, margin: float = 0.0) -> None:
        super().__init__(classes)
        self.weight = class_vectors(dim, classes)
        self.share, self.fixed = weight, margin > 0
        self.bias = nn.Parameter(torch.zeros(classes))
        self.register_buffer("margin", torch.tensor(margin))

    @property
    def vectors(self) -> nn.Parameter:
        return self.weight

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        embeddings = self.prepare(embeddings, labels)
        batch = Batch.of(embeddings, labels, alike=self.alike)
        distance = batch.distances()
        if self.training and not self.fixed:
            self._follow(distance.detach(), batch)
        identification = F.cross_entropy(F.linear(embeddings, self.weight, self.bias), labels)
        verification = _verification(distance, batch.positive, batch.negative, self.margin)
        return identification + self.share * verification + nothing(embeddings)

    @torch.no_grad()
    def _follow(self, distance: Tensor, batch: Batch) -> None:
        near, far = distance[batch.positive], distance[batch.negative]
        if not len(near) or not len(far):
            return
        candidates, order = torch.cat([near, far]).sort()
        is_near = order < len(near)
        missed = 1 - is_near.cumsum(0) / len(near)  # positives beyond a candidate
        fooled = (~is_near).cumsum(0) / len(far)  # negatives up to it
        best = candidates[(missed + fooled).argmin()]
        self.margin.copy_(torch.where(self.margin > 0, 0.99 * self.margin + 0.01 * best, best))


def contrastive(spec: SpecText, *, dim: int, classes: int) -> Contrastive:
    """``contrastive(margin=1.0)``."""
    return Contrastive(spec.only("margin").number("margin", 1.0, 0.0, 1e6))


def deepid2(spec: SpecText, *, dim: int, classes: int) -> DeepID2:
    """``deepid2(weight=0.05, margin=0)``; margin=0 lets it follow the data."""
    spec.only("weight", "margin")
    weight, margin = spec.number("weight", 0.05, 0.0, 1e6), spec.number("margin", 0.0, 0.0, 1e6)
    return DeepID2(dim, known_classes(spec, classes), weight=weight, margin=margin)
