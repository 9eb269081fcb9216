"""Binary codes in plain NumPy: bits packed into bytes, the most significant first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from embedkit.types import ByteArray, FloatArray, IdArray

__all__ = ["hamming", "nearest_first", "packed", "signs"]

_ONES = np.array([byte.bit_count() for byte in range(256)], np.uint8)


def hamming(queries: ByteArray, codes: ByteArray) -> npt.NDArray[np.int32]:
    """How many bits differ: ``(n, m)`` of ``(n, bytes)`` and ``(m, bytes)`` uint8.

    >>> hamming(np.array([[0b1010_0000]], np.uint8), np.array([[0], [0b1010_0001]], np.uint8)).tolist()
    [[2, 1]]
    """
    distances = np.empty((len(queries), len(codes)), np.int32)
    for row, query in enumerate(queries):
        distances[row] = _ONES[codes ^ query].sum(axis=1, dtype=np.int32)
    return distances


def signs(codes: ByteArray, bits: int) -> FloatArray:
    """``(n, bits)`` float32, 1 for a set bit and -1 for another: an inner product is ``bits - 2 * hamming``.

    >>> signs(np.array([[0b1100_0000]], np.uint8), 4).tolist()
    [[1.0, 1.0, -1.0, -1.0]]
    """
    return np.unpackbits(codes, axis=1, count=bits).astype(np.float32) * 2 - 1


def packed(values: npt.ArrayLike) -> ByteArray:
    """``(n, bits / 8)`` uint8 of ``(n, bits)`` numbers: a bit is set where the number is above 0.

    >>> packed([[1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0]]).tolist()
    [[192]]
    """
    return np.packbits(np.asarray(values) > 0, axis=1)


def nearest_first(distances: npt.NDArray[np.float32], ids: IdArray) -> npt.NDArray[np.intp]:
    """The order of each row, for `take_along_axis`: by distance, equal ones by id, NaN last."""
    return np.lexsort((ids, distances), axis=-1)
