"""The files of one generation: ``vectors-N.f32`` and ``ids-N.i64``, row after row, appended and never rewritten.

What counts is said by the row file. A crash leaves bytes behind the last row that counts, which the next write covers.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray

__all__ = ["Generation"]

_COPY = 65_536  # rows that are copied at a time


class Generation:
    """A pair of files, by its number."""

    def __init__(self, folder: Path, number: int, dim: int) -> None:
        self.number = number
        self._dim = dim
        self._vectors = folder / f"vectors-{number}.f32"
        self._ids = folder / f"ids-{number}.i64"

    @property
    def names(self) -> Sequence[str]:
        return self._vectors.name, self._ids.name

    def create(self) -> None:
        """Two empty files."""
        for path in (self._vectors, self._ids):
            path.write_bytes(b"")

    def append(self, at: int, ids: IdArray, vectors: FloatArray) -> None:
        """Put rows at position `at`, onto the disk."""
        _write(self._vectors, vectors, at * self._dim * 4)
        _write(self._ids, ids, at * 8)

    def copy(self, vectors: FloatArray, positions: IdArray) -> None:
        """Begin with rows of another generation, in order; `write_ids` says which they are."""
        with self._vectors.open("wb") as file:
            for start in range(0, len(positions), _COPY):
                file.write(np.ascontiguousarray(vectors[positions[start : start + _COPY]]).data)
            file.flush()
            os.fdatasync(file.fileno())

    def write_ids(self, ids: IdArray) -> None:
        """The ids from the first position on, -1 where there is no row."""
        self._ids.write_bytes(b"")
        _write(self._ids, ids, 0)

    def map(self) -> FloatArray:
        """Every vector in the file, ``(rows, dim)``, mapped and not read. Raises FileNotFoundError."""
        row = 4 * self._dim
        with self._vectors.open("rb") as file:
            rows = os.fstat(file.fileno()).st_size // row
            if rows == 0:
                return np.empty((0, self._dim), np.float32)
            view = mmap.mmap(file.fileno(), rows * row, access=mmap.ACCESS_READ)
        return np.frombuffer(view, np.float32).reshape(rows, self._dim)

    def ids(self, start: int, stop: int) -> IdArray:
        """The ids of a range of positions. Raises FileNotFoundError."""
        return np.fromfile(self._ids, np.int64, stop - start, offset=8 * start)


def _write(path: Path, rows: FloatArray | IdArray, at: int) -> None:
    if not len(rows):
        return
    data = np.ascontiguousarray(rows).data.cast("B")
    handle = os.open(path, os.O_RDWR)
    try:
        while data:
            written = os.pwrite(handle, data, at)
            data, at = data[written:], at + written
        os.fdatasync(handle)
    finally:
        os.close(handle)
