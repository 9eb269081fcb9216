"""SoftTriple: a softmax over several learned centres of every class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embedkit.specs import SpecText
from embedkit.training.losses.contract import ClassLoss, class_vectors, known_classes, nothing
from embedkit.training.pairs import unit

__all__ = ["SoftTriple", "soft_triple"]


class SoftTriple(ClassLoss):
    """Qian 2019, ℓ_SoftTriple with its regulariser of the centres; λ = 20, γ = 0.1, δ = 0.01, τ = 0.2, K = 10.

    The relaxed similarity to a class is Σ_k softmax_k(xᵀw_k / γ) xᵀw_k, that of the own class less δ, times λ. The
    regulariser τ Σ √(2 - 2 w_sᵀw_t) / (C K (K - 1)) draws the centres of a class together, so that a class keeps as
    many as it needs.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        scale: float = 20.0,
        gamma: float = 0.1,
        margin: float = 0.01,
        tau: float = 0.2,
        centres: int = 10,
    ) -> None:
        super().__init__(classes)
        self.weight, self.centres = class_vectors(dim, classes, centres=centres), centres
        self.scale, self.gamma, self.margin, self.tau = scale, gamma, margin, tau

    @property
    def vectors(self) -> nn.Parameter:
        return self.weight

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        embeddings = self.prepare(embeddings, labels)
        centres = unit(self.weight)
        similar = (embeddings @ centres.T).view(len(embeddings), self.classes, self.centres)
        relaxed = ((similar / self.gamma).softmax(2) * similar).sum(2)
        logits = self.scale * (relaxed - self.margin * F.one_hot(labels, self.classes))
        return F.cross_entropy(logits, labels) + self._spread(centres) + nothing(embeddings)

    def _spread(self, centres: Tensor) -> Tensor:
        if self.centres == 1 or self.tau == 0:
            return nothing(centres)
        own = centres.view(self.classes, self.centres, -1)
        above = torch.triu(torch.ones(self.centres, self.centres, dtype=torch.bool, device=own.device), diagonal=1)
        pairs = (own @ own.transpose(1, 2))[:, above]
        lengths = (2 - 2 * pairs).clamp_min(1e-5).sqrt()
        return self.tau * lengths.sum() / (self.classes * self.centres * (self.centres - 1))


def soft_triple(spec: SpecText, *, dim: int, classes: int) -> SoftTriple:
    """``soft-triple(scale=20, gamma=0.1, margin=0.01, tau=0.2, centres=10)``."""
    spec.only("scale", "gamma", "margin", "tau", "centres")
    return SoftTriple(
        dim,
        known_classes(spec, classes),
        scale=spec.number("scale", 20.0, 1e-3, 1e6),
        gamma=spec.number("gamma", 0.1, 1e-6, 1e6),
        margin=spec.number("margin", 0.01, 0.0, 2.0),
        tau=spec.number("tau", 0.2, 0.0, 1e6),
        centres=spec.whole_number("centres", 10, 1, 100),
    )
