"""Losses over a whole ranking: NT-Xent and the Recall@k surrogate."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from embedkit.errors import ConfigError
from embedkit.specs import SpecText
from embedkit.training.losses.contract import PairLoss
from embedkit.training.miners import Miner
from embedkit.training.pairs import Batch, masked_logsumexp

__all__ = ["NTXent", "RecallAtK", "ntxent", "recall_at_k"]


class NTXent(PairLoss):
    """Chen 2020, eq. 1: -log exp(s⁺/τ) / (exp(s⁺/τ) + Σ exp(s_n/τ)), mean over the ordered positive pairs.

    With more than two images a class the other positives are left out of the denominator. τ = 0.07.
    """

    per_class = 2

    def __init__(self, temperature: float = 0.07, miner: Miner | None = None) -> None:
        super().__init__(miner)
        self.temperature = temperature

    def of_batch(self, batch: Batch) -> Tensor:
        positive, negative = self.miner.masks(batch)
        anchor, other = (positive & negative.any(1, keepdim=True)).nonzero(as_tuple=True)
        logits = batch.similarities() / self.temperature
        against = masked_logsumexp(logits, negative)[anchor]
        return F.softplus(against - logits[anchor, other]).sum() / max(1, len(anchor))


class RecallAtK(PairLoss):
    """Patel 2022, section 3: 1 - the mean over queries and k of a smooth Recall@k; k = 1, 2, 4, 8, 16.

    The rank of a positive x is 1 + Σ_z σ((s_z - s_x) / τ₂) over all others z, and the recall of a query
    Σ_x σ((k - rank) / τ₁) / min(k, positives); τ₁ = 1, τ₂ = 0.01. The division by min(k, positives), and no recall
    above 1, are of the authors' code.
    """

    def __init__(
        self,
        k: tuple[int, ...] = (1, 2, 4, 8, 16),
        *,
        tau1: float = 1.0,
        tau2: float = 0.01,
        miner: Miner | None = None,
    ) -> None:
        super().__init__(miner)
        self.k, self.tau1, self.tau2 = k, tau1, tau2

    def of_batch(self, batch: Batch) -> Tensor:
        positive, negative = self.miner.masks(batch)
        queries = positive.any(1) & negative.any(1)
        query, other = (positive & queries[:, None]).nonzero(as_tuple=True)
        if not len(query):
            return batch.anchors.new_zeros(())
        similar = batch.similarities()
        better = torch.sigmoid((similar[query] - similar[query, other][:, None]) / self.tau2)
        counted = (positive | negative)[query].scatter(1, other[:, None], False)
        rank = 1 + torch.where(counted, better, 0).sum(1)
        ks = similar.new_tensor(self.k)
        hits = torch.sigmoid((ks - rank[:, None]) / self.tau1)
        found = hits.new_zeros(len(queries), len(ks)).index_add(0, query, hits)
        most = torch.minimum(positive.sum(1)[:, None], ks).clamp_min(1)
        return 1 - (found / most).clamp_max(1)[queries].mean()


def ntxent(spec: SpecText, *, dim: int, classes: int) -> NTXent:
    """``nt-xent(temperature=0.07)``."""
    return NTXent(spec.only("temperature").number("temperature", 0.07, 1e-4, 1e4))


def recall_at_k(spec: SpecText, *, dim: int, classes: int) -> RecallAtK:
    """``recall-at-k(k=1+2+4+8+16, tau1=1, tau2=0.01)``."""
    spec.only("k", "tau1", "tau2")
    text = spec.options.get("k", "1+2+4+8+16")
    parts = text.split("+")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"k={text} in the loss {spec.text!r} is not a list of ranks such as 1+2+4")
    ks = tuple(int(part) for part in parts)
    return RecallAtK(ks, tau1=spec.number("tau1", 1.0, 1e-4, 1e4), tau2=spec.number("tau2", 0.01, 1e-6, 1e4))
