"""Binary codes: an exact scan of mapped memory, multi-index hashing, and approximate indexes over positions.

Of rows at the same distance the lower ids come first. FAISS prefers lower positions, which is the same as long as
ids ascend with them. Rows whose ids do not are searched apart, if they are few; if many, a second pass collects all
rows at the distance of the k-th.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from embedkit.backends.contract import IndexSpec, SearchParams
from embedkit.backends.faiss import kernel
from embedkit.backends.faiss.kernel import Admitted, Found, Kernel, Mask, Order
from embedkit.backends.indexes import Part, ef_under_filter, lists_of, nprobe_under_filter
from embedkit.codes import nearest_first

if TYPE_CHECKING:
    from embedkit.types import IdArray, VectorArray

__all__ = ["BitKernel"]

_PROBE = 256  # rows that are scanned while one entry of a hash table is looked up
_STRAYS = 16  # share of the rows, as a divisor, up to which those with ids out of order are searched apart
_COUNTED = 64 << 20  # bytes of the positions at every distance, for queries that are counted at once
_FEW = 16  # queries that are enough for all cores
_WIDE = 16  # share of the rows, as a divisor, up to which asking for more rows beats testing each one


class _Probing:
    """How many flips FAISS tries of a substring, which is a field of the index that all searches of it read.

    One that tries more than it asked for finds the same rows within its radius. So the field is set to the most that
    any search under way has asked for, and they run side by side.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: list[int] = []

    @contextmanager
    def up_to(self, index: Any, flips: int) -> Iterator[None]:
        """Within it the index tries so many flips at least."""
        with self._lock:
            self._asked.append(flips)
            index.nflip = max(self._asked)
        try:
            yield
        finally:
            with self._lock:
                self._asked.remove(flips)


class BitKernel(Kernel):
    """By Hamming distance."""

    def __init__(self) -> None:
        self._probing = _Probing()

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
        del spec
        with kernel.alone(queries.shape, len(vectors)):
            return self._search(vectors, queries, k, admitted, index, params, order())

    def _search(
        self,
        vectors: VectorArray,
        queries: VectorArray,
        k: int,
        admitted: Admitted | None,
        index: Any,
        params: SearchParams | None,
        order: Order | None,
    ) -> Found:
        if admitted is not None and admitted.rows is not None:
            return _among(vectors, queries, k, admitted.rows, order)
        mask = admitted.mask if admitted else None
        if index is None:
            return _exact(vectors, queries, k, mask, order)
        covered = index.ntotal
        beside = _exact(vectors, queries, k, mask, order, covered)
        if isinstance(index, faiss.IndexBinaryMultiHash):
            inside = self._probed(index, vectors[:covered], queries, k, mask, order)
        else:
            here = admitted.first(covered) if admitted else None
            inside = _of_index(index, queries, k, here, params)
            inner = here.mask if here else None
            inside = kernel.completed(
                inside,
                here.count if here else covered,
                lambda some, n: _exact(vectors[:covered], queries[some], n, inner, order),
            )
        return _cut(Found.joined([inside, beside]), k, order)

    def _probed(
        self, index: Any, codes: VectorArray, queries: VectorArray, k: int, mask: Mask | None, order: Order | None
    ) -> Found:
        """Multi-index hashing (Norouzi 2012), exactly.

        A code within ``tables * (flips + 1) - 1`` bits of the query differs from it by at most `flips` bits in
        one of the substrings at least, so one more flip is tried until k rows lie within. Where that would take
        longer than a scan, the rows are scanned.
        """
        found = Found(*_room(len(queries), min(k, len(codes))))
        left = np.arange(len(queries))
        for flips in _worthwhile(index):
            near = self._within(index, queries[left], flips, mask)
            wanting = []
            for query, (values, positions) in zip(left.tolist(), near, strict=True):
                if len(positions) >= found.positions.shape[1]:
                    _put(found, query, values, positions, order)
                else:
                    wanting.append(query)
            left = np.array(wanting, np.int64)
            if not len(left):
                return found
        rest = _exact(codes, queries[left], k, mask[: len(codes)] if mask is not None else None, order)
        width = found.positions.shape[1]  # rows out of order are searched apart, which adds columns without a row
        found.values[left], found.positions[left] = rest.values[:, :width], rest.positions[:, :width]
        return found

    def _within(self, index: Any, queries: VectorArray, flips: int, mask: Mask | None) -> Iterator[tuple[Any, IdArray]]:
        with self._probing.up_to(index, flips):
            limits, values, positions = index.range_search(_padded(queries), index.nhash * (flips + 1))
        return _pieces(limits, values, positions, mask)

    def check(self, spec: IndexSpec, dim: int, rows: int) -> None:
        del dim
        _params(spec.main, rows)

    def needs(self, spec: IndexSpec, dim: int) -> int:
        del dim
        return spec.main.number("nlist", 1, 0, 1_000_000) if spec.family == "ivf" else 0

    def growth(self, spec: IndexSpec) -> float:
        return 4.0 if spec.family == "ivf" else math.inf

    def build(self, spec: IndexSpec, vectors: VectorArray) -> Any:
        if spec.family == "flat" or not len(vectors):
            return None
        params = _params(spec.main, len(vectors))
        bits = 8 * vectors.shape[1]
        if spec.family == "hnsw":
            index = faiss.IndexBinaryHNSW(bits, params["m"])
            index.hnsw.efConstruction = params["ef_construction"]
        elif spec.family == "multihash":
            tables = min(params["tables"] or _tables(bits, len(vectors)), bits)
            index = faiss.IndexBinaryMultiHash(bits, tables, min(32, bits // tables))
        else:
            lists = params["nlist"]
            index = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(bits), bits, lists)
            index.cp.min_points_per_centroid = 1
            index.train(kernel.sample(vectors, 256 * lists))
        self.extend(index, vectors)
        return index

    def extend(self, index: Any, vectors: VectorArray) -> None:
        codes = vectors.view(np.uint8)
        index.add(_padded(codes) if isinstance(index, faiss.IndexBinaryMultiHash) else np.ascontiguousarray(codes))

    def _write(self, index: Any, path: str) -> None:
        faiss.write_index_binary(index, path)

    def _read(self, path: str) -> Any:
        return faiss.read_index_binary(path)


def _params(part: Part, rows: int) -> dict[str, int]:
    """The parameters of an index with their defaults. Raises ConfigError."""
    if part.name == "hnsw":
        part.only("m", "ef_construction")
        return {"m": part.number("m", 16, 2, 128), "ef_construction": part.number("ef_construction", 200, 8, 4_096)}
    if part.name == "multihash":
        return {"tables": part.only("tables").number("tables", 0, 0, 4_096)}
    if part.name == "flat":
        part.only()
        return {}
    return {"nlist": lists_of(part.only("nlist"), rows)}


def _room(n: int, k: int) -> tuple[Any, IdArray]:
    return np.full((n, k), np.inf, np.float32), np.full((n, k), -1, np.int64)


def _scan(codes: VectorArray, mask: Mask | None, queries: VectorArray, k: int, first: int, last: int) -> Found:
    """The k nearest of a range, equal ones by position."""
    values = np.empty((len(queries), min(k, last - first)), np.int32)
    positions = np.full(values.shape, -1, np.int64)
    if positions.size:
        chosen, _keep = kernel.selector(mask[first:last] if mask is not None else None)
        buckets = 8 * codes.shape[1] + 1  # FAISS keeps as many times k positions for each query that it is given
        at_once = _COUNTED // (buckets * positions[0].nbytes)
        if at_once < min(_FEW, len(queries)):
            _by_heap(codes[first:last], chosen, queries, values, positions)
        else:
            for start in range(0, len(queries), at_once):
                part = slice(start, start + at_once)
                _by_counting(codes[first:last], chosen, queries[part], values[part], positions[part])
        if first:
            positions[positions >= 0] += first
    return Found(values.astype(np.float32), positions)


def _by_counting(codes: VectorArray, chosen: Any, queries: VectorArray, values: Any, positions: IdArray) -> None:
    """Fill in the nearest by how many there are at each distance, up to 1.6 times as fast as a heap."""
    pointer = faiss.swig_ptr
    sizes = (len(queries), len(codes), values.shape[1], codes.shape[1])
    faiss.hammings_knn_mc(pointer(queries), pointer(codes), *sizes, pointer(values), pointer(positions), chosen)


def _by_heap(codes: VectorArray, chosen: Any, queries: VectorArray, values: Any, positions: IdArray) -> None:
    """Fill in the nearest, however many."""
    pointer = faiss.swig_ptr
    heap = faiss.int_maxheap_array_t()
    heap.nh, heap.k = values.shape
    heap.val, heap.ids = pointer(values), pointer(positions)
    sort = 1
    faiss.hammings_knn_hc(heap, pointer(queries), pointer(codes), *codes.shape, sort, faiss.EXACT_TOPK, chosen)


def _by_position(codes: VectorArray, queries: VectorArray, k: int, mask: Mask | None, start: int) -> Found:
    """The k nearest of the rows from `start` on that a mask admits, equal ones by position."""
    near = _untested(codes, queries, k, mask, start) if mask is not None else None
    if near is not None:
        return near.taken(np.argsort(near.positions < 0, axis=1, kind="stable")[:, :k])
    part = partial(_scan, codes, mask, queries, k)
    return kernel.in_parts(part, start, len(codes), queries.shape, k, lower=True)


def _untested(codes: VectorArray, queries: VectorArray, k: int, mask: Mask, start: int) -> Found | None:
    """The nearest rows, k or more of them that a mask admits, and -1 for the others; None where there may be too few.

    To test a row takes FAISS several times as long as to compare it, so the nearest are asked for untested.
    """
    ask = kernel.more(k, mask[start:])
    if ask * _WIDE > len(codes) - start:
        return None
    part = partial(_scan, codes, None, queries, ask)
    near = kernel.in_parts(part, start, len(codes), queries.shape, ask, lower=True)
    good = mask[near.positions]
    return Found(near.values, np.where(good, near.positions, -1)) if bool((good.sum(axis=1) >= k).all()) else None


def _exact(
    codes: VectorArray, queries: VectorArray, k: int, mask: Mask | None, order: Order | None, start: int = 0
) -> Found:
    """The exact k nearest of the rows from position `start` on that a mask admits, equal ones by id."""
    if order is None:
        return _by_position(codes, queries, k, mask, start)
    strays = order.strays[(order.strays >= start) & (order.strays < len(codes))]
    if len(strays) * _STRAYS <= len(codes) - start:
        strays = strays if mask is None else strays[mask[strays]]
        calm = order.calm[: len(codes)] if mask is None else mask & order.calm[: len(codes)]
        near = _untested(codes, queries, k, calm, start) or _by_position(codes, queries, k, calm, start)
        return _cut(Found.joined([near, _of_rows(codes, queries, k, strays)]), k, order)
    found = _by_position(codes, queries, k, mask, start)
    if not found.positions.size:
        return found
    furthest = np.where(found.positions[:, -1] >= 0, found.values[:, -1], 8 * codes.shape[1]).astype(int)
    for distance in np.unique(furthest).tolist():
        asking = np.flatnonzero(furthest == distance)
        for query, (values, positions) in zip(
            asking.tolist(), _closer(codes, queries[asking], distance, mask, start), strict=True
        ):
            _put(found, query, values, positions, order)
    return found


def _closer(
    codes: VectorArray, queries: VectorArray, distance: int, mask: Mask | None, start: int
) -> Iterator[tuple[Any, IdArray]]:
    """By query: distances and positions of all rows from `start` on up to a distance."""
    pointer = faiss.swig_ptr
    result = faiss.RangeSearchResult(len(queries))
    sizes = (len(queries), len(codes) - start, distance + 1, codes.shape[1])
    faiss.hamming_range_search(pointer(queries), pointer(codes[start:]), *sizes, result)
    limits = faiss.rev_swig_ptr(result.lims, len(queries) + 1).copy()
    values = faiss.rev_swig_ptr(result.distances, int(limits[-1])).copy()
    positions = faiss.rev_swig_ptr(result.labels, int(limits[-1])).copy()
    return _pieces(limits, values, positions + start, mask)


def _pieces(limits: Any, values: Any, positions: IdArray, mask: Mask | None) -> Iterator[tuple[Any, IdArray]]:
    """What FAISS found in a radius and a mask admits, query by query."""
    for first, last in itertools.pairwise(limits.tolist()):
        part = positions[first:last]
        good = slice(None) if mask is None else mask[part]
        yield values[first:last][good], part[good]


def _put(found: Found, query: int, values: Any, positions: IdArray, order: Order | None) -> None:
    """The nearest of these rows become the answer to a query."""
    width = found.positions.shape[1]
    best = nearest_first(values, positions if order is None else order.ids[positions])[:width]
    found.values[query, : len(best)], found.positions[query, : len(best)] = values[best], positions[best]


def _cut(found: Found, k: int, order: Order | None) -> Found:
    """The k nearest, equal ones by id."""
    there = found.positions >= 0
    known = found.positions if order is None else order.ids[np.where(there, found.positions, 0)]
    best = nearest_first(np.where(there, found.values, np.inf), known)[:, :k]
    return found.taken(best)


def _among(codes: VectorArray, queries: VectorArray, k: int, rows: IdArray, order: Order | None) -> Found:
    """The exact k nearest of a few rows, given by ascending positions, equal ones by id."""
    return _of_rows(codes, queries, k, rows if order is None else order.by_id(rows))


def _of_rows(codes: VectorArray, queries: VectorArray, k: int, rows: IdArray) -> Found:
    """The exact k nearest of a few rows, copied together in the order in which equal ones come."""
    found = _by_position(codes[rows], queries, k, None, 0)
    return Found(found.values, rows[found.positions])


def _of_index(
    index: Any, queries: VectorArray, k: int, admitted: Admitted | None, params: SearchParams | None
) -> Found:
    """Among the rows that an approximate index covers; the fewer are admitted, the farther it looks."""
    k, share = min(k, index.ntotal), admitted.share if admitted else 1.0
    if isinstance(index, faiss.IndexBinaryHNSW):
        chosen, _keep = kernel.selector(admitted.mask if admitted else None)
        far = min(ef_under_filter(max((params and params.ef) or 64, k), k, share), index.ntotal)
        return _as_found(*index.search(queries, k, params=faiss.SearchParametersHNSW(sel=chosen, efSearch=far)))
    if admitted is not None:
        return kernel.passed(lambda n: _of_lists(index, queries, n, params, share), k, admitted.mask)
    found = _of_lists(index, queries, k, params, 1.0)
    return kernel.farther(found, index.ntotal, lambda some, less: _of_lists(index, queries[some], k, params, less))


def _of_lists(index: Any, queries: VectorArray, k: int, params: SearchParams | None, share: float) -> Found:
    probes = min(nprobe_under_filter(kernel.probes_of(index, params), share), index.nlist)
    return _as_found(*index.search(queries, k, params=faiss.SearchParametersIVF(nprobe=probes)))


def _as_found(values: Any, positions: IdArray) -> Found:
    return Found(values.astype(np.float32), positions)


def _worthwhile(index: Any) -> Iterator[int]:
    """Flips of a substring, from none on, as long as looking up is faster than a scan."""
    lookups = 0
    for flips in range(index.b + 1):
        lookups += index.nhash * math.comb(index.b, flips)
        if lookups * (1 + index.ntotal / 2**index.b) * _PROBE > index.ntotal:
            return
        yield flips


def _tables(bits: int, rows: int) -> int:
    """Norouzi's choice: substrings of about log2(rows) bits."""
    return max(1, round(bits / max(8.0, math.log2(rows))))


def _padded(codes: VectorArray) -> VectorArray:
    """A copy with room behind it: FAISS reads a substring as eight bytes, wherever it begins."""
    room = np.zeros(codes.size + 8, np.uint8)
    room[: codes.size] = codes.ravel()
    return room[: codes.size].reshape(codes.shape)
