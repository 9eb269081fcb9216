"""The search itself: an exact scan of mapped memory, and approximate indexes over positions."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import numpy.typing as npt

from embedkit.backends.contract import IndexSpec, SearchParams
from embedkit.errors import ConfigError, DataCorrupt

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray

__all__ = ["Admitted", "Found", "build", "merge", "read_index", "scan", "search_index", "write_index"]

Mask = npt.NDArray[np.bool_]

_THREADS = os.cpu_count() or 1
_SPLIT = 4_000_000  # floats; a smaller scan is over before a second thread has started
_BLAS = 20  # queries from which FAISS multiplies matrices; below, its loop over rows with a selector is 3 x faster
_FEW = 0.25  # share of admitted rows up to which going through their positions beats testing every row


@dataclass(frozen=True, slots=True)
class Found:
    """``(n, k)``: raw metric values and positions, best first, -1 where there are fewer."""

    values: FloatArray
    positions: IdArray


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="faiss-scan")


@dataclass(frozen=True, slots=True)
class Admitted:
    """The rows that a search may find, by position. `rows`: ascending, None where they are many."""

    mask: Mask
    count: int
    rows: IdArray | None

    @classmethod
    def of(cls, mask: Mask) -> Admitted:
        count = int(np.count_nonzero(mask))
        return cls(mask, count, np.flatnonzero(mask) if count <= _FEW * len(mask) else None)


def scan(
    vectors: FloatArray, queries: FloatArray, k: int, metric: str, admitted: Admitted | None, start: int = 0
) -> Found:
    """The exact k best of the rows from position `start` on that are admitted; None admits all."""
    rows = admitted.rows if admitted else None
    part: Callable[[int, int], Found]
    if rows is None:
        part, first, last = partial(_knn, vectors, admitted, queries, k, metric), start, len(vectors)
    else:
        part, first, last = (
            partial(_knn_of, vectors, rows, queries, k, metric),
            int(rows.searchsorted(start)),
            len(rows),
        )
    if len(queries) >= _THREADS or (last - first) * vectors.shape[1] < _SPLIT or _THREADS == 1:
        return part(first, last)
    edges = np.linspace(first, last, _THREADS + 1).astype(int).tolist()
    return merge(list(_pool().map(part, edges[:-1], edges[1:])), k, metric)


def _knn(
    vectors: FloatArray, admitted: Admitted | None, queries: FloatArray, k: int, metric: str, first: int, last: int
) -> Found:
    """Among the rows of a range."""
    values, positions = _room(len(queries), min(k, last - first))
    if not positions.size:
        return Found(values, positions)
    pointer = faiss.swig_ptr
    selector, _keep = _selector(admitted.mask[first:last] if admitted else None)
    if selector is None and len(queries) < _BLAS:
        selector = faiss.IDSelectorAll()
    sizes = (queries.shape[1], len(queries), last - first, positions.shape[1])
    common = (pointer(queries), pointer(vectors[first:last]), *sizes, pointer(values), pointer(positions))
    if metric == "l2":
        faiss.knn_L2sqr(*common, None, selector)
    else:
        faiss.knn_inner_product(*common, selector)
    if first:
        positions[positions >= 0] += first
    return Found(values, positions)


def _knn_of(
    vectors: FloatArray, rows: IdArray, queries: FloatArray, k: int, metric: str, first: int, last: int
) -> Found:
    """Among the rows at some of the positions `rows`."""
    values, positions = _room(len(queries), min(k, last - first))
    if not positions.size:
        return Found(values, positions)
    pointer = faiss.swig_ptr
    search = faiss.knn_L2sqr_by_idx if metric == "l2" else faiss.knn_inner_products_by_idx
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


def _room(n: int, k: int) -> tuple[FloatArray, IdArray]:
    return np.empty((n, k), np.float32), np.full((n, k), -1, np.int64)


def _selector(mask: Mask | None) -> tuple[Any, Any]:
    """FAISS's view of a mask, and the memory that must outlive it."""
    if mask is None:
        return None, None
    bits = np.packbits(mask, bitorder="little")
    return faiss.IDSelectorBitmap(len(mask), faiss.swig_ptr(bits)), bits


def merge(parts: Sequence[Found], k: int, metric: str) -> Found:
    """The k best of several answers to the same queries."""
    values = np.concatenate([part.values for part in parts], axis=1)
    positions = np.concatenate([part.positions for part in parts], axis=1)
    worth = np.where(positions >= 0, values if metric != "l2" else -values, -np.inf)
    best = np.argsort(-worth, axis=1, kind="stable")[:, :k]
    return Found(np.take_along_axis(values, best, axis=1), np.take_along_axis(positions, best, axis=1))


_PARAMS: dict[str, dict[str, tuple[int, int, int]]] = {
    "flat": {},
    "hnsw": {"m": (16, 2, 128), "ef_construction": (200, 8, 4_096)},
    "ivf": {"nlist": (0, 0, 1_000_000)},
}


def _params(spec: IndexSpec) -> dict[str, int]:
    known = _PARAMS[spec.family]
    for name, value in spec.params.items():
        if name not in known:
            raise ConfigError(
                f"The index {spec.family!r} has no parameter {name!r}; known: {', '.join(known) or 'none'}"
            )
        low, high = known[name][1:]
        if not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(f"{name}={value} of the index {spec.family!r} is not a whole number of {low} to {high}")
    return {name: int(spec.params.get(name, default)) for name, (default, _, _) in known.items()}


def build(spec: IndexSpec, vectors: FloatArray, metric: str) -> Any:
    """A FAISS index over every row, whose labels are positions; None for ``flat`` and where there are no rows.

    Raises ConfigError for a bad parameter.
    """
    params = _params(spec)
    if spec.family == "flat" or not len(vectors):
        return None
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    dim = vectors.shape[1]
    if spec.family == "hnsw":
        index = faiss.IndexHNSWFlat(dim, params["m"], kind)
        index.hnsw.efConstruction = params["ef_construction"]
    else:
        lists = min(params["nlist"] or max(1, round(4 * len(vectors) ** 0.5)), len(vectors))
        index = faiss.IndexIVFFlat(faiss.IndexFlat(dim, kind), dim, lists, kind)
        index.cp.min_points_per_centroid = 1
        index.train(_sample(vectors, 256 * lists))
    index.add(np.ascontiguousarray(vectors))
    return index


def _sample(vectors: FloatArray, count: int) -> FloatArray:
    if len(vectors) <= count:
        return np.ascontiguousarray(vectors)
    chosen = np.random.default_rng(0).choice(len(vectors), count, replace=False)
    return np.ascontiguousarray(vectors[np.sort(chosen)])


def search_index(
    index: Any, queries: FloatArray, k: int, admitted: Admitted | None, params: SearchParams | None
) -> Found:
    """Search an index made by `build`, among the rows that are admitted; None admits all."""
    selector, _keep = _selector(admitted.mask if admitted else None)
    k = max(1, min(k, index.ntotal))
    if isinstance(index, faiss.IndexHNSW):
        ef = (params and params.ef) or 64
        native = faiss.SearchParametersHNSW(sel=selector, efSearch=max(ef, k))
    else:
        probes = (params and params.nprobe) or max(1, round(index.nlist**0.5))
        native = faiss.SearchParametersIVF(sel=selector, nprobe=min(probes, index.nlist))
    values, positions = index.search(queries, k, params=native)
    return Found(values, positions)


def write_index(index: Any, path: Path) -> None:
    """Write beside, then move: a crash leaves the old file or the new one."""
    draft = path.with_suffix(".part")
    faiss.write_index(index, str(draft))
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(draft, path)


def read_index(path: Path) -> Any:
    """Raises DataCorrupt."""
    try:
        return faiss.read_index(str(path))  # already of its own class; `downcast_index` would not keep it alive
    except RuntimeError as error:
        raise DataCorrupt(f"{path}: FAISS cannot read the index; build it again") from error
