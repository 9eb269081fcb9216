"""The files of one generation: ``vectors-N.f32`` (of codes, ``.u8``) and ``ids-N.i64``, appended and never rewritten.

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
    from embedkit.backends.contract import CollectionSpec
    from embedkit.types import IdArray, VectorArray

__all__ = ["Generation"]

_COPY = 65_536  # rows that are copied at a time


class Generation:
    """A pair of files, by its number."""

    def __init__(self, folder: Path, number: int, spec: CollectionSpec) -> None:
        self.number = number
        self._width = spec.width
        self._dtype = np.dtype(spec.dtype)
        self._vectors = folder / f"vectors-{number}.{'u8' if spec.kind == 'binary' else 'f32'}"
        self._ids = folder / f"ids-{number}.i64"

    @property
    def names(self) -> Sequence[str]:
        return self._vectors.name, self._ids.name

    def create(self) -> None:
        """Two empty files."""
        for path in (self._vectors, self._ids):
            path.write_bytes(b"")

    @property
    def _row(self) -> int:
        """Bytes of a vector."""
        return self._width * self._dtype.itemsize

    def append(self, at: int, ids: IdArray, vectors: VectorArray) -> None:
        """Put rows at position `at`, onto the disk."""
        _write(self._vectors, vectors, at * self._row)
        _write(self._ids, ids, at * 8)

    def copy(self, vectors: VectorArray, positions: IdArray) -> None:
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

    def map(self) -> VectorArray:
        """Every vector in the file, one a row, mapped and not read. Raises FileNotFoundError."""
        with self._vectors.open("rb") as file:
            rows = os.fstat(file.fileno()).st_size // self._row
            if rows == 0:
                return np.empty((0, self._width), self._dtype)
            view = mmap.mmap(file.fileno(), rows * self._row, access=mmap.ACCESS_READ)
        return np.frombuffer(view, self._dtype).reshape(rows, self._width)

    def ids(self, start: int, stop: int) -> IdArray:
        """The ids of a range of positions. Raises FileNotFoundError."""
        return np.fromfile(self._ids, np.int64, stop - start, offset=8 * start)


def _write(path: Path, rows: VectorArray | IdArray, at: int) -> None:
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
