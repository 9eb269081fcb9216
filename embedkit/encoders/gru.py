"""A text tower that learns: vectors of words, one GRU over them, and its last state in the joint space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embedkit.codes import packed
from embedkit.encoders.contract import Encoder, EncoderSpec
from embedkit.encoders.text_recipe import TextRecipe, Tokens
from embedkit.encoders.words import WORD_RECIPE
from embedkit.errors import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image

    from embedkit.encoders.gru_options import GruOptions
    from embedkit.types import ByteArray, FloatArray, VectorArray

__all__ = ["GruTextEncoder", "GruTower"]

_SPREAD = 0.1  # of the vectors of words at the start


class GruTower(nn.Module):
    """Faghri 2018, section 3.1: int64 tokens ``(n, length)`` in, float32 ``(n, dim)`` of unit length out.

    g(c) = Wᵀ ψ(c) + b, scaled to length 1, where ψ(c) is the state of a GRU (Cho 2014) after the last word of the
    caption. Tokens of 0, behind a text, pad it: the state before them is taken, so that a row does not depend on how
    long its batch is.
    """

    def __init__(self, tokens: int, dim: int, options: GruOptions) -> None:
        super().__init__()
        self.words = nn.Embedding(tokens, options.words, padding_idx=0)
        self.gru = nn.GRU(options.words, options.hidden, batch_first=True)
        self.layer = nn.Linear(options.hidden, dim)
        nn.init.uniform_(self.words.weight, -_SPREAD, _SPREAD)
        nn.init.zeros_(self.layer.bias)  # so that the signs of codes begin balanced

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.gru(self.words(tokens))
        last = (tokens != 0).sum(1) - 1
        state = states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]
        return F.normalize(self.layer(state).float(), dim=1)


class GruTextEncoder(Encoder):
    """A GruTower behind the encoder contract; `words`: its ``tokenizer.json``."""

    runtime = "torch"
    concurrency = 1
    recipe: TextRecipe = WORD_RECIPE

    def __init__(self, spec: EncoderSpec, words: str, tower: GruTower) -> None:
        self.spec, self.tower = spec, tower
        self._words = words
        self._tokens = Tokens(words, self.recipe)

    def prepare(self, picture: bytes | Image) -> ByteArray:
        del picture
        raise BadInput(f"The encoder {self.spec.name!r} takes text here, not pictures")

    def encode(self, batch: ByteArray | Sequence[str]) -> VectorArray:
        found = self.numbers(batch)
        return packed(found) if self.spec.kind == "binary" else found

    def numbers(self, batch: ByteArray | Sequence[str]) -> FloatArray:
        """``(n, dim)`` float32 of unit length: of a binary encoder the numbers before the sign."""
        if not len(batch):
            return np.empty((0, self.spec.dim), np.float32)
        with torch.inference_mode():
            (tokens,) = self.tokens([str(text) for text in batch])
            found: FloatArray = self.tower(tokens.to(self.tower.layer.weight.device)).cpu().numpy()
        return found

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        """What the tower takes."""
        return tuple(torch.from_numpy(array) for array in self._tokens(texts).values())

    def write_tokenizer(self, path: Path) -> None:
        """Write ``tokenizer.json``."""
        path.write_text(self._words, encoding="utf-8")

    def close(self) -> None:
        self.__dict__.pop("tower", None)  # closing twice is no error
