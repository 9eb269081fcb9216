"""The texts of a joint training: what is drawn of them for a batch, and the encoder that they become."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from embedkit.encoders.fingerprint import fingerprint_of
from embedkit.encoders.gru import GruTextEncoder, GruTower
from embedkit.encoders.projected import ProjectedTextEncoder, Sentences
from embedkit.encoders.text_recipe import Tokens
from embedkit.encoders.words import WORD_RECIPE

if TYPE_CHECKING:
    from embedkit.encoders.contract import Encoder, EncoderSpec
    from embedkit.training.datasets.contract import Captions
    from embedkit.types import IdArray

__all__ = ["FrozenTexts", "LearnedTexts", "TextSide"]

_AT_ONCE = 1_024  # texts that become tokens together
_log = logging.getLogger(__name__)


class TextSide(ABC):
    """The captions of the training split, of which every picture is shown one at a time.

    `fingerprint`: of what lies before the layers that learn.
    """

    fingerprint: str

    def __init__(self, captions: Captions) -> None:
        order = np.argsort(captions.labels, kind="stable")
        self._texts = [captions.texts[row] for row in order]
        self._counts = np.bincount(captions.labels)
        self._starts = np.cumsum(self._counts) - self._counts

    def drawn(self, labels: IdArray, seed: int) -> Tensor:
        """One caption of every label, at random, as what learns takes it: ``(n, …)``."""
        drawn = np.random.default_rng(seed).random(len(labels))
        return self._given(self._starts[labels] + (drawn * self._counts[labels]).astype(np.int64))

    @abstractmethod
    def _given(self, rows: IdArray) -> Tensor:
        """The captions at some places of `_texts`."""

    def means(self) -> Tensor | None:
        """Vectors ``(labels, m)`` that pictures can be expected near; None where there are none yet."""
        return None

    @abstractmethod
    def encoder(self, spec: EncoderSpec, learned: nn.Module) -> Encoder:
        """Texts into the joint space by what has learned, as it is now."""


class FrozenTexts(TextSide):
    """Captions as vectors ``(n, m)`` of an encoder that stays, before a layer that learns."""

    def __init__(self, captions: Captions, sentences: Sentences) -> None:
        super().__init__(captions)
        _log.info("%d captions are encoded by %s", len(captions), sentences.spec.name)
        self.fingerprint = sentences.spec.fingerprint
        self._sentences = sentences
        self._vectors = sentences.once(self._texts)

    def _given(self, rows: IdArray) -> Tensor:
        return torch.from_numpy(self._vectors[rows])

    def means(self) -> Tensor | None:
        """Those of the captions of every label; zeros where it has none."""
        sums = np.zeros((len(self._counts), self._vectors.shape[1]), np.float64)
        np.add.at(sums, np.repeat(np.arange(len(self._counts)), self._counts), self._vectors)
        return torch.from_numpy(sums / np.maximum(self._counts, 1)[:, None])

    def encoder(self, spec: EncoderSpec, learned: nn.Module) -> Encoder:
        weight = bias = None
        if isinstance(learned, nn.Linear):
            weight, bias = (one.detach().cpu().numpy() for one in (learned.weight, learned.bias))
        return ProjectedTextEncoder(spec, self._sentences, weight, bias)


class LearnedTexts(TextSide):
    """Captions as tokens ``(n, length)`` of a GruTower, made once; `words`: its ``tokenizer.json``."""

    def __init__(self, captions: Captions, words: str) -> None:
        super().__init__(captions)
        self._words = words
        tokens = Tokens(words, WORD_RECIPE)
        _log.info("%d captions are read by %d tokens", len(captions), len(tokens))
        self.fingerprint = fingerprint_of([words.encode()], WORD_RECIPE.as_dict())
        texts = self._texts
        parts = [tokens(texts[at : at + _AT_ONCE])["input_ids"] for at in range(0, len(texts), _AT_ONCE)]
        self._lengths = np.concatenate([np.count_nonzero(part, axis=1) for part in parts])
        self._places = np.cumsum(self._lengths) - self._lengths
        self._tokens = np.concatenate([part[part != 0] for part in parts])

    def _given(self, rows: IdArray) -> Tensor:
        lengths = self._lengths[rows, None]
        place = np.arange(lengths.max())[None, :]
        inside = place < lengths
        found = self._tokens[np.where(inside, self._places[rows, None] + place, 0)]
        return torch.from_numpy(np.where(inside, found, 0))

    def encoder(self, spec: EncoderSpec, learned: nn.Module) -> Encoder:
        assert isinstance(learned, GruTower)
        return GruTextEncoder(spec, self._words, learned)
