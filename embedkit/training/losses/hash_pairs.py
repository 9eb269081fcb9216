"""Losses of binary codes over pairs and triplets: HashNet, DCH, DSH, DPSH, DNNH."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from embedkit.specs import SpecText
from embedkit.training.losses.contract import PairLoss
from embedkit.training.miners import Miner
from embedkit.training.pairs import Batch, balanced, mean_of, squared_distances, unit

__all__ = ["DCH", "DNNH", "DPSH", "DSH", "HashNet", "dch", "dnnh", "dpsh", "dsh", "hashnet"]

_STAGES = 10


class _Codes(PairLoss):
    """On the numbers whose signs are the bits, as they are."""

    normalise = False
    makes_codes = True


class _ScaledCodes(_Codes):
    """On numbers z of length √bits: their signs are the same, and training cannot saturate a tanh by mere growth."""

    normalise = True

    def prepare(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return super().prepare(embeddings, labels) * math.sqrt(embeddings.shape[1])


class HashNet(_ScaledCodes):
    """Cao 2017, eq. 4: Σ w (log(1 + exp(α hᵀh')) - α s hᵀh'), h = tanh(βz), s = 1 for one class, else 0.

    w balances similar and dissimilar pairs (eq. 2); `share` is what the similar ones weigh together. α = `sharp` /
    bits; the authors' code has 10 / bits. β grows from 1 to `beta` in ten stages (algorithm 1), which follow the share
    of the budget that is used up: a run that goes on finds its stage again. From hᵀh' / bits `boundary` is taken, 0 in
    the paper: there any pair of two classes shall have opposite codes, which of many classes only a few can have.
    """

    def __init__(
        self,
        *,
        sharp: float = 10.0,
        beta: float = 10.0,
        boundary: float = 0.3,
        share: float = 0.2,
        miner: Miner | None = None,
    ) -> None:
        super().__init__(miner)
        self.sharp, self.beta, self.boundary, self.share = sharp, beta, boundary, share

    @property
    def steepness(self) -> float:
        """β of the stage that training is in."""
        stage = min(int(self.progress * _STAGES), _STAGES - 1)
        return math.pow(self.beta, stage / (_STAGES - 1))

    def of_batch(self, batch: Batch) -> Tensor:
        positive, negative = self.miner.masks(batch)
        left, right = torch.tanh(self.steepness * batch.anchors), torch.tanh(self.steepness * batch.others)
        products = self.sharp * (left @ right.T / left.shape[1] - self.boundary)
        cost = F.softplus(torch.where(positive, -products, products))
        return balanced(cost, positive, negative, self.share)


class DCH(_ScaledCodes):
    """Cao 2018: Cauchy cross-entropy + λ Cauchy quantisation, on h = tanh(z).

    L = Σ w (s log(d / γ) + log(1 + γ / d)): log(1 + d / γ) for a pair of one class, log(1 + γ / d) for two;
    Q = Σ log(1 + d(|h|, 1) / γ). The distance is that of bits, relaxed by the cosine: d(h, h') = bits / 2 (1 - cos).
    γ = `gamma` · bits, λ = `quantise`; `share` is what the similar pairs weigh together, ½ in the paper.
    """

    def __init__(
        self, *, gamma: float = 0.3, quantise: float = 0.1, share: float = 0.2, miner: Miner | None = None
    ) -> None:
        super().__init__(miner)
        self.gamma, self.quantise, self.share = gamma, quantise, share

    def of_batch(self, batch: Batch) -> Tensor:
        positive, negative = self.miner.masks(batch)
        left, right = torch.tanh(batch.anchors), torch.tanh(batch.others)
        far = (1 - unit(left) @ unit(right).T).clamp_min(1e-6) / (2 * self.gamma)  # d / γ
        cost = torch.where(positive, torch.log1p(far), torch.log1p(1 / far))
        loose = (1 - unit(left.abs()).sum(1) / math.sqrt(left.shape[1])) / (2 * self.gamma)
        return balanced(cost, positive, negative, self.share) + self.quantise * torch.log1p(loose).mean()


class DSH(_Codes):
    """Liu 2016: ½ ‖z - z'‖² for a pair of one class, ½ max(0, m - ‖z - z'‖²) for two, and α ‖|z| - 1‖₁.

    m = `margin` · bits, 2 · bits in the paper; α = 0.01 there. Summed over the pairs and divided by the number of
    anchors, as `contrastive` is, and by the bits.
    """

    def __init__(self, *, margin: float = 2.0, alpha: float = 0.1, miner: Miner | None = None) -> None:
        super().__init__(miner)
        self.margin, self.alpha = margin, alpha

    def of_batch(self, batch: Batch) -> Tensor:
        positive, negative = self.miner.masks(batch)
        bits = batch.anchors.shape[1]
        squared = batch.squared_distances()
        short = (self.margin * bits - squared).clamp_min(0)
        cost = torch.where(positive, squared, 0) + torch.where(negative, short, 0)
        loose = (batch.anchors.abs() - 1).abs().sum(1)
        return (cost.sum() / (2 * max(1, len(batch.labels))) + self.alpha * loose.mean()) / bits


class DPSH(_ScaledCodes):
    """Li 2016: -Σ (s Θ - log(1 + exp Θ)), Θ = ½ zᵀz', + η Σ ‖sign(z) - z‖².

    Θ is `sharp` (zᵀz' / bits - `boundary`): see `HashNet` for the boundary; `sharp` = bits / 2 is the paper's, which
    grows with the bits until nothing is learned. η = `quantise` weighs a mean over all bits.
    """

    def __init__(
        self,
        *,
        quantise: float = 0.1,
        sharp: float = 20.0,
        boundary: float = 0.5,
        share: float = 0.2,
        miner: Miner | None = None,
    ) -> None:
        super().__init__(miner)
        self.quantise, self.sharp, self.boundary, self.share = quantise, sharp, boundary, share

    def of_batch(self, batch: Batch) -> Tensor:
        positive, negative = self.miner.masks(batch)
        theta = self.sharp * (batch.similarities() / batch.anchors.shape[1] - self.boundary)
        cost = F.softplus(torch.where(positive, -theta, theta))
        loose = (batch.anchors.sign() - batch.anchors).square().mean()
        return balanced(cost, positive, negative, self.share) + self.quantise * loose


class DNNH(_Codes):
    """Lai 2015: max(0, m - ‖h - h⁻‖² + ‖h - h⁺‖²) over triplets, h = g(σ(z)); m = 1 in the paper.

    g is the piece-wise threshold of section 3.2.2: 0 below ½ - ε, 1 above ½ + ε, as it is between; beyond it nothing
    is learned. The mean is over the triplets that cost something. Its head is the divide-and-encode module.
    """

    head = "divide"

    def __init__(self, *, margin: float = 4.0, epsilon: float = 0.5, miner: Miner | None = None) -> None:
        super().__init__(miner)
        self.margin, self.epsilon = margin, epsilon

    def of_batch(self, batch: Batch) -> Tensor:
        chosen = self.miner.triplets(batch)
        squared = squared_distances(self.threshold(batch.anchors), self.threshold(batch.others))
        near, far = squared[chosen.anchor, chosen.positive], squared[chosen.anchor, chosen.negative]
        cost = (self.margin + near - far).clamp_min(0)
        return mean_of(cost, cost > 0)

    def threshold(self, numbers: Tensor) -> Tensor:
        """g(σ(z))."""
        share = torch.sigmoid(numbers)
        return torch.where((share - 0.5).abs() <= self.epsilon, share, (share > 0.5).to(share))


def hashnet(spec: SpecText, *, dim: int, classes: int) -> HashNet:
    """``hashnet(sharp=10, beta=10, boundary=0.3, share=0.2)``; boundary=0, share=0.5 are the paper's."""
    spec.only("sharp", "beta", "boundary", "share")
    return HashNet(
        sharp=spec.number("sharp", 10.0, 1e-3, 1e6),
        beta=spec.number("beta", 10.0, 1.0, 1e6),
        boundary=spec.number("boundary", 0.3, -1.0, 1.0),
        share=spec.number("share", 0.2, 0.0, 1.0),
    )


def dch(spec: SpecText, *, dim: int, classes: int) -> DCH:
    """``dch(gamma=0.3, quantise=0.1, share=0.2)``; gamma by the bit, share=0.5 is the paper's."""
    spec.only("gamma", "quantise", "share")
    return DCH(
        gamma=spec.number("gamma", 0.3, 1e-6, 1e6),
        quantise=spec.number("quantise", 0.1, 0.0, 1e6),
        share=spec.number("share", 0.2, 0.0, 1.0),
    )


def dsh(spec: SpecText, *, dim: int, classes: int) -> DSH:
    """``dsh(margin=2, alpha=0.1)``; the margin is for each bit."""
    spec.only("margin", "alpha")
    return DSH(margin=spec.number("margin", 2.0, 1e-3, 1e6), alpha=spec.number("alpha", 0.1, 0.0, 1e6))


def dpsh(spec: SpecText, *, dim: int, classes: int) -> DPSH:
    """``dpsh(sharp=20, boundary=0.5, share=0.2, quantise=0.1)``."""
    spec.only("sharp", "boundary", "share", "quantise")
    return DPSH(
        sharp=spec.number("sharp", 20.0, 1e-6, 1e6),
        boundary=spec.number("boundary", 0.5, -1.0, 1.0),
        share=spec.number("share", 0.2, 0.0, 1.0),
        quantise=spec.number("quantise", 0.1, 0.0, 1e6),
    )


def dnnh(spec: SpecText, *, dim: int, classes: int) -> DNNH:
    """``dnnh(margin=4, epsilon=0.5)``."""
    spec.only("margin", "epsilon")
    return DNNH(margin=spec.number("margin", 4.0, 1e-3, 1e6), epsilon=spec.number("epsilon", 0.5, 1e-3, 0.5))
