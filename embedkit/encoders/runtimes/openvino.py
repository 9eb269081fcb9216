"""OpenVINO on the CPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embedkit import plugins
from embedkit.errors import DataCorrupt

if TYPE_CHECKING:
    import numpy.typing as npt

    from embedkit.types import FloatArray

__all__ = ["OpenVinoSession"]


class OpenVinoSession:
    """A compiled model with one stream a core; each calling thread has its own request."""

    name = "openvino"

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        openvino = plugins.require("openvino", "openvino", needed_for="The runtime 'openvino'")
        self.concurrency = threads or os.cpu_count() or 1
        settings = {
            "INFERENCE_NUM_THREADS": self.concurrency,
            "NUM_STREAMS": self.concurrency,
            "INFERENCE_PRECISION_HINT": "f32",  # so that both runtimes give the vectors of one fingerprint
        }
        try:
            core = openvino.Core()
            self._model: Any = core.compile_model(str(path), "CPU", settings)
        except RuntimeError as error:
            raise DataCorrupt(f"{path}: OpenVINO cannot load the model: {str(error).splitlines()[0]}") from error
        self._local = threading.local()

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> FloatArray:
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._model.create_infer_request()
        results = request.infer(dict(inputs), share_inputs=True)
        return cast("FloatArray", np.array(results[0], np.float32))

    def close(self) -> None:
        self._local = threading.local()
        self._model = None
