"""Where an embedding layer can start: at the directions in which classes differ most, for how much each one varies."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

__all__ = ["AT_THE_END", "SHRINKAGE", "fisher_directions", "set_at_discriminants"]

SHRINKAGE = 0.25
AT_THE_END = 0.5  # shrinkage for features that have learned these very classes, and vary too little within them
_SPREAD = 1e-4  # weight of the whole spread, which orders the directions in which no classes differ
_log = logging.getLogger(__name__)


def fisher_directions(features: Tensor, labels: Tensor, dim: int, *, shrinkage: float = SHRINKAGE) -> Tensor:
    """Linear discriminants ``(dim, f)`` of features ``(n, f)`` with labels ``(n,)``, the strongest first.

    Fisher 1936, for many classes Rao 1948: with the scatter W of pictures about the means of their classes and B of
    the means about the mean of all, the directions a of the largest a'Ba / a'Wa, each with a'Wa = 1. W is shrunk by
    `shrinkage`, 0 to 1, towards a multiple of the identity, since it has more numbers than a few pictures can tell
    (Friedman 1989). Where there are fewer classes than `dim`, directions of much spread within W follow.
    Raises ValueError when no class varies, or `dim` is larger than f.
    """
    count, width = features.shape
    if dim > width:
        raise ValueError(f"{width} features have no {dim} directions")
    features = features.double()
    centred = features - features.mean(dim=0)
    known, places = torch.unique(labels, return_inverse=True)
    sums = torch.zeros(len(known), width, dtype=features.dtype, device=features.device).index_add_(0, places, centred)
    means = (sums / torch.bincount(places)[:, None])[places]
    within, spread = _scatter(centred - means, count), _scatter(centred, count)
    level = within.trace() / width
    if not level > 0 or not torch.isfinite(level):
        raise ValueError("no class has pictures that differ")
    within = torch.lerp(within, level * torch.eye(width, dtype=within.dtype, device=within.device), shrinkage)
    values, vectors = torch.linalg.eigh(within)
    whitening = vectors / values.sqrt()
    sought = _scatter(means, count) + _SPREAD * spread
    _, turned = torch.linalg.eigh(whitening.T @ sought @ whitening)
    axes: Tensor = (whitening @ turned.flip(1)[:, :dim]).T
    return axes


def _scatter(rows: Tensor, count: int) -> Tensor:
    return rows.T @ rows / count


@torch.no_grad()
def set_at_discriminants(
    layer: nn.Linear, features: Tensor, labels: Tensor, *, shrinkage: float = SHRINKAGE, even: bool = False
) -> bool:
    """Set a layer to the discriminants of features ``(n, f)``; its vectors stay as long as they were, centred at 0.

    `even`: instead, each of its numbers has a mean square of 1. A layer of classes that do not vary, or of more numbers
    than there are features, stays as it is; whether it was set is returned.
    """
    length = layer(features).square().mean().sqrt()
    mean = features.mean(dim=0)
    try:
        axes = fisher_directions(features, labels, layer.out_features, shrinkage=shrinkage).to(features)
    except ValueError as error:
        _log.warning("The embedding layer stays as it is: %s", error)
        return False
    squares = ((features - mean) @ axes.T).square()
    scale = 1 / _root(squares.mean(dim=0))[:, None] if even else length / _root(squares.mean())
    layer.weight.copy_(axes * scale)
    layer.bias.copy_(-layer.weight @ mean)
    return True


def _root(squares: Tensor) -> Tensor:
    return squares.sqrt().clamp_min(1e-6)
