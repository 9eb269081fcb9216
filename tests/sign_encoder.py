"""A small binary encoder for tests: the signs of a projection of a picture's pixels, or of a text's letters."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from embedkit.encoders.contract import Encoder, EncoderSpec
from embedkit.errors import BadImage

BITS, SIDE = 64, 8


class SignEncoder(Encoder):
    spec = EncoderSpec("signs", ("image", "text"), BITS, "5" * 64, "binary", normalized=False, input_size=(SIDE, SIDE))
    runtime = "onnx"

    def prepare(self, picture):
        try:
            opened = picture if isinstance(picture, Image.Image) else Image.open(io.BytesIO(picture))
            return np.asarray(opened.convert("RGB").resize((SIDE, SIDE)), np.uint8)
        except (UnidentifiedImageError, OSError) as error:
            raise BadImage("it is no picture") from error

    def encode(self, batch):
        return np.packbits(self.numbers(batch) > 0, axis=1)

    def numbers(self, batch):
        if isinstance(batch, np.ndarray):
            values = batch.reshape(len(batch), -1).astype(np.float32)
        else:
            values = np.array([np.bincount(list(text.encode()), minlength=256) for text in batch], np.float32)
        values = values - values.mean(axis=1, keepdims=True)
        projection = np.random.default_rng(values.shape[1]).standard_normal((values.shape[1], BITS))
        return (values @ projection).astype(np.float32)

    def close(self):
        pass


def build(spec, *, runtime, threads, cache_dir):
    return SignEncoder()
