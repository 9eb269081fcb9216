"""transformers models as torch modules with one input list and one answer: what is run, and what is exported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from embedkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PictureTower", "TextTower", "picture_pooling"]


class PictureTower(nn.Module):
    """Normalised pixels ``(n, 3, height, width)`` in, features ``(n, dim)`` out. `pooling` None: a joint model's."""

    def __init__(self, model: nn.Module, pooling: str | None) -> None:
        super().__init__()
        self.model, self.pooling = model, pooling

    def forward(self, pixels: Tensor) -> Tensor:
        if self.pooling is None:
            return _projected(self.model.get_image_features(pixel_values=pixels))  # type: ignore[operator]
        answer = self.model(pixel_values=pixels)
        if self.pooling == "pooler":
            return _pooler(answer)
        states: Tensor = answer.last_hidden_state
        if states.ndim == 4:  # a convolutional network: its places are its tokens
            states = states.flatten(2).transpose(1, 2)
        return _pooled(states, torch.ones_like(states[:, :, 0]), self.pooling)


class TextTower(nn.Module):
    """Token arrays ``(n, length)`` in the order of `inputs` in, unit vectors ``(n, dim)`` out."""

    def __init__(self, model: nn.Module, inputs: tuple[str, ...], pooling: str | None) -> None:
        super().__init__()
        self.model, self.inputs, self.pooling = model, inputs, pooling
        self.eval()

    def forward(self, *tokens: Tensor) -> Tensor:
        given = dict(zip(self.inputs, tokens, strict=True))
        return F.normalize(self._features(given).float(), dim=1)

    def _features(self, given: dict[str, Tensor]) -> Tensor:
        if self.pooling is None:
            return _projected(self.model.get_text_features(**given))  # type: ignore[operator]
        answer = self.model(**given)
        if self.pooling == "pooler":
            return _pooler(answer)
        mask = given.get("attention_mask", torch.ones_like(given["input_ids"]))
        return _pooled(answer.last_hidden_state, mask, self.pooling)


def picture_pooling(model: nn.Module, size: tuple[int, int], wanted: str, *, pooled: bool) -> str:
    """The pooling of a model that does not project: the one asked for if the model has it, or the best it has.

    Raises ConfigError.
    """
    with torch.inference_mode():
        answer = model(pixel_values=torch.zeros(1, 3, *size))
    has_pooler = pooled and getattr(answer, "pooler_output", None) is not None
    places = answer.last_hidden_state.ndim == 4
    if (wanted == "pooler" and not has_pooler) or (wanted == "cls" and places):
        raise ConfigError(
            f"{type(model).__name__} has {'no class token' if places else 'no pooler, or none with weights'}; "
            f"choose pooling=mean or max"
        )
    return wanted or ("pooler" if has_pooler else "mean" if places else "cls")


def _projected(answer: Any) -> Tensor:
    """Transformers 4 answers with the features, transformers 5 with an object that holds them."""
    features: Tensor = answer if isinstance(answer, torch.Tensor) else answer.pooler_output
    return features


def _pooler(answer: Any) -> Tensor:
    pooled: Tensor | None = getattr(answer, "pooler_output", None)
    if pooled is None:
        raise ConfigError("The model has no pooler; choose pooling=cls, mean or max")
    return pooled.flatten(1)


def _pooled(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """``(n, tokens, dim)`` and ``(n, tokens)`` to ``(n, dim)``; texts are padded on the right."""
    if pooling == "cls":
        return states[:, 0]
    there = mask.unsqueeze(2).to(states.dtype)
    if pooling == "max":
        return states.masked_fill(there == 0, torch.finfo(states.dtype).min).amax(dim=1)
    return (states * there).sum(dim=1) / there.sum(dim=1).clamp(min=1e-9)
