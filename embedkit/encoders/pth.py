"""Reads the tensors of an old-style ``.pth`` file (before the zip format) without torch.

The file is a run of pickles. Only the handful of globals that describe tensors are allowed,
so a crafted file cannot run code.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.errors import DataCorrupt

__all__ = ["read_pth"]

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {"FloatStorage": np.float32, "LongStorage": np.int64, "HalfStorage": np.float16, "IntStorage": np.int32}

Array = npt.NDArray[Any]


class _Tensor:
    """A tensor whose storage comes later in the file."""

    def __init__(self, storage: str, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

    def read(self, storages: dict[str, Array]) -> Array:
        flat = storages[self.storage][self.offset :]
        strides = tuple(step * flat.itemsize for step in self.stride)
        return np.lib.stride_tricks.as_strided(flat, self.shape, strides).copy()


def _rebuild(storage: str, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(stride))


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BufferedIOBase, dtypes: dict[str, Any]) -> None:
        super().__init__(file)
        self._dtypes = dtypes

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Callable[..., Any] | str] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
            **{("torch", storage): storage for storage in _DTYPES},
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> str:
        _, storage, key, *_ = pid
        self._dtypes[str(key)] = _DTYPES[storage]
        return str(key)


def read_pth(path: Path) -> dict[str, Array]:
    """The state dict of a file. Raises DataCorrupt."""
    dtypes: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            if _Reader(file, {}).load() != _MAGIC:
                raise DataCorrupt(f"{path}: it is not an old-style .pth file")
            _Reader(file, {}).load()
            _Reader(file, {}).load()
            state = _Reader(file, dtypes).load()
            keys = _Reader(file, {}).load()
            storages = {str(key): _storage(file, dtypes[str(key)]) for key in keys}
        return {name: tensor.read(storages) for name, tensor in state.items()}
    except (OSError, pickle.UnpicklingError, KeyError, ValueError, EOFError, AttributeError) as error:
        raise DataCorrupt(
            f"{path}: the weights cannot be read ({error}); install the package that holds them again"
        ) from error


def _storage(file: io.BufferedIOBase, dtype: Any) -> Array:
    count = int.from_bytes(file.read(8), "little")
    return np.frombuffer(file.read(count * np.dtype(dtype).itemsize), dtype, count)
