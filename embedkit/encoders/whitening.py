"""PCA-whitening of vectors (Jégou & Chum 2012, ECCV, "Negative evidences and co-occurences in image retrieval")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from embedkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Whitening", "fit_whitening"]

_FLAT = 1e-4  # a deviation this small beside the largest is rounding, and whitening would blow it up


class Whitening(nn.Module):
    """``P (x / |x| - mean)`` with ``P = diag(1 / deviations) axes``: ``(…, channels)`` in, ``(…, dim)`` out.

    The paper scales the answer to unit length; that is left to what comes next.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(channels))
        self.projection = nn.Parameter(torch.eye(dim, channels))

    def forward(self, vectors: Tensor) -> Tensor:
        return F.linear(F.normalize(vectors, dim=-1) - self.mean, self.projection)


def fit_whitening(vectors: Tensor, dim: int) -> Whitening:
    """The whitening that gives the unit vectors of ``(n, channels)`` mean 0 and covariance 1 in `dim` dimensions.

    Raises ConfigError when the vectors span fewer dimensions.
    """
    unit = F.normalize(vectors.double(), dim=1)
    mean = unit.mean(dim=0)
    singular, axes = _principal(unit - mean, dim)
    span = int((singular > _FLAT * singular[0]).sum())
    if span < dim:
        smaller = f", or say dim={span} or less" if span > 1 else ""
        raise ConfigError(f"These pictures span only {span} dimensions, not {dim}; give more varied ones{smaller}")
    fitted = Whitening(vectors.shape[1], dim)
    with torch.no_grad():
        fitted.mean.copy_(mean)
        fitted.projection.copy_(axes * ((len(vectors) - 1) ** 0.5 / singular[:dim, None]))
    return fitted


def _principal(centred: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Every singular value, largest first, and the first `dim` axes; from the smaller Gram matrix, which is faster."""
    wide = len(centred) < centred.shape[1]
    squares, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    singular = squares.clamp(min=0).sqrt().flip(0)
    first = vectors.flip(1)[:, :dim].T
    return singular, F.normalize(first @ centred, dim=1) if wide else first
