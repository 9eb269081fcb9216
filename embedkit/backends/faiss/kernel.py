"""The search itself: an exact scan of mapped memory, and approximate indexes over positions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import numpy.typing as npt

from embedkit.backends.contract import IndexSpec, SearchParams
from embedkit.errors import ConfigError, DataCorrupt

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray

__all__ = ["Found", "build", "merge", "read_index", "scan", "search_index", "write_index"]

Mask = npt.NDArray[np.bool_]

_THREADS = os.cpu_count() or 1
_SPLIT = 4_000_000  # floats; a smaller scan is over before a second thread has started
_BLAS = 20  # queries from which FAISS multiplies matrices; below, its loop over rows with a selector is 3 x faster
_FEW = 0.02  # share of admitted rows below which copying them beats testing every row


@dataclass(frozen=True, slots=True)
class Found:
    """``(n, k)``: raw metric values and positions, best first, -1 where there are fewer."""

    values: FloatArray
    positions: IdArray


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="faiss-scan")


def scan(vectors: FloatArray, queries: FloatArray, k: int, metric: str, mask: Mask | None, offset: int = 0) -> Found:
    """The exact k best of the rows where `mask` holds; `offset` is the position of the first row."""
    work = vectors.size
    if mask is not None:
        admitted = np.flatnonzero(mask)
        work = len(admitted) * vectors.shape[1]
        if len(admitted) <= max(1_000, _FEW * len(mask)):
            found = _knn(np.ascontiguousarray(vectors[admitted]), queries, k, metric, None)
            positions = np.where(found.positions >= 0, admitted[found.positions] + offset if len(admitted) else -1, -1)
            return Found(found.values, positions.astype(np.int64))
    if len(queries) >= _THREADS or work < _SPLIT or _THREADS == 1:
        return _shifted(_knn(vectors, queries, k, metric, mask), offset)
    edges = np.linspace(0, len(vectors), _THREADS + 1).astype(int)
    parts = _pool().map(
        lambda a, b: _shifted(_knn(vectors[a:b], queries, k, metric, None if mask is None else mask[a:b]), offset + a),
        edges[:-1],
        edges[1:],
    )
    return merge(list(parts), k, metric)


def _shifted(found: Found, offset: int) -> Found:
    if offset == 0:
        return found
    return Found(found.values, np.where(found.positions >= 0, found.positions + offset, -1))


def _knn(vectors: FloatArray, queries: FloatArray, k: int, metric: str, mask: Mask | None) -> Found:
    n, dim = queries.shape
    k = min(k, len(vectors))
    values, positions = np.empty((n, k), np.float32), np.full((n, k), -1, np.int64)
    if k == 0:
        return Found(values, positions)
    pointer = faiss.swig_ptr
    selector, _keep = _selector(mask)
    if selector is None and n < _BLAS:
        selector = faiss.IDSelectorAll()
    common = (pointer(queries), pointer(vectors), dim, n, len(vectors), k, pointer(values), pointer(positions))
    if metric == "l2":
        faiss.knn_L2sqr(*common, None, selector)
    else:
        faiss.knn_inner_product(*common, selector)
    return Found(values, positions)


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


def search_index(index: Any, queries: FloatArray, k: int, mask: Mask | None, params: SearchParams | None) -> Found:
    """Search an index made by `build`, among the positions where `mask` holds."""
    selector, _keep = _selector(mask)
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
