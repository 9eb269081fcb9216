"""The floats that a network makes codes of, as an encoder beside that of the codes: ``floats:runs/h64``.

Two views, one of codes to scan and one of floats to put the nearest in order, then need one network, which an ingest
and a search run once for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedkit.encoders.contract import Encoder, EncoderSpec, RuntimeName
from embedkit.encoders.fingerprint import fingerprint_of
from embedkit.encoders.load import FLOATS, load_encoder
from embedkit.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

    from embedkit.specs import SpecText
    from embedkit.types import ByteArray, FloatArray, VectorArray

__all__ = ["FloatsOfCodes", "build"]


class FloatsOfCodes(Encoder):
    """The numbers of a binary encoder, ``(n, bits)`` float32 scaled to unit length. Closing it closes that encoder."""

    def __init__(self, codes: Encoder) -> None:
        """Raises ConfigError for an encoder of floats."""
        made = codes.spec
        if made.kind != "binary":
            raise ConfigError(f"{made.name!r} gives floats as it is; write it without {FLOATS!r}")
        self.spec = EncoderSpec(
            name=FLOATS + made.name,
            modalities=made.modalities,
            dim=made.dim,
            fingerprint=fingerprint_of([made.fingerprint.encode()], {"floats": "unit length"}),
            input_size=made.input_size,
        )
        self.runtime = codes.runtime
        self.concurrency = codes.concurrency
        self._codes = codes

    @property
    def network(self) -> Encoder:
        return self._codes.network

    def prepare(self, picture: bytes | Image) -> ByteArray:
        return self._codes.prepare(picture)

    def encode(self, batch: ByteArray | Sequence[str]) -> VectorArray:
        return self.vectors_of(self._codes.numbers(batch))

    def vectors_of(self, numbers: FloatArray) -> FloatArray:
        """Numbers of zeros stay, which no metric of directions takes."""
        lengths: FloatArray = np.linalg.norm(numbers, axis=1, keepdims=True)
        lengths[lengths == 0] = 1
        return numbers / lengths

    def numbers(self, batch: ByteArray | Sequence[str]) -> FloatArray:
        return self.vectors_of(self._codes.numbers(batch))

    def close(self) -> None:
        self._codes.close()


def build(spec: SpecText, *, runtime: RuntimeName, threads: int, cache_dir: Path | None) -> Encoder:
    """``floats:CODES``, where CODES names an encoder of codes, most often the folder of a trained one."""
    if not spec.argument:
        raise ConfigError(f"{spec.text!r} names no encoder of codes; write for example 'floats:runs/h64'")
    codes = load_encoder(spec.text.removeprefix(FLOATS), runtime=runtime, threads=threads, cache_dir=cache_dir)
    try:
        return FloatsOfCodes(codes)
    except ConfigError:
        codes.close()
        raise
