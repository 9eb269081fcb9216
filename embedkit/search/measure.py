"""Indexes measured: how much of the exact answer each finds, how fast, and the cheapest setting for a wanted recall."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from embedkit.backends.contract import CollectionSpec, IndexSpec, SearchParams
from embedkit.backends.indexes import lists_of
from embedkit.codes import signs
from embedkit.errors import BadInput, ConfigError, UnsupportedByBackend
from embedkit.search.rules import IndexAdvice, Point, SpecAdvice, by_rule, bytes_of, seconds_of
from embedkit.search.samples import fetched, sampled, some_ids
from embedkit.search.truth import Truth

if TYPE_CHECKING:
    from embedkit.backends.contract import VectorBackend
    from embedkit.metadata.rows import CollectionRow, ViewRow
    from embedkit.metadata.store import MetadataStore
    from embedkit.types import FloatArray, IdArray, VectorArray

__all__ = ["AdviceProgress", "Tuning", "measured_advice", "settings_of", "tuned"]

LEAST = 200  # vectors of which something can be said
_EF = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024)
_PROBES = tuple(2**n for n in range(17))
_FACTORS = (1, 2, 4, 8, 16, 32)
_MOST_BITS = 512  # of codes, in which they may differ
_ENOUGH = 0.999  # recall from which more of a knob is not tried
_ROUNDS = 3
_CHUNK = 10_000


@dataclass(frozen=True, slots=True)
class Tuning:
    """What settings of an index gave. `chosen`: the cheapest that reaches the recall, None if none of them does."""

    view: str
    index: str
    recall: float
    k: int
    queries: int
    points: tuple[Point, ...]
    chosen: Point | None

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class AdviceProgress:
    """A moment of advice that is measured. `seen` of `total` indexes are, `failed` of them cannot be built here.

    `note`: the index that is built and asked now.
    """

    seen: int
    total: int
    failed: int
    note: str


def tuned(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    view: ViewRow,
    *,
    recall: float,
    k: int,
    queries: int,
    asking: Callable[[], VectorArray] | None = None,
    seed: int = 0,
) -> Tuning:
    """Try the knobs of a view's index by queries, against their exact neighbours in all of it.

    `asking`: what makes the queries; without, `queries` of the view's own vectors ask. Raises BadInput where there is
    nothing to tune.
    """
    spec = IndexSpec.parse(view.index)
    if not spec.knobs(rescores=backend.capabilities.rescores):
        raise BadInput(_nothing_to_tune(backend, row, view))
    if 0 < backend.count(view.physical) <= k:
        raise BadInput(
            f"{row.name!r} has {backend.count(view.physical):,} vectors in {view.name!r}, which have fewer than k={k} "
            "others; ask for fewer"
        )
    if asking:
        asked, vectors = None, asking()
    else:
        asked = _own_ids(store, row, view, queries, seed)
        vectors = fetched(backend, view, asked)

    def rows(ids: IdArray) -> tuple[IdArray, FloatArray]:
        there = backend.fetch(view.physical, ids)
        return there.ids, _floats(view, there.vectors)

    pages = backend.scan_ids(view.physical, _CHUNK)
    truth = Truth(_floats(view, vectors), view.metric, k, rows, pages, asked)
    points = tuple(_points(backend, view.physical, spec, vectors, truth, asked))
    return Tuning(view.name, view.index, recall, k, len(vectors), points, _cheapest(points, recall))


def _own_ids(store: MetadataStore, row: CollectionRow, view: ViewRow, count: int, seed: int) -> IdArray:
    """Rows of a view that ask it. Raises BadInput where there are too few to say something."""
    asked = some_ids(store, row, [view], count, np.random.default_rng(seed))[:, 0]
    if len(asked) < min(LEAST, count):
        raise BadInput(
            f"{row.name!r} has {len(asked)} products with a vector in {view.name!r}; to tune takes {LEAST}"
            + (f". Which index to begin with needs none: {_by_rule(view)}" if view.kind == "float" else "")
        )
    return asked


def _floats(view: ViewRow, vectors: VectorArray) -> FloatArray:
    """What is compared: codes by their signs."""
    if view.kind == "binary":
        return signs(vectors.view(np.uint8), view.dim)
    return vectors.astype(np.float32, copy=False)


def _nothing_to_tune(backend: VectorBackend, row: CollectionRow, view: ViewRow) -> str:
    """Why, and which index of that backend has something."""
    able = backend.capabilities
    told = f"The view {view.name!r} of {row.name!r} is searched exactly and has nothing to tune"
    shapes = map(IndexSpec.parse, able.families(view.kind))
    other = next((spec for spec in shapes if spec.knobs()), None)
    if other is None:
        return f"{told}; {able.name!r} has no other index over {view.kind} vectors"
    which = "" if view == row.views[0] else f" --view {view.name}"
    return f"{told}; build an index first: embedkit index build {row.name} {str(other)!r}{which}"


def _by_rule(view: ViewRow) -> str:
    """The command that says what to do without any products."""
    return f"embedkit advise --n N --dim {view.dim}"


def measured_advice(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    view: ViewRow,
    *,
    recall: float,
    memory: int | None,
    latency: float | None,
    k: int,
    sample: int,
    queries: int,
    seed: int = 0,
    progress: Callable[[AdviceProgress], None] | None = None,
) -> IndexAdvice:
    """Build every index that the rule thinks of over `sample` vectors of a view, and ask each by `queries` others.

    They are built in a collection of their own in the same backend, which is dropped at the end. `bytes` are those of
    all vectors of the view. `progress` is told before each index and at the end. Raises BadInput.
    """
    if view.kind != "float":
        raise BadInput(f"The view {view.name!r} of {row.name!r} holds codes; name one that holds floats")
    rng = np.random.default_rng(seed)
    vectors = sampled(store, backend, row, [view], sample + queries, rng)[0].astype(np.float32, copy=False)
    if len(vectors) < LEAST + k:
        raise BadInput(
            f"{row.name!r} has {len(vectors)} products with a vector; to advise takes {LEAST + k} or more. "
            f"By rule, for N vectors that are yet to come, it takes none: {_by_rule(view)}"
        )
    asking = min(queries, len(vectors) // 5)
    asked, held = vectors[:asking], vectors[asking:]
    truth = Truth(asked, view.metric, k, lambda ids: (ids, held[ids]), [np.arange(len(held))])
    total = backend.count(view.physical)
    rule = by_rule(len(held), view.dim, backend.capabilities)
    found: list[SpecAdvice] = []
    missing: list[str] = []
    with _scratch(backend, view, held) as name:
        for place, one in enumerate(rule.specs):
            spec = IndexSpec.parse(one.spec)
            if progress is not None:
                progress(AdviceProgress(place, len(rule.specs), len(missing), one.spec))
            try:
                begun = time.perf_counter()
                backend.build_index(name, spec)
            except (ConfigError, UnsupportedByBackend) as error:
                missing.append(f"{one.spec}: {error}")
                continue
            built = time.perf_counter() - begun
            points = list(_points(backend, name, spec, asked, truth, None))
            size = bytes_of(spec, total, view.dim)
            found.append(
                _judged(
                    replace(one, bytes=size, build_seconds=built),
                    points,
                    recall,
                    memory,
                    latency,
                    (len(held), total, view.dim),
                )
            )
    if progress is not None:
        progress(AdviceProgress(len(rule.specs), len(rule.specs), len(missing), ""))
    found.sort(key=lambda one: (bool(one.misses), -(one.qps_at_n or 0.0)))
    return IndexAdvice(
        rule.backend, total, view.dim, recall, memory, latency, k, found, len(held), len(asked), tuple(missing)
    )


@contextmanager
def _scratch(backend: VectorBackend, view: ViewRow, vectors: FloatArray) -> Iterator[str]:
    """A collection of some vectors, whose ids are their places."""
    name = f"advice_{uuid.uuid4().hex[:12]}"
    backend.create(CollectionSpec(name, view.dim, view.metric))
    try:
        for start in range(0, len(vectors), _CHUNK):
            part = vectors[start : start + _CHUNK]
            backend.upsert(name, np.arange(start, start + len(part)), part)
        yield name
    finally:
        backend.drop(name)


def _judged(
    one: SpecAdvice,
    points: list[Point],
    recall: float,
    memory: int | None,
    latency: float | None,
    sizes: tuple[int, int, int],
) -> SpecAdvice:
    """What the points say of one index. `sizes`: rows measured, rows that there are, dimensions."""
    rows, total, dim = sizes
    spec = IndexSpec.parse(one.spec)

    def at_n(point: Point) -> float:
        return point.qps * seconds_of(spec, rows, dim, point.params) / seconds_of(spec, total, dim, point.params)

    best = _cheapest(points, recall)
    shown = best or max(points, key=lambda point: point.recall)
    misses, milliseconds = "", 1_000 / at_n(shown)
    if memory is not None and one.bytes > memory:
        misses = f"takes {one.bytes / 1e9:.2f} GB of the {memory / 1e9:.2f} GB"
    elif best is None:
        misses = f"reaches {shown.recall:.3f}"
    elif latency is not None and milliseconds > latency:
        misses = f"takes {milliseconds:.2g} ms of the {latency:g} ms"
    return replace(
        one,
        params=shown.params,
        misses=misses,
        milliseconds=milliseconds,
        recall=shown.recall,
        qps=shown.qps,
        qps_at_n=at_n(shown),
        points=tuple(points),
    )


def _cheapest(points: tuple[Point, ...] | list[Point], recall: float) -> Point | None:
    reaching = [point for point in points if point.recall >= recall]
    return max(reaching, key=lambda point: point.qps, default=None)


def _points(
    backend: VectorBackend,
    name: str,
    spec: IndexSpec,
    queries: VectorArray,
    truth: Truth,
    own: IdArray | None,
) -> Iterator[Point]:
    """Every setting that is worth trying, measured. `own`: ids of the queries, which do not count as found."""
    rows = backend.count(name)
    for path in settings_of(spec, rows, spec.knobs(rescores=backend.capabilities.rescores)):
        for params in path:
            point = _point(backend, name, queries, truth, own, params)
            yield point
            if point.recall >= _ENOUGH:
                break


def settings_of(
    spec: IndexSpec, rows: int, heeded: tuple[str, ...], *, every: int = 1
) -> Iterator[list[Mapping[str, int]]]:
    """Settings of the knobs that a search heeds, as paths in the order of what they cost, cheap ones first.

    A path may end early where everything is found. `every`: 2 for every other step of a knob, and so on.
    """
    first = next((knob for knob in heeded if knob != "k_factor"), None)
    lists = lists_of(spec.main, rows) if spec.family == "ivf" else _MOST_BITS if first == "ht" else rows
    steps = [n for n in (_EF if first == "ef" else _PROBES)[::every] if n <= max(1, lists)] if first else [0]
    if first == "nprobe" and steps[-1] < lists and spec.family == "ivf":
        steps.append(lists)
    for factor in _FACTORS[::every] if "k_factor" in heeded else (0,):
        pairs = [{first or "": step, "k_factor": factor} for step in steps]
        yield [{name: value for name, value in pair.items() if name and value} for pair in pairs]


def _point(
    backend: VectorBackend,
    name: str,
    queries: VectorArray,
    truth: Truth,
    own: IdArray | None,
    params: Mapping[str, int],
) -> Point:
    k = truth.k
    ask, given = k if own is None else k + 1, SearchParams(**params)
    times = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        found = backend.search(name, queries, ask, None, given).ids
        times.append(time.perf_counter() - begun)
        if times[0] > 1:
            break
    if own is not None:
        found = _without(found, own, k)
    return Point(dict(params), truth.share(found), len(queries) / min(times))


def _without(found: IdArray, own: IdArray, k: int) -> IdArray:
    """The first k of each row that are not its own id."""
    kept = [list(itertools.islice((i for i in row if i != me), k)) for row, me in zip(found.tolist(), own, strict=True)]
    return np.array([row + [-1] * (k - len(row)) for row in kept], np.int64)
