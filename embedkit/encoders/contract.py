"""The contract of an encoder: what goes in, what comes out, and how it is identified."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from embedkit.codes import packed
from embedkit.errors import BadInput
from embedkit.types import Modality, VectorKind

if TYPE_CHECKING:
    from PIL.Image import Image

    from embedkit.types import ByteArray, FloatArray, VectorArray

__all__ = ["Encoder", "EncoderSpec", "RuntimeName"]

RuntimeName = Literal["auto", "onnx", "openvino", "torch"]


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """What an encoder is.

    `name`: the spec string that loads it again. `dim`: floats, or *bits* for ``binary`` (multiples of 8, 16 to 512).
    `input_size`: (height, width) of the pictures it takes, None for text.
    `fingerprint`: a hash over weights and preprocessing; two encoders with one fingerprint
    give the same vectors (to the agreement that runtimes promise: cosine >= 0.999).
    """

    name: str
    modalities: tuple[Modality, ...]
    dim: int
    fingerprint: str
    kind: VectorKind = "float"
    normalized: bool = True
    input_size: tuple[int, int] | None = None


class Encoder(ABC):
    """Turns prepared pictures or texts into vectors. Thread-safe.

    `concurrency`: how many threads may call `encode` at once with profit; each such call
    uses about ``cores / concurrency`` cores.
    """

    spec: EncoderSpec
    runtime: str
    concurrency: int = 1

    @abstractmethod
    def prepare(self, picture: bytes | Image) -> ByteArray:
        """Decode and fit one picture: ``(height, width, 3)`` uint8 RGB of `spec.input_size`.

        The same code runs in training and in serving. Raises BadImage saying what is wrong.
        Releases the GIL for most of its time, so that threads help.
        """

    @abstractmethod
    def encode(self, batch: ByteArray | Sequence[str]) -> VectorArray:
        """Vectors of prepared pictures ``(n, height, width, 3)`` uint8, or of n texts.

        Returns ``(n, dim)`` float32, L2-normalised if the spec says so, or ``(n, dim / 8)``
        uint8 with bits packed most significant first. A row does not depend on its batch.
        """

    @property
    def network(self) -> Encoder:
        """The encoder whose numbers these vectors are made of; encoders that have one network share its work."""
        return self

    def vectors_of(self, numbers: FloatArray) -> VectorArray:
        """What `encode` makes of the numbers of `network`, ``(n, dim)`` float32: rows as `encode` gives them."""
        return packed(numbers) if self.spec.kind == "binary" else numbers

    def numbers(self, batch: ByteArray | Sequence[str]) -> FloatArray:
        """What `encode` makes codes of, ``(n, dim)`` float32: a bit is set where its number is above 0.

        Of an encoder of floats they are its vectors. Raises BadInput for a binary encoder that knows its bits alone.
        """
        if self.spec.kind == "binary":
            raise BadInput(f"The encoder {self.spec.name!r} gives bits, and no numbers that they are the signs of")
        return cast("FloatArray", self.encode(batch))

    @abstractmethod
    def close(self) -> None:
        """Release the runtime's memory and threads."""
