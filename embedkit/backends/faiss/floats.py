"""Floats: an exact scan of mapped memory, and approximate indexes over positions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from embedkit.backends.contract import IndexSpec, SearchParams
from embedkit.backends.faiss import kernel
from embedkit.backends.faiss.kernel import Admitted, Found, Kernel
from embedkit.types import Metric

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray, VectorArray

__all__ = ["FloatKernel"]

_BLAS = 20  # queries from which FAISS multiplies matrices; below, its loop over rows with a selector is 3 x faster
_PARAMS: dict[str, kernel.Params] = {
    "flat": {},
    "hnsw": {"m": (16, 2, 128), "ef_construction": (200, 8, 4_096)},
    "ivf": {"nlist": (0, 0, 1_000_000)},
}


class FloatKernel(Kernel):
    """By inner product (of unit vectors: cosine) or squared Euclidean distance."""

    def __init__(self, metric: Metric) -> None:
        self._lower = metric == "l2"

    def search(
        self,
        vectors: VectorArray,
        queries: VectorArray,
        k: int,
        admitted: Admitted | None,
        index: Any,
        params: SearchParams | None,
        ids: Callable[[], IdArray | None],
    ) -> Found:
        del ids
        if index is None:
            return self._scan(vectors, queries, k, admitted, 0)
        parts = [_of_index(index, queries, k, admitted, params)]
        parts.append(self._scan(vectors, queries, k, admitted, index.ntotal))
        return kernel.merged(parts, k, lower=self._lower)

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
        pointer = faiss.swig_ptr
        search = faiss.knn_L2sqr_by_idx if self._lower else faiss.knn_inner_products_by_idx
        sizes = (queries.shape[1], len(queries), len(vectors), last - first, positions.shape[1])
        every = 0  # queries have the same rows
        search(
            pointer(queries),
            pointer(vectors),
            pointer(rows[first:last]),
            *sizes,
            pointer(values),
            pointer(positions),
            every,
        )
        return Found(values, positions)

    def build(self, spec: IndexSpec, vectors: VectorArray) -> Any:
        params = kernel.checked_params(spec, _PARAMS)
        if spec.family == "flat" or not len(vectors):
            return None
        kind = faiss.METRIC_L2 if self._lower else faiss.METRIC_INNER_PRODUCT
        dim = vectors.shape[1]
        if spec.family == "hnsw":
            index = faiss.IndexHNSWFlat(dim, params["m"], kind)
            index.hnsw.efConstruction = params["ef_construction"]
        else:
            lists = kernel.lists_of(params["nlist"], len(vectors))
            index = faiss.IndexIVFFlat(faiss.IndexFlat(dim, kind), dim, lists, kind)
            index.cp.min_points_per_centroid = 1
            index.train(kernel.sample(vectors, 256 * lists))
        index.add(np.ascontiguousarray(vectors))
        return index

    def _write(self, index: Any, path: str) -> None:
        faiss.write_index(index, path)

    def _read(self, path: str) -> Any:
        return faiss.read_index(path)


def _room(n: int, k: int) -> tuple[FloatArray, IdArray]:
    return np.empty((n, k), np.float32), np.full((n, k), -1, np.int64)


def _of_index(
    index: Any, queries: VectorArray, k: int, admitted: Admitted | None, params: SearchParams | None
) -> Found:
    """Among the rows that an index covers."""
    chosen, _keep = kernel.selector(admitted.mask if admitted else None)
    k = max(1, min(k, index.ntotal))
    if isinstance(index, faiss.IndexHNSW):
        ef = (params and params.ef) or 64
        native = faiss.SearchParametersHNSW(sel=chosen, efSearch=max(ef, k))
    else:
        native = faiss.SearchParametersIVF(sel=chosen, nprobe=kernel.probes_of(index, params))
    values, positions = index.search(queries, k, params=native)
    return Found(values, positions)
