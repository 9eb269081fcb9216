"""From a feature map to one vector, as torch modules: ``(n, channels, height, width)`` in, ``(n, dim)`` out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from embedkit.encoders.regions import rmac_regions
from embedkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from embedkit.encoders.whitening import Whitening

__all__ = ["RMAC", "AveragePool", "GeM", "MaxPool", "NetVLAD", "make_pooling"]

_RATIO = 100.0  # of the largest to the second largest share of a local feature: appendix A of the NetVLAD paper


class AveragePool(nn.Module):
    """SPoC (Babenko & Lempitsky 2015, arXiv:1510.07493) without centre prior: the mean over places."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3))


class MaxPool(nn.Module):
    """MAC (Tolias et al. 2016, arXiv:1511.05879): the maximum over places."""

    def forward(self, features: Tensor) -> Tensor:
        return features.amax(dim=(2, 3))


class GeM(nn.Module):
    """Generalised mean (Radenović et al. 2018, arXiv:1711.02512): ``(mean(x^p))^(1/p)``, p learned from 3."""

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))
        self.eps = eps

    def forward(self, features: Tensor) -> Tensor:
        return features.clamp(min=self.eps).pow(self.p).mean(dim=(2, 3)).pow(1.0 / self.p)


class RMAC(nn.Module):
    """Regional maxima (Tolias et al. 2016, arXiv:1511.05879): unit vectors of square regions, summed.

    With a `whitening`, fitted to the vectors of regions, each is whitened and scaled to unit length again before
    the sum, as in section 3.2 of the paper.
    """

    def __init__(self, levels: int = 3, whitening: Whitening | None = None) -> None:
        super().__init__()
        self.levels = levels
        self.whitening = whitening

    def regions(self, features: Tensor) -> Tensor:
        """The maximum of every region: ``(n, regions, channels)``."""
        squares = rmac_regions(int(features.shape[2]), int(features.shape[3]), self.levels)
        parts = [features[:, :, top : top + side, left : left + side].amax(dim=(2, 3)) for top, left, side in squares]
        return torch.stack(parts, dim=1)

    def forward(self, features: Tensor) -> Tensor:
        parts = F.normalize(self.regions(features), dim=2)
        if self.whitening is not None:
            parts = F.normalize(self.whitening(parts), dim=2)
        return parts.sum(dim=1)


class NetVLAD(nn.Module):
    """Arandjelović et al. 2016 (arXiv:1511.07247): residuals to learned centres, softly assigned.

    ``V(k) = sum_i softmax_k(-a |x_i - c_k|^2) (x_i - c_k)``, each V(k) scaled to unit length, then all.
    Out: ``(n, clusters * channels)``. Call `fit_centres` before training; random centres mean nothing.
    `alpha` None: `fit_centres` finds it as the paper does.
    """

    def __init__(self, channels: int, clusters: int = 64, alpha: float | None = None) -> None:
        super().__init__()
        self.alpha = alpha
        self.centres = nn.Parameter(torch.rand(clusters, channels))
        self.assign = nn.Conv2d(channels, clusters, kernel_size=1, bias=True)
        self._from_centres()

    def fit_centres(self, features: Tensor, *, rounds: int = 25, seed: int = 0) -> None:
        """Set the centres by k-means over local features ``(n, channels)``."""
        local = F.normalize(features, dim=1)
        count = len(self.centres)
        if len(local) < count:
            raise ConfigError(
                f"NetVLAD has {count} centres and needs at least as many local features, not {len(local)}"
            )
        generator = torch.Generator().manual_seed(seed)
        centres = local[torch.randperm(len(local), generator=generator)[:count]].clone()
        for _ in range(rounds):
            nearest = torch.cdist(local, centres).argmin(dim=1)
            sums = torch.zeros_like(centres).index_add_(0, nearest, local)
            sizes = torch.bincount(nearest, minlength=count).unsqueeze(1)
            centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
        if self.alpha is None and count > 1:
            first, second = torch.cdist(local, centres).square().topk(2, dim=1, largest=False).values.T
            self.alpha = math.log(_RATIO) / max(float((second - first).mean()), 1e-6)
        with torch.no_grad():
            self.centres.copy_(centres)
        self._from_centres()

    def _from_centres(self) -> None:
        """``-a |x - c|^2`` is linear in x up to a term that softmax does not see: weights 2ac, bias -a|c|^2."""
        alpha = _RATIO if self.alpha is None else self.alpha
        with torch.no_grad():
            self.assign.weight.copy_((2 * alpha * self.centres)[:, :, None, None])
            if self.assign.bias is not None:
                self.assign.bias.copy_(-alpha * self.centres.square().sum(dim=1))

    def forward(self, features: Tensor) -> Tensor:
        local = F.normalize(features, dim=1)
        shares = self.assign(local).softmax(dim=1).flatten(2)
        places = local.flatten(2)
        sums = torch.einsum("nkp,ncp->nkc", shares, places)
        residuals = sums - shares.sum(dim=2).unsqueeze(2) * self.centres
        return F.normalize(F.normalize(residuals, dim=2).flatten(1), dim=1)


def make_pooling(name: str) -> nn.Module:
    """A pooling that needs no fitting; ``cls`` hands on a class token. Raises ConfigError."""
    known: dict[str, type[nn.Module]] = {
        "avg": AveragePool,
        "max": MaxPool,
        "gem": GeM,
        "rmac": RMAC,
        "cls": nn.Identity,
    }
    if name not in known:
        raise ConfigError(f"There is no pooling {name!r}; known: {', '.join(known)}")
    return known[name]()
