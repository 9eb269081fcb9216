"""Indexes of floats: from an IndexSpec to FAISS, by its factory strings, and how each kind of them is asked."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from embedkit.backends.contract import IndexSpec, SearchParams
from embedkit.backends.faiss import kernel
from embedkit.backends.faiss.kernel import Found
from embedkit.backends.indexes import Part, ef_under_filter, lists_of, nprobe_under_filter, pieces_of
from embedkit.errors import ConfigError, UnsupportedByBackend
from embedkit.types import Metric

if TYPE_CHECKING:
    from embedkit.types import FloatArray

__all__ = ["Plan", "asked", "built", "check", "extend", "growth", "plan", "rescored", "takes_filters"]

_EACH = 256  # vectors that each centroid is learned from, at most
_LEAST, _MOST = 65_536, 1_000_000  # vectors that anything is learned from, if there are so many
_EF = 64
_CODES = 0.1  # what comparing a code costs beside a vector, as the two are read from memory
_IN_A_ROW = 0.3  # and a row of a list beside one that lies anywhere
_OPQ = 256  # centroids of each piece that a rotation is learned with
_NSG_LEAST = 200  # rows of a graph that FAISS builds: of 100 it makes none, of few more it may end the process
_CROWD = 0.1  # share of rows with more equal ones than links that a graph may meet: of half FAISS looks for ever
_SWAPS = 500_000  # of centroids, when polysemous codes are numbered so that near ones differ in few bits
_CHUNK = 65_536  # rows that are added at a time: a rotation copies them
_BY_DISTANCE = ("nsg", "imi", "polysemous")  # FAISS builds these for Euclidean distance alone
_SEARCHING_NSG = threading.Lock()  # how far NSG looks is a field of the index


@dataclass(frozen=True, slots=True)
class Plan:
    """How FAISS builds an index. `needs`: rows that it must learn from at least, `learns_from`: at most, 0 for none."""

    factory: str
    metric: int
    needs: int
    learns_from: int


def plan(spec: IndexSpec, dim: int, metric: Metric, rows: int) -> Plan:
    """The plan of an index over so many rows; 0 if they are yet to come.

    Raises ConfigError for parameters that do not fit, UnsupportedByBackend for a metric that FAISS lacks there.
    """
    names = {part.name for part in spec.parts}
    euclidean = names & set(_BY_DISTANCE)
    if euclidean and metric == "ip":
        raise UnsupportedByBackend(
            "faiss",
            f"build the index {spec.shape!r} for the metric 'ip' (it takes 'cosine' and 'l2'; ivf and hnsw take all)",
        )
    rotation, inner = _rotation(spec, dim)
    rows_first, arranged = _arranged(spec.main, inner, rows)
    centroids, kept = _kept(spec.codes, inner)
    joined = ",".join(piece for piece in (rotation, arranged, kept) if piece)
    native = faiss.METRIC_INNER_PRODUCT if metric != "l2" and not euclidean else faiss.METRIC_L2
    needs = max(rows_first, centroids, _OPQ if spec.rotation else 0)
    return Plan(joined, native, needs, min(_MOST, max(_LEAST, _EACH * needs)) if needs or rotation else 0)


def _rotation(spec: IndexSpec, dim: int) -> tuple[str, int]:
    """The rotation's factory, and the dimensions that come out of it."""
    if spec.rotation is None:
        rabitq = spec.codes is not None and spec.codes.name == "rabitq"
        return (f"RR{dim}", dim) if rabitq else ("", dim)  # its error bound stands on a random rotation (Gao 2024)
    part = spec.rotation.only("m", "dim")
    inner = part.number("dim", dim, 1, dim)
    codes = spec.codes.number("m", inner // 4, 1, 32_768) if spec.codes else inner // 4
    return f"OPQ{pieces_of(part, inner, codes)}_{inner}", inner


def _arranged(part: Part, dim: int, rows: int) -> tuple[int, str]:
    """Of a family: the rows that it learns from at least, and its factory."""
    if part.name == "flat":
        part.only()
        return 0, ""
    if part.name == "hnsw":
        part.only("m", "ef_construction").number("ef_construction", 200, 8, 4_096)
        return 0, f"HNSW{part.number('m', 16, 2, 128)}"
    if part.name == "nsg":
        return _NSG_LEAST, f"NSG{part.only('m').number('m', 32, 4, 128)}"
    if part.name == "imi":
        bits = part.only("bits").number("bits", _cells(rows), 1, 14)
        if dim % 2:
            raise ConfigError(f"{part} cuts a vector in two halves, and {dim} dimensions are odd")
        return 2**bits, f"IMI2x{bits}"
    part.only("nlist", "coarse")
    lists = lists_of(part, rows)
    graph = "_HNSW32" if part.choice("coarse", ("flat", "hnsw")) == "hnsw" else ""
    return lists, f"IVF{lists}{graph}"


def _cells(rows: int) -> int:
    """Bits of each half of an inverted multi-index: as many cells as rows."""
    return max(2, min(14, round(math.log2(max(rows, 16)) / 2)))


def _kept(part: Part | None, dim: int) -> tuple[int, str]:
    """Of codes: the centroids of each codebook, and their factory."""
    if part is None:
        return 0, "Flat"
    if part.name in ("sq8", "fp16"):
        part.only()
        return 1, "SQ8" if part.name == "sq8" else "SQfp16"
    if part.name == "rabitq":
        bits = part.only("bits").number("bits", 1, 1, 9)
        return 1, f"RaBitQ{bits}" if bits > 1 else "RaBitQ"
    if part.name in ("pq", "polysemous"):
        pieces = pieces_of(part.only("m", "bits"), dim, dim // 4)
        bits = part.number("bits", 8, 2, 12) if part.name == "pq" else part.number("bits", 8, 8, 8)
        return 2**bits, f"PQ{pieces}x{bits}"
    if part.name == "pq4fs":
        return 16, f"PQ{pieces_of(part.only('m'), dim, dim // 2)}x4fs"
    bits = part.number("bits", 8, 2, 10)
    if part.name == "prq":
        splits = part.only("splits", "m", "bits").number("splits", 2, 1, dim)
        if dim % splits:
            raise ConfigError(f"splits={splits} of the index {part} does not divide the {dim} dimensions")
        return 2**bits, f"PRQ{splits}x{part.number('m', 4, 1, 64)}x{bits}"
    return 2**bits, f"{part.name.upper()}{part.only('m', 'bits').number('m', 8, 1, 64)}x{bits}"


def check(spec: IndexSpec, dim: int, metric: Metric, rows: int) -> None:
    """Raise ConfigError unless so many rows are enough, UnsupportedByBackend for what this FAISS cannot build."""
    made = plan(spec, dim, metric, rows)
    if rows and rows < made.needs:
        raise ConfigError(
            f"The index {str(spec)!r} learns from {made.needs} vectors or more, and there are {rows}; "
            f"choose {'hnsw' if spec.family == 'nsg' else 'fewer bits or lists'}, or ingest more first"
        )


def built(spec: IndexSpec, metric: Metric, vectors: FloatArray) -> Any:
    """An index over every row. Raises ConfigError, UnsupportedByBackend."""
    rows, dim = vectors.shape
    check(spec, dim, metric, rows)
    _check_crowds(spec, vectors)
    made = plan(spec, dim, metric, rows)
    try:
        index = faiss.index_factory(dim, made.factory, made.metric)
    except RuntimeError as error:
        raise UnsupportedByBackend("faiss", f"build {str(spec)!r} in its version {faiss.__version__}") from error
    _kept_alive = _set_up(index, spec)
    with kernel.alone((rows, dim), 1):  # a team of threads for a few rows only waits
        if made.learns_from:
            index.train(kernel.sample(vectors, made.learns_from))
        extend(index, vectors, at_once=spec.family == "nsg")
    return index


def _check_crowds(spec: IndexSpec, vectors: FloatArray) -> None:
    """Raise ConfigError for a graph that would never be done."""
    if spec.family != "nsg":
        return
    whole = np.ascontiguousarray(vectors).view(np.dtype((np.void, vectors.itemsize * vectors.shape[1])))
    times = np.unique(whole, return_counts=True)[1]
    links = spec.main.number("m", 32, 4, 128)
    crowded = int(times[times > links].sum())
    if crowded > _CROWD * len(vectors):
        raise ConfigError(
            f"The index {str(spec)!r} is no good here: {crowded:,} of the {len(vectors):,} vectors have {links} others "
            "or more that equal them, and FAISS would not come to an end; choose hnsw"
        )


def extend(index: Any, vectors: FloatArray, *, at_once: bool = False) -> None:
    """Add rows behind those that an index has."""
    step = max(1, len(vectors)) if at_once else _CHUNK
    for start in range(0, len(vectors), step):
        index.add(np.ascontiguousarray(vectors[start : start + step]))


def growth(spec: IndexSpec) -> float:
    """How many times as many rows as it was built over an index may have before it is built anew; 1 if it takes none.

    A graph links whatever comes. What was learned from a quarter of the rows still says where the others belong.
    """
    return 1.0 if spec.family == "nsg" else math.inf if spec.family == "hnsw" and spec.codes is None else 4.0


def _inner(index: Any) -> Any:
    """The index behind a rotation."""
    return faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index


def _first(index: Any) -> Any:
    """The rotation before an index."""
    return faiss.downcast_VectorTransform(index.chain.at(0))


def _set_up(index: Any, spec: IndexSpec) -> Any:
    """What a factory string does not say, and no words on stderr about few rows; what must live as long as training."""
    inner = _inner(index)
    stored = faiss.downcast_index(inner.storage) if spec.family == "hnsw" else inner
    for owner in (stored, getattr(stored, "pq", None), getattr(stored, "rq", None)):
        if owner is not None and hasattr(owner, "cp"):
            owner.cp.min_points_per_centroid = 1
    if hasattr(stored, "do_polysemous_training"):  # which a factory string turns on for every PQ, and takes minutes
        stored.do_polysemous_training = spec.codes is not None and spec.codes.name == "polysemous"
    if spec.family == "hnsw":
        inner.hnsw.efConstruction = spec.main.number("ef_construction", 200, 8, 4_096)
    if spec.codes is not None and spec.codes.name == "polysemous":
        stored.search_type = faiss.IndexPQ.ST_polysemous
        stored.polysemous_ht = 4 * stored.pq.M
        stored.polysemous_training.n_iter = _SWAPS
    if spec.codes is not None and spec.codes.name == "prq":
        for number in range(stored.prq.nsplits):
            faiss.downcast_AdditiveQuantizer(stored.prq.subquantizer(number)).cp.min_points_per_centroid = 1
    if spec.rotation is None:
        return None
    turn = _first(index)
    turn.pq = codebook = faiss.ProductQuantizer(turn.d_out, turn.M, 8)
    codebook.cp.min_points_per_centroid = 1
    return codebook


def takes_filters(index: Any) -> bool:
    """Whether a search of it can pass over rows; else more are asked for and tested."""
    inner = _inner(index)
    refusing = (faiss.IndexNSG, faiss.IndexPQ, faiss.IndexFastScan)
    return not isinstance(inner, (*refusing, faiss.IndexAdditiveQuantizer, faiss.IndexIVFAdditiveQuantizer))


def rescored(spec: IndexSpec, metric: Metric) -> bool:
    """Whether what an index says of distances is not the last word: codes lose something, or it measures otherwise."""
    return spec.codes is not None or (metric == "cosine" and spec.family in _BY_DISTANCE)


def compared(index: Any, spec: IndexSpec, k: int, params: SearchParams, share: float) -> float:
    """What a search costs under a filter that admits a share of the rows, in comparisons of rows that lie anywhere."""
    inner = _inner(index)
    each = _CODES if spec.codes is not None else 1.0
    if isinstance(inner, faiss.IndexHNSW):
        return each * _view(k, params, share) * spec.main.number("m", 16, 2, 128)
    if isinstance(inner, faiss.IndexIVF):
        return each * _IN_A_ROW * float(inner.ntotal) * _probes(inner, params, share) / float(inner.nlist)
    return each * _IN_A_ROW * float(inner.ntotal)


def _view(k: int, params: SearchParams, share: float) -> int:
    return ef_under_filter(max(params.ef or _EF, k), k, share)


def _probes(inner: Any, params: SearchParams, share: float) -> int:
    return min(nprobe_under_filter(kernel.probes_of(inner, params), share), int(inner.nlist))


def asked(
    index: Any, spec: IndexSpec, queries: FloatArray, k: int, params: SearchParams, chosen: Any, share: float = 1.0
) -> Found:
    """What an index finds among its own rows. `chosen`: FAISS's selector, None for all rows.

    `share` of the rows that it admits: the fewer they are, the farther the index looks.
    """
    inner = _inner(index)
    if isinstance(inner, faiss.IndexNSG):
        most = max(1, inner.ntotal)  # FAISS fills its pool with rows by chance, for ever if it is larger than there are
        with _SEARCHING_NSG:
            inner.nsg.search_L = min(max(params.ef or _EF, k), most)
            return Found(*index.search(queries, min(k, most)))
    native = _native(inner, spec, k, params, share)
    if native is None:
        return Found(*index.search(queries, k))
    native.sel = chosen
    if spec.family == "imi":
        return _of_cells(inner, queries if inner is index else _first(index).apply(queries), k, native)
    if inner is not index:
        native = faiss.SearchParametersPreTransform(index_params=native)
    return Found(*index.search(queries, k, params=native))


def _of_cells(index: Any, queries: FloatArray, k: int, native: Any) -> Found:
    """Of an inverted multi-index; FAISS may name a cell twice, and then its rows would be found twice."""
    apart, cells = index.quantizer.search(queries, native.nprobe)
    order = np.argsort(cells, axis=1, kind="stable")
    ordered = np.take_along_axis(cells, order, axis=1)
    again = ordered[:, 1:] == ordered[:, :-1]
    ordered[:, 1:][again] = -1
    np.put_along_axis(cells, order, ordered, axis=1)
    pointer, queries = faiss.swig_ptr, np.ascontiguousarray(queries)
    found = Found(np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64))
    given, told = (pointer(cells), pointer(apart)), (pointer(found.values), pointer(found.positions))
    index.search_preassigned_c(len(queries), pointer(queries), k, *given, *told, False, native)
    return found


def _native(inner: Any, spec: IndexSpec, k: int, params: SearchParams, share: float) -> Any:
    """The knobs in FAISS's own form; None for an index that takes none."""
    if isinstance(inner, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=min(_view(k, params, share), inner.ntotal))
    if isinstance(inner, faiss.IndexIVF):
        probes = _probes(inner, params, share)
        if spec.params.get("coarse") != "hnsw":
            return faiss.SearchParametersIVF(nprobe=probes)
        coarse = faiss.SearchParametersHNSW(efSearch=max(_EF, 2 * probes))
        return faiss.SearchParametersIVF(nprobe=probes, quantizer_params=coarse)
    if isinstance(inner, faiss.IndexPQ):
        if spec.codes is None or spec.codes.name != "polysemous":
            return None
        apart = params.ht or inner.polysemous_ht
        return faiss.SearchParametersPQ(search_type=faiss.IndexPQ.ST_polysemous, polysemous_ht=apart)
    return faiss.SearchParameters() if takes_filters(inner) else None
