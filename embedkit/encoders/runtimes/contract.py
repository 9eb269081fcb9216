"""The face of a runtime: arrays in, vectors out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy.typing as npt

    from embedkit.types import FloatArray

__all__ = ["Session"]


class Session(Protocol):
    """A loaded model. `run` may be called from `concurrency` threads at once with profit."""

    name: str
    concurrency: int

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> FloatArray:
        """The first output, ``(n, …)`` float32."""

    def close(self) -> None:
        """Release memory and threads."""
