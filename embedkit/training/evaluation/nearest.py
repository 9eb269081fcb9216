"""Exact nearest neighbours by cosine similarity, a block of queries at a time: never an n × n matrix.

Ties are broken by index, and the same vector gets the same score wherever it stands: duplicates are searched once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import BadInput

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray

__all__ = ["Block", "comparable", "nearest", "unit"]

_BLOCK = 4_096  # queries; FAISS itself goes on in smaller ones
_CELLS = 2**24  # scores that are held at once where FAISS is not asked
_HASHED = 2**20  # values that are hashed at once
_MOST = 2_048  # neighbours that FAISS is asked for
_SPARE = 2  # neighbours more than asked for, so that ties at the end are seen


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Neighbours of the queries from `start` on: `ids` (b, k) int64, `scores` (b, k) float32, best first."""

    start: int
    ids: IdArray
    scores: FloatArray


def unit(vectors: FloatArray) -> FloatArray:
    """Rows scaled to length 1; rows of zeros stay. Raises BadInput for values that are no numbers."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    if vectors.ndim != 2:
        raise BadInput(f"Vectors are a matrix (n, dim), not an array of shape {vectors.shape}")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        bad = int(np.flatnonzero(~np.isfinite(lengths[:, 0]))[0])
        raise BadInput(f"The vector of row {bad} has values that are no numbers; the model is broken")
    return np.asarray(vectors / np.maximum(lengths, np.float32(1e-12)), np.float32)


def comparable(vectors: FloatArray) -> FloatArray:
    """Vectors whose inner product orders as the cosine: of length 1, but codes of ±1 as they are.

    Products of whole numbers are exact; scaled, equal Hamming distances would differ in their last bit, and ties no
    longer go by index. Raises BadInput.
    """
    return np.ascontiguousarray(vectors, np.float32) if (np.abs(vectors) == 1).all() else unit(vectors)


def nearest(queries: FloatArray, gallery: FloatArray | None = None, *, k: int) -> Iterator[Block]:
    """The k nearest of every query by inner product, exact; of all the others if there is no gallery.

    Vectors are (n, dim) float32, of unit length for the cosine. Fewer than k come back when there are no more.
    """
    alone = gallery is None
    gallery = queries if gallery is None else gallery
    k = min(k, len(gallery) - alone)
    if k <= 0:
        return
    search = _Search(gallery, min(k + alone, len(gallery)))
    rows = _BLOCK if search.by_faiss else max(1, min(_BLOCK, _CELLS // len(gallery)))
    for start in range(0, len(queries), rows):
        ids, scores = search(queries[start : start + rows])
        if alone:
            ids, scores = _without_self(ids, scores, start)
        yield Block(start, ids[:, :k], scores[:, :k])


def _distinct(vectors: FloatArray) -> tuple[IdArray, IdArray] | None:
    """The first row of every distinct vector, in order, and which of them each row is; None if all are distinct."""
    hashed = _hashes(vectors)
    if len(np.unique(hashed)) == len(hashed):
        return None
    rows = np.ascontiguousarray(vectors + np.float32(0.0)).view(np.dtype((np.void, 4 * vectors.shape[1])))[:, 0]
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[inverse]


def _hashes(vectors: FloatArray) -> IdArray:
    """A number for each row, the same for the same row; much sooner sorted than the rows."""
    weights = np.random.default_rng(0).integers(1, 2**63, vectors.shape[1], np.uint64) | np.uint64(1)
    total = np.empty(len(vectors), np.uint64)
    step = max(1, _HASHED // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        bits = (vectors[start : start + step] + np.float32(0.0)).view(np.uint32)  # + 0.0 makes one of the two zeros
        total[start : start + step] = (bits * weights).sum(axis=1, dtype=np.uint64)
    return total.view(np.int64)


class _Search:
    """Top `k` of a gallery. Of equal vectors one is searched, and stands for its group."""

    def __init__(self, gallery: FloatArray, k: int) -> None:
        distinct = _distinct(gallery)
        self._gallery = np.ascontiguousarray(gallery if distinct is None else gallery[distinct[0]])
        self._member_of = None if distinct is None else distinct[1]
        self._groups: list[IdArray] = []
        if self._member_of is not None:
            members = np.argsort(self._member_of, kind="stable")
            self._sizes = np.bincount(self._member_of)
            self._groups = np.split(members, np.cumsum(self._sizes)[:-1])
            self._first = np.array([group[0] for group in self._groups], np.int64)
        self._k = k
        self._top = min(k, len(self._gallery))
        self.by_faiss = k + _SPARE <= min(_MOST, len(self._gallery) // 2)

    def __call__(self, queries: FloatArray) -> tuple[IdArray, FloatArray]:
        if self._k > _MOST:
            return _by_matrix(queries, self._gallery, self._k, self._member_of)
        ids, scores = self._by_faiss(queries) if self.by_faiss else _by_matrix(queries, self._gallery, self._top)
        return (ids, scores) if self._member_of is None else self._spread(ids, scores)

    def _by_faiss(self, queries: FloatArray) -> tuple[IdArray, FloatArray]:
        import faiss

        scores, ids = faiss.knn(
            np.ascontiguousarray(queries), self._gallery, self._top + _SPARE, metric=faiss.METRIC_INNER_PRODUCT
        )
        ties = np.flatnonzero((scores[:, 1:] == scores[:, :-1]).any(axis=1))  # FAISS leaves their order open
        if len(ties):
            order = np.lexsort((ids[ties], -scores[ties]))
            ids[ties] = np.take_along_axis(ids[ties], order, axis=1)
            scores[ties] = np.take_along_axis(scores[ties], order, axis=1)
            open_end = ties[scores[ties, self._top - 1] == scores[ties, -1]]
            step = max(1, _CELLS // len(self._gallery))
            for start in range(0, len(open_end), step):
                some = open_end[start : start + step]
                ids[some, : self._top], scores[some, : self._top] = _by_matrix(queries[some], self._gallery, self._top)
        return ids[:, : self._top].astype(np.int64, copy=False), scores[:, : self._top]

    def _spread(self, ids: IdArray, scores: FloatArray) -> tuple[IdArray, FloatArray]:
        """From distinct vectors to all that are equal to them."""
        every = np.empty((len(ids), self._k), np.int64)
        figures = np.empty((len(ids), self._k), np.float32)
        alone = np.zeros(len(ids), np.bool_)
        if ids.shape[1] == self._k:
            alone = (self._sizes[ids] == 1).all(axis=1)
            every[alone], figures[alone] = self._first[ids[alone]], scores[alone]
        for row in np.flatnonzero(~alone):
            parts = [self._groups[one][: self._k] for one in ids[row]]
            members = np.concatenate(parts)
            values = np.repeat(scores[row], [len(part) for part in parts])
            order = np.lexsort((members, -values))[: self._k]
            every[row], figures[row] = members[order], values[order]
        return every, figures


def _by_matrix(
    queries: FloatArray, gallery: FloatArray, k: int, member_of: IdArray | None = None
) -> tuple[IdArray, FloatArray]:
    """By all scores of a block; `member_of`: which row of the gallery each vector that is meant is equal to."""
    negative = -(queries @ gallery.T)
    if member_of is not None:
        negative = negative[:, member_of]
    if k < negative.shape[1]:
        ids = np.empty((len(queries), k), np.int64)
        worst = np.partition(negative, k - 1, axis=1)[:, k - 1]
        for row, values in enumerate(negative):
            near = np.flatnonzero(values <= worst[row])
            ids[row] = near[np.argsort(values[near], kind="stable")[:k]]
    else:
        ids = np.argsort(negative, axis=1, kind="stable")
    return ids, -np.take_along_axis(negative, ids, axis=1)


def _without_self(ids: IdArray, scores: FloatArray, start: int) -> tuple[IdArray, FloatArray]:
    """Each row without its own index; without its last entry where that is not among the neighbours."""
    own = ids == np.arange(start, start + len(ids))[:, None]
    own[~own.any(axis=1), -1] = True
    shape = (len(ids), ids.shape[1] - 1)
    return ids[~own].reshape(shape), scores[~own].reshape(shape)
