"""Texts in torch: a transformers tokenizer, a recipe, a tower."""

from __future__ import annotations

import inspect
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from embedkit.encoders.contract import Encoder, EncoderSpec
from embedkit.encoders.hf.sentences import SentenceFiles
from embedkit.encoders.hf.towers import TextTower
from embedkit.encoders.probe import PROBE_TEXTS
from embedkit.encoders.text_recipe import TOKEN_INPUTS, TextRecipe, Tokens
from embedkit.errors import BadInput, ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

    from embedkit.types import ByteArray, VectorArray

__all__ = ["TorchTextEncoder", "text_recipe_of"]

_MAX_TOKENS = 512  # where nothing sets a limit
_PADDED = ("siglip", "siglip2")  # learned on padded texts without a mask, as their documentation says
_LONG = "a long text that is cut " * 100


def text_recipe_of(model: nn.Module, tokenizer: Any, files: SentenceFiles, *, name: str) -> TextRecipe:
    """Raises ConfigError."""
    config: Any = model.config
    config = getattr(config, "text_config", None) or config
    joint = hasattr(model, "get_text_features")
    if tokenizer.pad_token_id is None:
        raise ConfigError(f"The tokenizer of {name!r} has no token for padding; choose another model")
    limits = [files.max_tokens or _MAX_TOKENS, int(tokenizer.model_max_length), *_positions(model, config)]
    padded = str(getattr(model.config, "model_type", "")) in _PADDED
    accepted = inspect.signature(cast("Any", model.get_text_features if joint else model.forward)).parameters
    named = ("input_ids",) if padded else tuple(tokenizer.model_input_names)
    return TextRecipe(
        max_tokens=min(limits),
        inputs=tuple(one for one in TOKEN_INPUTS if one in named and one in accepted),
        padding="full" if padded else "longest",
        pad_id=int(tokenizer.pad_token_id),
        lower=files.lower,
    )


def _positions(model: nn.Module, config: Any) -> list[int]:
    """How many positions the model knows; none where it does not count them."""
    known = getattr(config, "max_position_embeddings", None)
    found = [int(known)] if known and int(known) > 0 else []
    for name, module in model.named_modules():
        # RoBERTa and its kin count from the padding token's number on.
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            found.append(module.num_embeddings - module.padding_idx - 1)
    return found


class TorchTextEncoder(Encoder):
    """A TextTower behind the encoder contract."""

    runtime = "torch"
    concurrency = 1

    def __init__(
        self, spec: EncoderSpec, recipe: TextRecipe, tokenizer: Any, tower: TextTower, *, threads: int = 0
    ) -> None:
        self.spec = spec
        self.recipe = recipe
        self.tower = tower
        self._tokenizer = tokenizer
        self._tokenizer.padding_side = "right"
        self._one_at_a_time = threading.Lock()  # a fast tokenizer sets its limits at each call
        torch.set_num_threads(threads or os.cpu_count() or 1)

    def prepare(self, picture: bytes | Image) -> ByteArray:
        del picture
        raise BadInput(f"The encoder {self.spec.name!r} takes text, not pictures")

    def encode(self, batch: ByteArray | Sequence[str]) -> VectorArray:
        if not len(batch):
            return np.empty((0, self.spec.dim), np.float32)
        with torch.inference_mode():
            vectors: VectorArray = self.tower(*self.tokens([str(text) for text in batch])).numpy()
        return vectors

    def tokens(self, texts: Sequence[str]) -> tuple[torch.Tensor, ...]:
        """What the tower takes."""
        recipe = self.recipe
        with self._one_at_a_time:
            found = self._tokenizer(
                [text.lower() for text in texts] if recipe.lower else list(texts),
                padding="max_length" if recipe.padding == "full" else "longest",
                truncation=True,
                max_length=recipe.max_tokens,
                return_tensors="pt",
                return_token_type_ids="token_type_ids" in recipe.inputs,
            )
        return tuple(found[name] for name in recipe.inputs)

    def content(self) -> dict[str, Any]:
        """What tells two encoders of the same weights and recipe apart: pooling and tokenizer."""
        if not self._tokenizer.is_fast:
            known: dict[str, Any] = {"class": type(self._tokenizer).__name__, "vocabulary": self._tokenizer.get_vocab()}
        else:
            stored = json.loads(self._tokenizer.backend_tokenizer.to_str())
            known = {name: value for name, value in stored.items() if name not in ("padding", "truncation")}
        return {"pooling": self.tower.pooling, "tokenizer": known}

    def write_tokenizer(self, path: Path) -> None:
        """Write ``tokenizer.json``, and see that it gives the same tokens without transformers.

        Raises ConfigError.
        """
        why = "has no fast tokenizer"
        if self._tokenizer.is_fast:
            self._tokenizer.backend_tokenizer.save(str(path))
            found, texts = Tokens(path, self.recipe), [*PROBE_TEXTS, _LONG]
            theirs = dict(zip(self.recipe.inputs, self.tokens(texts), strict=True))
            if all(np.array_equal(array, theirs[name].numpy()) for name, array in found(texts).items()):
                return
            why = "has a tokenizer that does more than its tokenizer.json says"
        raise ConfigError(f"{self.spec.name!r} {why} and cannot be exported; use it in torch, or choose another model")

    def close(self) -> None:
        del self.tower
