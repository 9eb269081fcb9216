"""The patches of a vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) as a feature map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PatchGrid"]


class PatchGrid(nn.Module):
    """A torchvision VisionTransformer that gives ``(n, channels, side, side)``, one place a patch."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.vit = network
        self.side = network.image_size // network.patch_size

    def forward(self, x: Tensor) -> Tensor:
        patches = self.vit._process_input(x)
        tokens = torch.cat([self.vit.class_token.expand(patches.shape[0], -1, -1), patches], dim=1)
        encoded: Tensor = self.vit.encoder(tokens)[:, 1:]
        return encoded.transpose(1, 2).reshape(encoded.shape[0], encoded.shape[2], self.side, self.side)
