"""What answers what: the same label, or of pictures of several concepts, one in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedkit.training.datasets.contract import DataSet

if TYPE_CHECKING:
    from embedkit.training.datasets.contract import BoolArray
    from embedkit.types import IdArray

__all__ = ["Relevance", "relevance_of"]

_CELLS = 2**24  # pairs that are held at once


class Relevance:
    """Which pictures of a gallery answer the queries.

    `labels`: (n,) of the queries, `concepts` (n, c) bool where they have several. `against`, `against_concepts`: of the
    gallery; None where the queries search each other.
    """

    def __init__(
        self,
        labels: IdArray,
        against: IdArray | None = None,
        *,
        concepts: BoolArray | None = None,
        against_concepts: BoolArray | None = None,
    ) -> None:
        self._itself = against is None
        self._labels, self._against = labels, labels if against is None else against
        self._concepts: tuple[BoolArray, BoolArray] | None = None
        if concepts is not None:
            self._concepts = concepts, concepts if against_concepts is None else against_concepts
            self._asked, self._stored = (_words(part) for part in self._concepts)

    def __call__(self, rows: slice, ids: IdArray) -> BoolArray:
        """Whether the pictures `ids` (b, k) of the gallery answer the queries of some rows: (b, k) bool."""
        if self._concepts is None:
            right: BoolArray = self._against[ids] == self._labels[rows, None]
            return right
        shared = np.zeros(ids.shape, np.bool_)
        for asked, stored in zip(self._asked.T, self._stored.T, strict=True):  # 64 concepts at a time
            shared |= (stored[ids] & asked[rows, None]) != 0
        return shared

    def counts(self) -> IdArray:
        """How many answers each query has, itself left out: (n,) int64."""
        if self._concepts is None:
            return _occurrences(self._labels, self._against) - self._itself
        asked, stored = (part.astype(np.float32) for part in self._concepts)
        found = np.zeros(len(asked), np.int64)
        step = max(1, _CELLS // max(1, len(stored)))
        for start in range(0, len(asked), step):
            found[start : start + step] = np.count_nonzero(asked[start : start + step] @ stored.T, axis=1)
        return found - (self._concepts[0].any(axis=1) & self._itself)


def relevance_of(data: DataSet) -> Relevance:
    """Between the query split and the gallery of a data set, or within the query split."""
    query, gallery = data.query, data.gallery
    if gallery is None:
        return Relevance(query.labels, concepts=query.concepts)
    return Relevance(query.labels, gallery.labels, concepts=query.concepts, against_concepts=gallery.concepts)


def _words(concepts: BoolArray) -> npt.NDArray[np.uint64]:
    """(n, c) bool as (n, w) words of 64 bits."""
    filled = np.pad(concepts, ((0, 0), (0, -concepts.shape[1] % 64)))
    return np.ascontiguousarray(np.packbits(filled, axis=1)).view(np.uint64)


def _occurrences(labels: IdArray, against: IdArray) -> IdArray:
    """How often each label occurs in the gallery."""
    known, counts = np.unique(against, return_counts=True)
    if not len(known):
        return np.zeros(len(labels), np.int64)
    place = np.minimum(np.searchsorted(known, labels), len(known) - 1)
    return np.where(known[place] == labels, counts[place], 0)
