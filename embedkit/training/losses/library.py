"""Losses that pytorch-metric-learning has as their papers define them, behind our contract."""

from __future__ import annotations

from typing import Any

from pytorch_metric_learning import losses as library
from torch import Tensor, nn

from embedkit.specs import SpecText
from embedkit.training.losses.contract import ClassLoss, PairLoss, known_classes
from embedkit.training.miners import Miner, MultiSimilarity
from embedkit.training.pairs import Batch

__all__ = ["LibraryPairs", "ProxyAnchor", "circle", "multi_similarity", "proxy_anchor", "supcon"]


class LibraryPairs(PairLoss):
    """A pair loss of the library, told which pairs to look at.

    Circle (Sun 2020, eq. 6, pairwise labels): log(1 + Σ exp(γ α_n (s_n - m)) Σ exp(-γ α_p (s_p - 1 + m))), the weights
    α_n = max(0, s_n + m) and α_p = max(0, 1 + m - s_p) without a gradient; γ = 80, m = 0.4.
    Multi-Similarity (Wang 2019, L_MS): log(1 + Σ exp(-α(s_p - λ))) / α + log(1 + Σ exp(β(s_n - λ))) / β with the
    paper's miner; α = 2, β = 50, λ = 0.5 as in the authors' code.
    SupCon (Khosla 2020, eq. 2): the mean over the positives of -log softmax of their similarity / τ among all others;
    τ = 0.1.
    """

    def __init__(self, inner: Any, miner: Miner | None = None) -> None:
        super().__init__(miner)
        self.inner = inner

    def of_batch(self, batch: Batch) -> Tensor:
        positive, negative = self.miner.masks(batch)
        pairs = (*positive.nonzero(as_tuple=True), *negative.nonzero(as_tuple=True))
        loss: Tensor = self.inner(batch.anchors, batch.labels, pairs, batch.others, batch.other_labels)
        return loss


class ProxyAnchor(ClassLoss):
    """Kim 2020, eq. 4: one learned proxy a class, α = 32, δ = 0.1.

    Mean over the proxies with a positive in the batch of log(1 + Σ exp(-α(s - δ))), plus mean over all proxies of
    log(1 + Σ exp(α(s + δ))).
    """

    rate = 0.3

    def __init__(self, dim: int, classes: int, *, alpha: float = 32.0, margin: float = 0.1) -> None:
        super().__init__(classes)
        self.inner = library.ProxyAnchorLoss(num_classes=classes, embedding_size=dim, margin=margin, alpha=alpha)

    @property
    def vectors(self) -> nn.Parameter:
        proxies: nn.Parameter = self.inner.proxies
        return proxies

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = self.inner(self.prepare(embeddings, labels), labels)
        return loss


def circle(spec: SpecText, *, dim: int, classes: int) -> LibraryPairs:
    """``circle(m=0.4, gamma=80)``."""
    spec.only("m", "gamma")
    inner = library.CircleLoss(m=spec.number("m", 0.4, 0.0, 1.0), gamma=spec.number("gamma", 80.0, 1e-3, 1e6))
    return LibraryPairs(inner)


def multi_similarity(spec: SpecText, *, dim: int, classes: int) -> LibraryPairs:
    """``multi-similarity(alpha=2, beta=50, base=0.5, epsilon=0.1)``."""
    spec.only("alpha", "beta", "base", "epsilon")
    inner = library.MultiSimilarityLoss(
        alpha=spec.number("alpha", 2.0, 1e-3, 1e6),
        beta=spec.number("beta", 50.0, 1e-3, 1e6),
        base=spec.number("base", 0.5, -1.0, 1.0),
    )
    return LibraryPairs(inner, MultiSimilarity(spec.number("epsilon", 0.1, 0.0, 2.0)))


def supcon(spec: SpecText, *, dim: int, classes: int) -> LibraryPairs:
    """``supcon(temperature=0.1)``."""
    temperature = spec.only("temperature").number("temperature", 0.1, 1e-4, 1e4)
    return LibraryPairs(library.SupConLoss(temperature=temperature))


def proxy_anchor(spec: SpecText, *, dim: int, classes: int) -> ProxyAnchor:
    """``proxy-anchor(alpha=32, margin=0.1)``."""
    spec.only("alpha", "margin")
    return ProxyAnchor(
        dim,
        known_classes(spec, classes),
        alpha=spec.number("alpha", 32.0, 1e-3, 1e6),
        margin=spec.number("margin", 0.1, 0.0, 2.0),
    )
