"""Losses of binary codes with a classifier on the code: DLBHC, GreedyHash, SuBiC."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embedkit.specs import SpecText
from embedkit.training.losses.contract import ClassLoss, class_vectors, known_classes, nothing
from embedkit.training.pairs import unit

BLOCK = 4  # bits of which a block code sets one; 4 tell most for each bit that is stored: 2 of 4, where 8 tell 3 of 8

__all__ = ["BLOCK", "DLBHC", "GreedyHash", "SuBiC", "dlbhc", "greedyhash", "subic"]


class _Classifier(ClassLoss):
    """Cross-entropy of a linear classifier on the relaxed code; its class vectors start at those of the class means.

    `sharp`: how sure the classifier is at first, the product of a code with its own class vector.
    """

    normalise = False
    makes_codes = True

    def __init__(self, dim: int, classes: int, *, sharp: float) -> None:
        super().__init__(classes)
        self.weight, self.bias = class_vectors(dim, classes), nn.Parameter(torch.zeros(classes))
        self.sharp = sharp

    @property
    def vectors(self) -> nn.Parameter:
        return self.weight

    @torch.no_grad()
    def start_at(self, means: Tensor) -> None:
        super().start_at(means)
        codes = self.relaxed(means)
        centre = codes.mean(0)
        self.weight.copy_(self.sharp * unit(codes - centre) / (codes - centre).norm(dim=1).mean().clamp_min(1e-6))
        self.bias.copy_(-self.weight @ centre)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        embeddings = self.prepare(embeddings, labels)
        identified = F.cross_entropy(F.linear(self.relaxed(embeddings), self.weight, self.bias), labels)
        return identified + self.penalty(embeddings) + nothing(embeddings)

    @abstractmethod
    def relaxed(self, numbers: Tensor) -> Tensor:
        """What the classifier sees of the numbers whose signs are the bits."""

    def penalty(self, numbers: Tensor) -> Tensor:
        """What is added to the cross-entropy."""
        return nothing(numbers)


class DLBHC(_Classifier):
    """Lin 2015, section 3.1: a latent layer σ(z) before the classifier; a bit is σ(z) > ½, which is z > 0."""

    def relaxed(self, numbers: Tensor) -> Tensor:
        return torch.sigmoid(numbers)


class GreedyHash(_Classifier):
    """Su 2018: the classifier sees sign(z), the gradient passes as if it were z; + α times the mean of ||z| - 1|³."""

    def __init__(self, dim: int, classes: int, *, sharp: float, alpha: float = 0.1) -> None:
        super().__init__(dim, classes, sharp=sharp)
        self.alpha = alpha

    def relaxed(self, numbers: Tensor) -> Tensor:
        signs = torch.where(numbers > 0, 1.0, -1.0).to(numbers)
        return numbers + (signs - numbers).detach()

    def penalty(self, numbers: Tensor) -> Tensor:
        return self.alpha * (numbers.abs() - 1).abs().pow(3).mean()


class SuBiC(_Classifier):
    """Jain 2017: cross-entropy on blocks of softmax, + γ the mean entropy of a block - μ that of its batch mean.

    The first draws a block to one bit, the second lets all bits be used. The code has one 1 in every block of `block`
    bits; `head` sees to that. It is stored bit by bit: bits / block · log₂ block bits would be enough.
    """

    head = "blocks"

    def __init__(
        self, dim: int, classes: int, *, sharp: float, block: int, gamma: float = 0.1, mu: float = 0.1
    ) -> None:
        super().__init__(dim, classes, sharp=sharp)
        self.block, self.gamma, self.mu = block, gamma, mu

    def relaxed(self, numbers: Tensor) -> Tensor:
        return self._blocks(numbers).softmax(2).flatten(1)

    def penalty(self, numbers: Tensor) -> Tensor:
        shares = self._blocks(numbers).softmax(2)
        return self.gamma * _entropy(shares).mean() - self.mu * _entropy(shares.mean(0)).mean()

    def _blocks(self, numbers: Tensor) -> Tensor:
        return numbers.view(len(numbers), -1, self.block)


def _entropy(shares: Tensor) -> Tensor:
    """In units of the largest that there can be, over the last dimension."""
    shares = shares.clamp_min(1e-12)  # the logarithm has no finite slope at 0
    return -(shares * shares.log()).sum(-1) / math.log(shares.shape[-1])


def dlbhc(spec: SpecText, *, dim: int, classes: int) -> DLBHC:
    """``dlbhc(sharp=10)``."""
    sharp = spec.only("sharp").number("sharp", 10.0, 1e-3, 1e6)
    return DLBHC(dim, known_classes(spec, classes), sharp=sharp)


def greedyhash(spec: SpecText, *, dim: int, classes: int) -> GreedyHash:
    """``greedyhash(sharp=10, alpha=0.1)``."""
    spec.only("sharp", "alpha")
    return GreedyHash(
        dim,
        known_classes(spec, classes),
        sharp=spec.number("sharp", 10.0, 1e-3, 1e6),
        alpha=spec.number("alpha", 0.1, 0.0, 1e6),
    )


def subic(spec: SpecText, *, dim: int, classes: int) -> SuBiC:
    """``subic(sharp=10, gamma=0.1, mu=0.1)``; blocks of 4 bits."""
    spec.only("sharp", "gamma", "mu")
    return SuBiC(
        dim,
        known_classes(spec, classes),
        sharp=spec.number("sharp", 10.0, 1e-3, 1e6),
        block=math.gcd(dim, BLOCK),
        gamma=spec.number("gamma", 0.1, 0.0, 1e6),
        mu=spec.number("mu", 0.1, 0.0, 1e6),
    )
