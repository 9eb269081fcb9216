"""Miners: which pairs and triplets of a batch a loss learns from. Chosen by text: ``distance-weighted(cutoff=0.5)``."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from embedkit.errors import UnknownName
from embedkit.specs import SpecText, parse_spec
from embedkit.training.pairs import Batch, Triplets, distances, unit

__all__ = [
    "AllPairs",
    "BatchHard",
    "DistanceWeighted",
    "Miner",
    "MultiSimilarity",
    "SemiHard",
    "build_miner",
    "hard_classes",
    "log_inverse_density",
    "miner_names",
]


class Miner(ABC):
    """Chooses triplets; losses over pairs take the pairs that occur in them. Nothing here carries a gradient."""

    @abstractmethod
    def triplets(self, batch: Batch) -> Triplets:
        """The triplets to learn from; none when the batch has no positive or no negative pair."""

    def masks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The positive and the negative pairs to learn from, as masks ``(n, m)``."""
        chosen = self.triplets(batch)
        positive, negative = torch.zeros_like(batch.positive), torch.zeros_like(batch.negative)
        positive[chosen.anchor, chosen.positive] = True
        negative[chosen.anchor, chosen.negative] = True
        return positive, negative


class AllPairs(Miner):
    """Everything there is."""

    def triplets(self, batch: Batch) -> Triplets:
        return batch.triplets()

    def masks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return batch.positive, batch.negative


class SemiHard(Miner):
    """FaceNet (Schroff 2015), section 3.2, eq. 4.

    For every anchor and positive the nearest negative that is farther than the positive, but by less than the margin,
    in squared distance. A pair without such a negative is left out.
    """

    def __init__(self, margin: float = 0.2) -> None:
        self.margin = margin

    @torch.no_grad()
    def triplets(self, batch: Batch) -> Triplets:
        squared = batch.squared_distances()
        anchor, positive = batch.positive.nonzero(as_tuple=True)
        beyond = squared[anchor] - squared[anchor, positive][:, None]
        semi_hard = batch.negative[anchor] & (beyond > 0) & (beyond < self.margin)
        nearest = beyond.masked_fill(~semi_hard, math.inf).argmin(1)
        found = semi_hard.any(1)
        return Triplets(anchor[found], positive[found], nearest[found])


class BatchHard(Miner):
    """Hermans 2017, eq. 5: for every anchor its farthest positive and its nearest negative."""

    @torch.no_grad()
    def triplets(self, batch: Batch) -> Triplets:
        apart = batch.squared_distances()
        farthest = apart.masked_fill(~batch.positive, -math.inf).argmax(1)
        nearest = apart.masked_fill(~batch.negative, math.inf).argmin(1)
        (anchor,) = (batch.positive.any(1) & batch.negative.any(1)).nonzero(as_tuple=True)
        return Triplets(anchor, farthest[anchor], nearest[anchor])


class DistanceWeighted(Miner):
    """Wu 2017, section 4: negatives are drawn with probability ∝ min(λ, 1 / q(d)), one for every positive pair.

    q(d) ∝ d^(n-2) (1 - d²/4)^((n-3)/2) is the density of the distance of two random points of the unit sphere in n
    dimensions; vectors of another length are scaled for it. `cutoff` clips small distances (the paper's λ, as in the
    authors' code: 0.5); negatives beyond `reach` (1.4), which no longer cost anything, are not drawn. An anchor all of
    whose negatives lie beyond it draws the nearest.
    """

    def __init__(self, cutoff: float = 0.5, reach: float = 1.4) -> None:
        self.cutoff, self.reach = cutoff, reach

    @torch.no_grad()
    def weights(self, batch: Batch) -> Tensor:
        """The probabilities ``(n, m)``; a row of zeros for an anchor without negatives."""
        apart = distances(unit(batch.anchors), unit(batch.others))
        log_weights = log_inverse_density(apart.clamp_min(self.cutoff), batch.anchors.shape[1])
        allowed = batch.negative & (apart < self.reach)
        nearest = apart.masked_fill(~batch.negative, math.inf).argmin(1, keepdim=True)
        lonely = torch.zeros_like(allowed).scatter_(1, nearest, True) & batch.negative
        allowed = torch.where(allowed.any(1, keepdim=True), allowed, lonely)
        log_weights = log_weights.masked_fill(~allowed, -math.inf)
        return (log_weights - log_weights.logsumexp(1, keepdim=True)).exp().nan_to_num(0.0)

    @torch.no_grad()
    def triplets(self, batch: Batch) -> Triplets:
        weights = self.weights(batch)
        anchor, positive = (batch.positive & batch.negative.any(1, keepdim=True)).nonzero(as_tuple=True)
        if not len(anchor):
            return Triplets(anchor, positive, anchor)
        return Triplets(anchor, positive, torch.multinomial(weights[anchor], 1).squeeze(1))


def log_inverse_density(distance: Tensor, dim: int) -> Tensor:
    """-log q(d) up to a constant (Wu 2017, section 4); distances of unit vectors, kept away from 0 and from 2.

    >>> log_inverse_density(torch.tensor([1.0]), 4)
    tensor([0.1438])
    """
    inside = (1 - distance.square() / 4).clamp_min(1e-6)
    return (2.0 - dim) * distance.clamp_min(1e-6).log() - (dim - 3) / 2 * inside.log()


class MultiSimilarity(Miner):
    """Wang 2019, the mining step of the multi-similarity loss, ε = 0.1.

    Negatives more similar than the hardest positive less ε; positives less similar than the hardest negative plus ε.
    """

    def __init__(self, epsilon: float = 0.1) -> None:
        self.epsilon = epsilon

    @torch.no_grad()
    def masks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        similar = batch.similarities()
        least = similar.masked_fill(~batch.positive, math.inf).amin(1, keepdim=True)
        most = similar.masked_fill(~batch.negative, -math.inf).amax(1, keepdim=True)
        return (
            batch.positive & (similar - self.epsilon < most),
            batch.negative & (similar + self.epsilon > least),
        )

    def triplets(self, batch: Batch) -> Triplets:
        return batch.triplets(*self.masks(batch))


def hard_classes(centres: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """Negative class mining of Sohn 2016, section 3.2.1: row numbers of `count` classes that are hard to tell apart.

    The first is drawn at random; each next one is the class most similar (inner product) to any taken so far.
    `centres` are the class means ``(c, d)``.

    >>> hard_classes(np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.1, 0.9]]), count=2, seed=0).tolist()
    [3, 1]
    """
    taken = [int(np.random.default_rng(seed).integers(len(centres)))]
    closeness = np.full(len(centres), -np.inf)
    while len(taken) < count:
        closeness = np.maximum(closeness, centres @ centres[taken[-1]])
        closeness[taken] = -np.inf
        taken.append(int(closeness.argmax()))
    return np.array(taken)


_MINERS: dict[str, Callable[[SpecText], Miner]] = {
    "all": lambda spec: _plain(spec, AllPairs),
    "batch-hard": lambda spec: _plain(spec, BatchHard),
    "distance-weighted": lambda spec: DistanceWeighted(
        spec.only("cutoff", "reach").number("cutoff", 0.5, 0.0, 2.0), spec.number("reach", 1.4, 0.0, 2.0)
    ),
    "multi-similarity": lambda spec: MultiSimilarity(spec.only("epsilon").number("epsilon", 0.1, 0.0, 2.0)),
    "semi-hard": lambda spec: SemiHard(spec.only("margin").number("margin", 0.2, 0.0, 4.0)),
}


def _plain(spec: SpecText, made: Callable[[], Miner]) -> Miner:
    spec.only()
    return made()


def miner_names() -> tuple[str, ...]:
    """The known miners, sorted."""
    return tuple(sorted(_MINERS))


def build_miner(text: str) -> Miner:
    """The miner that a spec text names. Raises UnknownName, ConfigError."""
    spec = parse_spec(text, kind="miner")
    if spec.name not in _MINERS:
        raise UnknownName("miner", spec.name, _MINERS)
    return _MINERS[spec.name](spec)
