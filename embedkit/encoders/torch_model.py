"""Encoders that run in torch: normalise, network, pooling, unit length."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from embedkit.codes import packed
from embedkit.encoders.contract import Encoder, EncoderSpec
from embedkit.encoders.fingerprint import fingerprint_of
from embedkit.errors import BadInput, ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from embedkit.encoders.pooling_options import PoolingOptions
    from embedkit.encoders.preprocess import Preprocess
    from embedkit.specs import SpecText
    from embedkit.types import ByteArray, FloatArray, VectorArray

__all__ = ["Backbone", "PixelModel", "TorchImageEncoder", "encoder_of", "state_fingerprint"]


class PixelModel(nn.Module):
    """uint8 ``(n, height, width, 3)`` in, float32 ``(n, dim)`` of unit length out; what is exported.

    A binary encoder is the same model: its bits are the signs of what comes out.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, pooling: nn.Module, recipe: Preprocess) -> None:
        super().__init__()
        self.network, self.pooling = network, pooling
        self.register_buffer("mean", 255 * torch.tensor(recipe.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", 1 / (255 * torch.tensor(recipe.std)).view(3, 1, 1), persistent=False)
        self.eval()

    def features(self, pixels: Tensor) -> Tensor:
        """What the network gives, not yet pooled."""
        found: Tensor = self.network((pixels.permute(0, 3, 1, 2).float() - self.mean) * self.scale)
        return found

    def forward(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.pooling(self.features(pixels)).flatten(1), dim=1)


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network up to its last feature map (or its class token), and what the spec says about pictures and pooling."""

    network: nn.Module
    recipe: Preprocess
    options: PoolingOptions

    def probe(self) -> Tensor:
        """What the network makes of two black pictures. Raises ConfigError if it cannot take their size."""
        black = torch.zeros(2, *self.recipe.size, 3, dtype=torch.uint8)
        try:
            with torch.no_grad():
                return PixelModel(self.network, nn.Identity(), self.recipe).features(black)
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            raise ConfigError(
                f"The network does not take pictures of {self.recipe.size} and give a feature map: {error}"
            ) from error


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
        found = self.numbers(batch)
        return packed(found) if self.spec.kind == "binary" else found

    def numbers(self, batch: ByteArray | Sequence[str]) -> FloatArray:
        """What the model gives, ``(n, dim)`` float32: of a binary encoder the numbers before the sign."""
        pixels = np.asarray(batch)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (*self.recipe.size, 3):
            raise BadInput(f"{self.spec.name!r} takes prepared pictures, not {pixels.dtype} of shape {pixels.shape}")
        if not len(pixels):
            return np.empty((0, self.spec.dim), np.float32)
        given = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
        with torch.inference_mode():
            found: FloatArray = self.model(given.to(self.model.mean.device)).cpu().numpy()
        return found

    def close(self) -> None:
        self.__dict__.pop("model", None)  # closing twice is no error


def encoder_of(spec: SpecText, backbone: Backbone, pooling: nn.Module, *, threads: int = 0) -> TorchImageEncoder:
    """The encoder that a backbone and a pooling make. Raises ConfigError."""
    recipe = backbone.recipe
    model = PixelModel(backbone.network, pooling, recipe)
    with torch.no_grad():
        dim = int(model.pooling(backbone.probe()).flatten(1).shape[1])
    identity = {**recipe.as_dict(), "pooling": backbone.options.name, "network": spec.argument}
    made = EncoderSpec(
        name=spec.text,
        modalities=("image",),
        dim=dim,
        fingerprint=state_fingerprint(model, identity),
        input_size=recipe.size,
    )
    return TorchImageEncoder(made, recipe, model, threads=threads)


def state_fingerprint(model: nn.Module, recipe: dict[str, object]) -> str:
    """A fingerprint over every tensor by name, and the recipe."""
    parts = []
    for name, tensor in sorted(model.state_dict().items()):
        parts += [name.encode(), tensor.detach().cpu().contiguous().numpy().tobytes()]
    return fingerprint_of(parts, recipe)
