"""Small float encoders for tests, `plain(seed=1)`: projections of a picture's pixels, or of a text's letters."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import numpy as np

from embedkit import plugins
from embedkit.encoders.contract import EncoderSpec
from tests.sign_encoder import SIDE, SignEncoder


class PlainEncoder(SignEncoder):
    def __init__(self, seed, dim):
        self._seed = seed
        fingerprint = f"{seed:032x}{dim:032x}"
        text = f"plain(seed={seed}, dim={dim})"
        self.spec = EncoderSpec(
            text, ("image", "text"), dim, fingerprint, "float", normalized=True, input_size=(SIDE, SIDE)
        )

    def encode(self, batch):
        if isinstance(batch, np.ndarray):
            values = batch.reshape(len(batch), -1).astype(np.float64)
        else:
            values = np.array([np.bincount(list(text.encode()), minlength=256) for text in batch], np.float64)
        values = values - values.mean(axis=1, keepdims=True)
        made = values @ np.random.default_rng(self._seed).standard_normal((values.shape[1], self.spec.dim))
        return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def build(spec, *, runtime, threads, cache_dir):
    return PlainEncoder(int(spec.options.get("seed", 0)), int(spec.options.get("dim", 32)))


def install(patch=setattr):
    """Make `plain` and `signs` known to this process."""
    names = {"plain": "tests.plain_encoder:build", "signs": "tests.sign_encoder:build"}
    points = [EntryPoint(name, target, "embedkit.encoders") for name, target in names.items()]
    patch(plugins, "entry_points", lambda group: points if group == "embedkit.encoders" else [])
    plugins._table.cache_clear()
