"""N-pair losses and the angular loss: a softmax over all negatives of a pair."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from embedkit.specs import SpecText
from embedkit.training.losses.contract import PairLoss
from embedkit.training.miners import Miner
from embedkit.training.pairs import Batch, masked_logsumexp, unit

__all__ = ["Angular", "NPair", "angular", "npair"]

Kind = Literal["mc", "ovo"]


class NPair(PairLoss):
    """Sohn 2016, on vectors as they are: a similarity within [-1, 1] cannot tell many classes apart.

    `mc`, the multi-class N-pair loss (N-pair-mc): log(1 + Σ exp(fᵀf_n - fᵀf⁺)) over the negatives n.
    `ovo`, one versus one (N-pair-ovo): Σ log(1 + exp(fᵀf_n - fᵀf⁺)).
    Both plus λ times the mean of ‖f‖², the penalty of section 3.2.2.

    The products are multiplied by `scale`; the paper's is 1. An embedding layer of dimension d gives products that grow
    with d, at 128 some hundred, and a softmax over them sees nothing but its largest: it learns slowly. The default 0
    stands for 1 / (2 √d), with which it keeps up with NT-Xent.

    `tuplets="every"` takes every ordered pair of one class as f and f⁺ and every image of another class as f_n, which
    gives a batch four times the comparisons; `"once"` is the paper's: the first two images of a class are f and f⁺,
    and f_n are the other classes' f⁺.
    """

    normalise = False
    per_class = 2

    def __init__(
        self,
        *,
        penalty: float = 0.005,
        scale: float = 0.0,
        kind: Kind = "mc",
        tuplets: Literal["every", "once"] = "every",
        miner: Miner | None = None,
    ) -> None:
        super().__init__(miner)
        self.penalty, self.kind, self.tuplets = penalty, kind, tuplets
        self.scale = scale

    def scale_of(self, embeddings: Tensor) -> float:
        """What products of these embeddings are multiplied by."""
        return self.scale or 0.5 / math.sqrt(embeddings.shape[-1])

    def of_batch(self, batch: Batch) -> Tensor:
        positive, negative = self.miner.masks(batch)
        if self.tuplets == "once":
            pairs, against = _once(batch)
            positive, negative = positive & pairs, negative & against
        anchor, other = (positive & negative.any(1, keepdim=True)).nonzero(as_tuple=True)
        similar = self.scale_of(batch.anchors) * batch.similarities()
        own = similar[anchor, other]
        if self.kind == "mc":
            cost = F.softplus(masked_logsumexp(similar, negative)[anchor] - own)
        else:
            cost = torch.where(negative[anchor], F.softplus(similar[anchor] - own[:, None]), 0).sum(1)
        return cost.sum() / max(1, len(anchor)) + self.penalty * batch.anchors.square().sum(1).mean()


def _once(batch: Batch) -> tuple[Tensor, Tensor]:
    """The paper's tuplets: of every class its first image is the anchor, its second the only positive."""
    rank = torch.tril(batch.positive[:, : len(batch.labels)]).sum(1)  # how many of the class come before
    first, second = rank == 0, torch.zeros_like(batch.other_labels, dtype=torch.bool)
    second[: len(rank)] = rank == 1
    return batch.positive & first[:, None] & second, batch.negative & first[:, None] & second


class Angular(PairLoss):
    """Wang 2017: N-pair loss + λ times the N-pair angular loss, α = 45°, λ = 2.

    The angular part is log(1 + Σ exp f) with f = 4 tan²α (x_a + x_p)ᵀx_n - 2 (1 + tan²α) x_aᵀx_p on vectors of length
    1; the N-pair part is on vectors as they are, with its norm penalty and scale. `only=True` leaves it out.
    """

    normalise = False
    per_class = 2

    def __init__(
        self,
        *,
        degrees: float = 45.0,
        weight: float = 2.0,
        penalty: float = 0.005,
        scale: float = 0.0,
        only: bool = False,
        miner: Miner | None = None,
    ) -> None:
        super().__init__(miner)
        self.tan2, self.weight = math.tan(math.radians(degrees)) ** 2, weight
        self.npair = None if only else NPair(penalty=penalty, scale=scale)

    def of_batch(self, batch: Batch) -> Tensor:
        part = self.weight * self._angular(batch)
        if self.npair is None:
            return part
        self.npair.miner = self.miner
        return self.npair.of_batch(batch) + part

    def _angular(self, batch: Batch) -> Tensor:
        positive, negative = self.miner.masks(batch)
        anchor, other = (positive & negative.any(1, keepdim=True)).nonzero(as_tuple=True)
        others = unit(batch.others)
        similar = unit(batch.anchors) @ others.T
        both = similar[anchor] + others[other] @ others.T
        f = 4 * self.tan2 * both - 2 * (1 + self.tan2) * similar[anchor, other][:, None]
        return F.softplus(masked_logsumexp(f, negative[anchor])).sum() / max(1, len(anchor))


def npair(spec: SpecText, *, dim: int, classes: int) -> NPair:
    """``npair(penalty=0.005, scale=0, kind=mc, tuplets=every)``; scale=0 follows the dimension."""
    spec.only("penalty", "scale", "kind", "tuplets")
    kind: Kind = "ovo" if spec.choice("kind", "mc", ("mc", "ovo")) == "ovo" else "mc"
    once = spec.choice("tuplets", "every", ("every", "once")) == "once"
    return NPair(
        penalty=spec.number("penalty", 0.005, 0.0, 1e6),
        scale=spec.number("scale", 0.0, 0.0, 1e6),
        kind=kind,
        tuplets="once" if once else "every",
    )


def angular(spec: SpecText, *, dim: int, classes: int) -> Angular:
    """``angular(alpha=45, weight=2, penalty=0.005, scale=0, npair=yes)``; alpha in degrees."""
    spec.only("alpha", "weight", "penalty", "scale", "npair")
    return Angular(
        degrees=spec.number("alpha", 45.0, 1.0, 89.0),
        weight=spec.number("weight", 2.0, 0.0, 1e6),
        penalty=spec.number("penalty", 0.005, 0.0, 1e6),
        scale=spec.number("scale", 0.0, 0.0, 1e6),
        only=spec.choice("npair", "yes", ("no", "yes")) == "no",
    )
