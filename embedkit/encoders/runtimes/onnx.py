"""ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import onnxruntime

from embedkit.errors import DataCorrupt

if TYPE_CHECKING:
    import numpy.typing as npt

    from embedkit.types import FloatArray

__all__ = ["OnnxSession"]


class OnnxSession:
    """One thread a call and as many calls as cores: on small models faster than one call over all cores."""

    name = "onnx"

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.concurrency = threads or os.cpu_count() or 1
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise DataCorrupt(f"{path}: ONNX Runtime cannot load the model: {str(error).splitlines()[0]}") from error

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> FloatArray:
        return cast("FloatArray", self._session.run(None, dict(inputs))[0])

    def close(self) -> None:
        self._session = None
