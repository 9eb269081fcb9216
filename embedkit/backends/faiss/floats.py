"""Floats: an exact scan of mapped memory, and approximate indexes over positions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from embedkit.backends.contract import IndexSpec, SearchParams
from embedkit.backends.faiss import indexes, kernel
from embedkit.backends.faiss.kernel import Admitted, Found, Kernel, Order
from embedkit.types import Metric

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray, VectorArray

__all__ = ["FloatKernel"]

_GRAPHS = ("hnsw", "nsg")
_BLAS = 20  # queries from which FAISS multiplies matrices; below, its loop over rows with a selector is 3 x faster
_REFINED = 4  # times as many hits as are asked for that are put in order, where the index says refine


class FloatKernel(Kernel):
    """By inner product (of unit vectors: cosine) or squared Euclidean distance."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._lower = metric == "l2"

    def search(
        self,
        vectors: VectorArray,
        queries: VectorArray,
        k: int,
        admitted: Admitted | None,
        index: Any,
        spec: IndexSpec,
        params: SearchParams | None,
        order: Callable[[], Order | None],
    ) -> Found:
        del order
        if index is None:
            return self._scan(vectors, queries, k, admitted, 0)
        beside = self._scan(vectors, queries, k, admitted, index.ntotal)
        inside = self._inside(vectors, queries, k, admitted, index, spec, params or SearchParams())
        return kernel.merged([inside, beside], k, lower=self._lower) if beside.positions.size else inside

    def _inside(
        self,
        vectors: VectorArray,
        queries: VectorArray,
        k: int,
        admitted: Admitted | None,
        index: Any,
        spec: IndexSpec,
        params: SearchParams,
    ) -> Found:
        """Among the rows that an index covers; where its codes lose something, the vectors have the last word.

        A filter costs no hits: few rows are all compared; for more of them the index looks farther; and a question to
        which it knows fewer rows than there are is put to all of them.
        """
        again = indexes.rescored(spec, self._metric)
        most = max(1, index.ntotal)
        ask = min(k * (params.k_factor or (_REFINED if spec.refine else 1)) if again else k, most)
        inside = admitted.first(most) if admitted else None
        if inside is not None and self._are_few(inside, index, spec, ask, params):
            return self._among(vectors, inside, queries, k, most)
        found = self._looked_up(queries.view(np.float32), ask, inside, index, spec, params)
        found = self._rescored(vectors, queries, found, min(k, most)) if again else found
        count = inside.count if inside else most if spec.family in _GRAPHS else 0  # other knobs leave rows out at will
        return kernel.completed(found, count, lambda some, n: self._among(vectors, inside, queries[some], n, most))

    @staticmethod
    def _looked_up(
        queries: FloatArray, k: int, inside: Admitted | None, index: Any, spec: IndexSpec, params: SearchParams
    ) -> Found:
        """What an index says itself, of all its rows or of those inside a filter."""
        if inside is None:
            found = indexes.asked(index, spec, queries, k, params, None)
            if spec.family not in ("ivf", "imi"):
                return found
            look = partial(indexes.asked, index, spec, k=k, params=params, chosen=None)
            return kernel.farther(found, index.ntotal, lambda some, share: look(queries=queries[some], share=share))
        if indexes.takes_filters(index):
            chosen, _keep = kernel.selector(inside.mask)
            return indexes.asked(index, spec, queries, k, params, chosen, inside.share)
        return kernel.passed(lambda n: indexes.asked(index, spec, queries, n, params, None), k, inside.mask)

    @staticmethod
    def _are_few(inside: Admitted, index: Any, spec: IndexSpec, k: int, params: SearchParams) -> bool:
        """Whether comparing all rows that are admitted takes no longer than looking so much farther in the index."""
        if inside.rows is None or not indexes.takes_filters(index):
            return inside.rows is not None
        return inside.count <= indexes.compared(index, spec, k, params, inside.share)

    def _among(self, vectors: VectorArray, admitted: Admitted | None, queries: VectorArray, k: int, size: int) -> Found:
        """The exact k best of the first `size` rows that are admitted, which is all that `admitted` knows of."""
        if admitted is not None and admitted.rows is not None:
            return self._knn_of(vectors, admitted.rows, queries, k, 0, len(admitted.rows))
        return self._knn(vectors, admitted, queries, k, 0, size)

    def _rescored(self, vectors: VectorArray, queries: VectorArray, found: Found, k: int) -> Found:
        """The k best of the rows that were found, by the vectors themselves; each query has rows of its own."""
        values, positions = _room(len(queries), min(k, found.positions.shape[1]))
        self._by_rows(vectors, np.ascontiguousarray(found.positions), queries, values, positions, each=True)
        return Found(values, positions)

    def _scan(self, vectors: VectorArray, queries: VectorArray, k: int, admitted: Admitted | None, start: int) -> Found:
        """The exact k best of the rows from position `start` on that are admitted."""
        rows = admitted.rows if admitted else None
        part: Callable[[int, int], Found]
        if rows is None:
            part, first, last = partial(self._knn, vectors, admitted, queries, k), start, len(vectors)
        else:
            part, first, last = (
                partial(self._knn_of, vectors, rows, queries, k),
                int(rows.searchsorted(start)),
                len(rows),
            )
        return kernel.in_parts(part, first, last, queries.shape, k, lower=self._lower)

    def _knn(
        self, vectors: VectorArray, admitted: Admitted | None, queries: VectorArray, k: int, first: int, last: int
    ) -> Found:
        """Among the rows of a range."""
        values, positions = _room(len(queries), min(k, last - first))
        if not positions.size:
            return Found(values, positions)
        pointer = faiss.swig_ptr
        chosen, _keep = kernel.selector(admitted.mask[first:last] if admitted else None)
        if chosen is None and len(queries) < _BLAS:
            chosen = faiss.IDSelectorAll()
        sizes = (queries.shape[1], len(queries), last - first, positions.shape[1])
        common = (pointer(queries), pointer(vectors[first:last]), *sizes, pointer(values), pointer(positions))
        if self._lower:
            faiss.knn_L2sqr(*common, None, chosen)
        else:
            faiss.knn_inner_product(*common, chosen)
        if first:
            positions[positions >= 0] += first
        return Found(values, positions)

    def _knn_of(
        self, vectors: VectorArray, rows: IdArray, queries: VectorArray, k: int, first: int, last: int
    ) -> Found:
        """Among the rows at some of the positions `rows`."""
        values, positions = _room(len(queries), min(k, last - first))
        if not positions.size:
            return Found(values, positions)
        self._by_rows(vectors, rows[first:last], queries, values, positions, each=False)
        return Found(values, positions)

    def _by_rows(
        self,
        vectors: VectorArray,
        rows: IdArray,
        queries: VectorArray,
        values: FloatArray,
        positions: IdArray,
        *,
        each: bool,
    ) -> None:
        """Fill in the best of some rows: ``(m,)`` for all queries, or `each` its own ``(n, m)``, padded by -1."""
        pointer = faiss.swig_ptr
        search = faiss.knn_L2sqr_by_idx if self._lower else faiss.knn_inner_products_by_idx
        sizes = (queries.shape[1], len(queries), len(vectors), rows.shape[-1], positions.shape[1])
        step = rows.shape[-1] if each else 0
        given = (pointer(queries), pointer(vectors), pointer(rows))
        search(*given, *sizes, pointer(values), pointer(positions), step)

    def check(self, spec: IndexSpec, dim: int, rows: int) -> None:
        indexes.check(spec, dim, self._metric, rows)

    def needs(self, spec: IndexSpec, dim: int) -> int:
        return indexes.plan(spec, dim, self._metric, 0).needs

    def growth(self, spec: IndexSpec) -> float:
        return indexes.growth(spec)

    def build(self, spec: IndexSpec, vectors: VectorArray) -> Any:
        if spec == IndexSpec() or not len(vectors):
            return None
        return indexes.built(spec, self._metric, vectors.view(np.float32))

    def extend(self, index: Any, vectors: VectorArray) -> None:
        indexes.extend(index, vectors.view(np.float32))

    def _write(self, index: Any, path: str) -> None:
        faiss.write_index(index, path)

    def _read(self, path: str) -> Any:
        return faiss.read_index(path)


def _room(n: int, k: int) -> tuple[FloatArray, IdArray]:
    return np.empty((n, k), np.float32), np.full((n, k), -1, np.int64)
