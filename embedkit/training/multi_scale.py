"""Deep Ranking's network of three scales: a deep one, and two shallow ones that see the picture small."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from embedkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SHALLOW_DIM", "SMALLEST", "MultiScale"]

SMALLEST = 64  # pixels: below it the larger of the small pictures would be an enlarged one
_MAPS = 96
_SIDE = 4  # of the maps that either shallow path ends with
SHALLOW_DIM = 2 * _MAPS * _SIDE * _SIDE  # what the two paths add to the deep vector


class _Shallow(nn.Module):
    """The picture averaged to `side` pixels, convolution 8 × 8 with stride 4, max pooling to 4 × 4, length 1."""

    def __init__(self, side: int, pool: nn.MaxPool2d, *, generator: torch.Generator | None) -> None:
        super().__init__()
        self.side = side
        self.conv = nn.Conv2d(3, _MAPS, kernel_size=8, stride=4, padding=4)
        self.pool = pool
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.pool(F.relu(self.conv(_averaged(pixels, self.side))))
        return F.normalize(maps.flatten(1), dim=1)


class MultiScale(nn.Module):
    """Wang 2014, section 4 and figure 3: normalised pixels ``(n, 3, h, w)`` in, ``(n, deep + 3072)`` out.

    The deep vector is `network` and `pooling`, flattened; the paper's is AlexNet's. The shallow paths are convolution
    8 × 8, stride 4, 96 maps, then max pooling (7 × 7, stride 4; 3 × 3, stride 2) to 4 × 4. Each of the three has
    length 1, so that none outweighs the others; the paper's linear embedding of all three is the trainer's embedding
    layer, which belongs behind it.

    Where it departs: the paper subsamples a picture of 225 px 4:1 and 8:1, which gives 57 and 29 px. Here a picture of
    any size from 64 px is averaged to 57 and to 29, whatever the ratio, so that the paths see as much as the paper's
    do. The maps of the shallow paths are rectified, which figure 3 leaves open. Raises ConfigError for smaller
    pictures.

    `generator` draws the first weights of the shallow paths; without it PyTorch's own does, which `torch.manual_seed`
    sets.
    """

    def __init__(self, network: nn.Module, pooling: nn.Module, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.network, self.pooling = network, pooling
        self.coarse = _Shallow(57, nn.MaxPool2d(7, stride=4, padding=2), generator=generator)
        self.coarser = _Shallow(29, nn.MaxPool2d(3, stride=2, padding=1), generator=generator)

    def forward(self, pixels: Tensor) -> Tensor:
        height, width = int(pixels.shape[2]), int(pixels.shape[3])
        if min(height, width) < SMALLEST:
            raise ConfigError(
                f"Pictures of {width} x {height} are too small for three scales; take an encoder with size={SMALLEST} "
                "or more, or multi_scale = false"
            )
        deep = F.normalize(self.pooling(self.network(pixels)).flatten(1), dim=1)
        return torch.cat([deep, self.coarse(pixels), self.coarser(pixels)], dim=1)

    @torch.no_grad()
    def dim(self, size: tuple[int, int]) -> int:
        """The length of the vectors of pictures of (height, width), by a dry run that leaves the network as it is."""
        states = [(part, part.training) for part in self.modules()]
        weight = self.coarse.conv.weight
        self.eval()
        try:
            return int(self(torch.zeros(1, 3, *size, device=weight.device, dtype=weight.dtype)).shape[1])
        finally:
            for part, training in states:
                part.training = training


def _averaged(pixels: Tensor, side: int) -> Tensor:
    """The pictures ``(n, c, side, side)``, every pixel the mean of the area that it covers.

    Two products with matrices of shares: ONNX knows no average pooling whose windows overlap by parts of pixels.
    """
    down, across = (_shares(int(pixels.shape[axis]), side, like=pixels) for axis in (2, 3))
    return down @ pixels @ across.T


def _shares(length: int, side: int, *, like: Tensor) -> Tensor:
    """How much of each of `length` pixels is in each of `side`: ``(side, length)``, rows that sum to 1."""
    step = length / side
    edges = torch.arange(side + 1, device=like.device, dtype=torch.float32)[:, None] * step
    pixel = torch.arange(length, device=like.device, dtype=torch.float32)
    covered = torch.minimum(edges[1:], pixel + 1) - torch.maximum(edges[:-1], pixel)
    return (covered.clamp_min(0) / step).to(like.dtype)
