"""Files of vectors as the field publishes them, opened without reading them into memory.

`.fvecs`, `.ivecs`, `.bvecs` (http://corpus-texmex.irisa.fr): every vector is its dimension as an int32, then that many
float32, int32 or uint8. `.fbin`, `.u8bin`, `.i8bin`, `.ibin` (https://big-ann-benchmarks.com): two int32, how many
vectors and of how many numbers, then the rows one after another; an `.ibin` of ground truth has their distances behind
them. All are little-endian. `.npy` is NumPy's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.errors import BadSource

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["IDS", "VECTORS", "open_rows"]

_TEXMEX = {".fvecs": "<f4", ".ivecs": "<i4", ".bvecs": "u1"}
_BIG = {".fbin": "<f4", ".u8bin": "u1", ".i8bin": "i1", ".ibin": "<i4"}
VECTORS = (".fvecs", ".bvecs", ".fbin", ".u8bin", ".i8bin", ".npy")
IDS = (".ivecs", ".ibin", ".npy")
_MOST = 1_000_000  # numbers of a vector
_LOOKED_AT = 1_000  # rows whose header is compared


def open_rows(path: Path) -> npt.NDArray[Any]:
    """The rows ``(n, dim)`` of a file, mapped: float32, uint8, int8 or int32, as they are stored.

    Raises BadSource for a file that is not there, of another kind, with a broken header, or cut short.
    """
    kind = path.suffix.lower()
    if kind not in (*_TEXMEX, *_BIG, ".npy"):
        raise BadSource(f"{str(path)!r} is no file of vectors; known: {', '.join([*_TEXMEX, *_BIG, '.npy'])}")
    try:
        size = path.stat().st_size
        if size == 0:
            raise BadSource(f"{str(path)!r} is empty; fetch it again")
        if kind == ".npy":
            return _npy(path)
        return _texmex(path, size, np.dtype(_TEXMEX[kind])) if kind in _TEXMEX else _big(path, size, kind)
    except OSError as error:
        raise BadSource(f"{str(path)!r} cannot be read: {error.strerror or error}") from error


def _npy(path: Path) -> npt.NDArray[Any]:
    try:
        rows: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise BadSource(f"{str(path)!r} is no .npy of numbers: {error}") from error
    if rows.ndim != 2 or rows.dtype.kind not in "fiu":
        raise BadSource(
            f"{str(path)!r} holds {rows.dtype} of the shape {rows.shape}, not numbers of the shape (n, dim)"
        )
    return rows


def _texmex(path: Path, size: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    dim = int(np.fromfile(path, "<i4", 1)[0]) if size >= 4 else 0
    _check_dim(path, dim)
    record = 4 + dim * dtype.itemsize
    if size % record:
        raise BadSource(
            f"{str(path)!r} is broken: its first vector has {dim:,} numbers, which makes {record:,} bytes a vector, "
            f"and its {size:,} bytes are no whole number of them; fetch it again"
        )
    raw = np.memmap(path, np.uint8, "r").reshape(-1, record)
    for row in np.linspace(0, len(raw) - 1, min(len(raw), _LOOKED_AT)).astype(np.int64):
        if (told := int(raw[row, :4].view("<i4")[0])) != dim:
            raise BadSource(
                f"{str(path)!r} is broken: its first vector has {dim:,} numbers, and number {row:,} says {told:,}"
            )
    rows: npt.NDArray[Any] = raw[:, 4:].view(dtype)
    return rows


def _big(path: Path, size: int, kind: str) -> npt.NDArray[Any]:
    dtype = np.dtype(_BIG[kind])
    count, dim = (int(one) for one in np.fromfile(path, "<i4", 2)) if size >= 8 else (0, 0)
    _check_dim(path, dim)
    bytes_of_rows = count * dim * dtype.itemsize
    whole = (8 + bytes_of_rows, 8 + 2 * bytes_of_rows) if kind == ".ibin" else (8 + bytes_of_rows,)
    if count < 1 or size not in whole:
        raise BadSource(
            f"{str(path)!r} is broken: its header says {count:,} vectors of {dim:,} numbers, which makes "
            f"{whole[0]:,} bytes, and it has {size:,}; fetch it again"
        )
    return np.memmap(path, dtype, "r", offset=8, shape=(count, dim))


def _check_dim(path: Path, dim: int) -> None:
    if not 1 <= dim <= _MOST:
        raise BadSource(f"{str(path)!r} is no {path.suffix}: it begins with a vector of {dim:,} numbers")
