"""Encoders that run in torch: normalise, network, pooling, unit length."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from embedkit.encoders.contract import Encoder, EncoderSpec
from embedkit.encoders.fingerprint import fingerprint_of
from embedkit.errors import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from embedkit.encoders.preprocess import Preprocess
    from embedkit.types import ByteArray, VectorArray

__all__ = ["PixelModel", "TorchImageEncoder", "state_fingerprint"]


class PixelModel(nn.Module):
    """uint8 ``(n, height, width, 3)`` in, float32 ``(n, dim)`` of unit length out; what is exported."""

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, pooling: nn.Module, recipe: Preprocess) -> None:
        super().__init__()
        self.network, self.pooling = network, pooling
        self.register_buffer("mean", 255 * torch.tensor(recipe.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", 1 / (255 * torch.tensor(recipe.std)).view(3, 1, 1), persistent=False)
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) * self.scale
        return F.normalize(self.pooling(self.network(x)).flatten(1), dim=1)


class TorchImageEncoder(Encoder):
    """A PixelModel behind the encoder contract. torch spreads one batch over the cores itself."""

    runtime = "torch"
    concurrency = 1

    def __init__(self, spec: EncoderSpec, recipe: Preprocess, model: PixelModel, *, threads: int = 0) -> None:
        self.spec = spec
        self.recipe = recipe
        self.model = model.to(memory_format=torch.channels_last)
        torch.set_num_threads(threads or os.cpu_count() or 1)

    def prepare(self, picture: bytes | Image) -> ByteArray:
        return self.recipe(picture)

    def encode(self, batch: ByteArray | Sequence[str]) -> VectorArray:
        pixels = np.asarray(batch)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (*self.recipe.size, 3):
            raise BadInput(f"{self.spec.name!r} takes prepared pictures, not {pixels.dtype} of shape {pixels.shape}")
        if not len(pixels):
            return np.empty((0, self.spec.dim), np.float32)
        with torch.inference_mode():
            vectors: VectorArray = self.model(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()
        return vectors

    def close(self) -> None:
        del self.model


def state_fingerprint(model: nn.Module, recipe: dict[str, object]) -> str:
    """A fingerprint over every tensor by name, and the recipe."""
    parts = []
    for name, tensor in sorted(model.state_dict().items()):
        parts += [name.encode(), tensor.detach().cpu().contiguous().numpy().tobytes()]
    return fingerprint_of(parts, recipe)
