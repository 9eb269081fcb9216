"""Encoders that run from a model file: pictures or texts through a runtime session."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.encoders.contract import Encoder, EncoderSpec
from embedkit.encoders.preprocess import Preprocess
from embedkit.encoders.runtimes.contract import Session
from embedkit.encoders.text_recipe import Tokens
from embedkit.errors import BadInput, DataCorrupt

if TYPE_CHECKING:
    from PIL.Image import Image

    from embedkit.types import ByteArray, FloatArray, VectorArray

__all__ = ["BatchTextEncoder", "ImageEncoder", "JointEncoder", "TextEncoder"]

_AT_ONCE = 8  # pictures in one call of a CPU runtime: as fast as 32, with less than half of the memory


class ImageEncoder(Encoder):
    """Pictures through a session that takes ``pixels`` uint8 and gives vectors, or the numbers whose signs are bits."""

    def __init__(self, spec: EncoderSpec, recipe: Preprocess, session: Session) -> None:
        self.spec = spec
        self.runtime = session.name
        self.concurrency = session.concurrency
        self._recipe = recipe
        self._session = session

    def prepare(self, picture: bytes | Image) -> ByteArray:
        return self._recipe(picture)

    def encode(self, batch: ByteArray | Sequence[str]) -> VectorArray:
        return self.vectors_of(self.numbers(batch))

    def numbers(self, batch: ByteArray | Sequence[str]) -> FloatArray:
        """What the session gives, ``(n, dim)`` float32: of a binary encoder the numbers before the sign."""
        pixels = np.asarray(batch)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (*self._recipe.size, 3):
            raise BadInput(
                f"{self.spec.name!r} takes prepared pictures (n, {self._recipe.size[0]}, {self._recipe.size[1]}, 3) "
                f"uint8, not {pixels.dtype} of shape {pixels.shape}"
            )
        if not len(pixels):
            return np.empty((0, self.spec.dim), np.float32)
        parts = [self._session.run({"pixels": pixels[i : i + _AT_ONCE]}) for i in range(0, len(pixels), _AT_ONCE)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        self._session.close()


class TextEncoder(Encoder):
    """Sentences through a BERT-like session: mean of the token vectors, scaled to unit length.

    One text at a time: the int8 model quantises its activations by batch, so a vector would
    otherwise depend on its neighbours.
    """

    def __init__(self, spec: EncoderSpec, recipe: dict[str, Any], tokenizer: Path, session: Session) -> None:
        from tokenizers import Tokenizer

        self.spec = spec
        self.runtime = session.name
        self.concurrency = session.concurrency
        self._session = session
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(tokenizer))
        except Exception as error:
            raise DataCorrupt(f"{tokenizer}: the tokenizer cannot be read: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(int(recipe["max_tokens"]))
        self._inputs = tuple(recipe["inputs"])

    def prepare(self, picture: bytes | Image) -> ByteArray:
        del picture
        raise BadInput(f"The encoder {self.spec.name!r} takes text, not pictures")

    def encode(self, batch: ByteArray | Sequence[str]) -> VectorArray:
        vectors = np.empty((len(batch), self.spec.dim), np.float32)
        for row, text in enumerate(batch):
            vectors[row] = self._one(str(text))
        return vectors

    def _one(self, text: str) -> FloatArray:
        ids = np.array([self._tokenizer.encode(text).ids], np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        tokens = self._session.run({name: given[name] for name in self._inputs})[0]
        mean: FloatArray = tokens.mean(axis=0)
        return mean / np.float32(max(float(np.linalg.norm(mean)), 1e-12))

    def close(self) -> None:
        self._session.close()


class BatchTextEncoder(Encoder):
    """Texts through a session that takes tokens and gives vectors: pooling and scaling are in the graph."""

    def __init__(self, spec: EncoderSpec, tokens: Tokens, session: Session, *, alone: bool = False) -> None:
        """`alone`: one text at a time, where a vector would otherwise depend on its neighbours."""
        self.spec = spec
        self.runtime = session.name
        self.concurrency = session.concurrency
        self._tokens = tokens
        self._alone = alone
        self._session = session

    def prepare(self, picture: bytes | Image) -> ByteArray:
        del picture
        raise BadInput(f"The encoder {self.spec.name!r} takes text, not pictures")

    def encode(self, batch: ByteArray | Sequence[str]) -> VectorArray:
        return self.vectors_of(self.numbers(batch))

    def numbers(self, batch: ByteArray | Sequence[str]) -> FloatArray:
        """What the session gives, ``(n, dim)`` float32: of a binary encoder the numbers before the sign."""
        if not len(batch):
            return np.empty((0, self.spec.dim), np.float32)
        texts = [str(text) for text in batch]
        if not self._alone:
            return self._session.run(self._tokens(texts))
        return np.concatenate([self._session.run(self._tokens([text])) for text in texts])

    def close(self) -> None:
        self._session.close()


class JointEncoder(Encoder):
    """Pictures and texts into one space, as CLIP does: one encoder for each, in whatever runtimes they run."""

    def __init__(self, spec: EncoderSpec, pictures: Encoder, texts: Encoder) -> None:
        self.spec = spec
        self.runtime = pictures.runtime
        self.concurrency = pictures.concurrency
        self.pictures, self.texts = pictures, texts

    def prepare(self, picture: bytes | Image) -> ByteArray:
        return self.pictures.prepare(picture)

    def encode(self, batch: ByteArray | Sequence[str]) -> VectorArray:
        return self.pictures.encode(batch) if isinstance(batch, np.ndarray) else self.texts.encode(batch)

    def numbers(self, batch: ByteArray | Sequence[str]) -> FloatArray:
        return self.pictures.numbers(batch) if isinstance(batch, np.ndarray) else self.texts.numbers(batch)

    def close(self) -> None:
        self.pictures.close()
        self.texts.close()
