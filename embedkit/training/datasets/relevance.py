"""What is a right answer to what: the same label, or of pictures with several concepts, one in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedkit.training.datasets.contract import Split

if TYPE_CHECKING:
    from embedkit.training.datasets.contract import BoolArray
    from embedkit.types import IdArray

__all__ = ["Relevance"]

_CELLS = 2**26  # pairs that are held at once


class Relevance:
    """Which pictures of a gallery answer the queries. `gallery`: None where the queries search each other."""

    def __init__(self, query: Split, gallery: Split | None = None) -> None:
        against = query if gallery is None else gallery
        self._labels, self._others = query.labels, against.labels
        self._itself = gallery is None
        self._words: tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]] | None = None
        if query.concepts is not None and against.concepts is not None:
            self._query, self._against = query.concepts, against.concepts
            self._words = _packed(self._query), _packed(self._against)

    def __call__(self, rows: IdArray | slice, ids: IdArray) -> BoolArray:
        """``(b, k)``: whether the pictures `ids` ``(b, k)`` of the gallery answer the queries `rows` ``(b,)``."""
        if self._words is None:
            right: BoolArray = self._others[ids] == self._labels[rows, None]
            return right
        asked, stored = self._words
        shared: BoolArray = np.zeros(ids.shape, np.bool_)
        for word in range(asked.shape[1]):  # 64 concepts at a time
            shared |= (stored[ids, word] & asked[rows, None, word]) != 0
        return shared

    def counts(self) -> IdArray:
        """How many right answers there are to each query, itself not counted: ``(n,)`` int64."""
        if self._words is None:
            known, counts = np.unique(self._others, return_counts=True)
            place = np.minimum(np.searchsorted(known, self._labels), max(len(known) - 1, 0))
            found = np.where(known[place] == self._labels, counts[place], 0) if len(known) else self._labels * 0
            return found.astype(np.int64) - self._itself
        asked, stored = self._query.astype(np.float32), self._against.astype(np.float32).T
        step = max(1, _CELLS // max(1, stored.shape[1]))
        counts = np.zeros(len(asked), np.int64)
        for start in range(0, len(asked), step):
            counts[start : start + step] = np.count_nonzero(asked[start : start + step] @ stored, axis=1)
        return counts - self._query.any(axis=1) if self._itself else counts


def _packed(concepts: BoolArray) -> npt.NDArray[np.uint64]:
    """``(n, c)`` bool as ``(n, c / 64)`` words."""
    missing = -concepts.shape[1] % 64
    bits = np.packbits(np.pad(concepts, ((0, 0), (0, missing))), axis=1)
    return np.ascontiguousarray(bits).view(np.uint64)
