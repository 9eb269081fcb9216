"""The agreement probe: a few fixed inputs and the vectors that PyTorch gives for them.

A runtime may stand in for another only if its vectors of the probe have cosine >= 0.999 with these. Of a binary
encoder the numbers before the sign are stored and compared, and then their signs.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.errors import DataCorrupt

if TYPE_CHECKING:
    from embedkit.types import ByteArray, FloatArray, VectorArray

__all__ = ["AGREEMENT", "PROBE_TEXTS", "agreement", "pack", "probe_pixels", "unpack"]

AGREEMENT = 0.999
PROBE_TEXTS = ("a red canvas shoe", "Grüße aus Köln – 東京", "x")
_PROBES = 2


def probe_pixels(size: tuple[int, int]) -> ByteArray:
    """``(2, height, width, 3)`` uint8: smooth coloured noise, the same everywhere."""
    rng = np.random.default_rng(20_240_501)
    coarse = rng.integers(0, 256, (_PROBES, 8, 8, 3)).astype(np.float64)
    rows = np.linspace(0, 7, size[0])[None, :, None, None]
    columns = np.linspace(0, 7, size[1])[None, None, :, None]
    pixels: ByteArray = np.rint(_between(_between(coarse, rows, 1), columns, 2)).astype(np.uint8)
    return pixels


def _between(values: Any, at: Any, axis: int) -> Any:
    low = np.minimum(np.floor(at).astype(int), 6)
    share = at - low
    index = low.reshape(-1)
    return np.take(values, index, axis) * (1 - share) + np.take(values, index + 1, axis) * share


def agreement(one: VectorArray, other: VectorArray) -> float:
    """The smallest cosine between corresponding rows."""
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if a.shape != b.shape:
        return -1.0
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.min((a * b).sum(axis=1) / np.maximum(norms, 1e-30)))


def pack(vectors: FloatArray) -> dict[str, Any]:
    """As JSON: shape, and little-endian float32 in base64."""
    data = np.ascontiguousarray(vectors, "<f4").tobytes()
    return {"shape": list(vectors.shape), "float32": base64.b64encode(data).decode()}


def unpack(stored: Mapping[str, Any]) -> FloatArray:
    """Raises DataCorrupt."""
    try:
        return np.frombuffer(base64.b64decode(stored["float32"]), "<f4").reshape(stored["shape"]).astype(np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise DataCorrupt(f"the probe of the model cannot be read: {error}") from error
