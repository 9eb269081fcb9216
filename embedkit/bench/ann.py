"""`bench_ann`: every index in every backend over one data set, kept row by row, so that a killed run goes on."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedkit.backends.contract import BackendOptions, CollectionSpec, IndexSpec, SearchParams
from embedkit.backends.indexes import Part, pieces_of
from embedkit.backends.open import capabilities, open_backend
from embedkit.bench.report import AnnPoint, AnnReport, AnnRow, read_report, read_truth, write_report, write_truth
from embedkit.bench.truth import distances_of, exact_truth, limits_of, recall_of
from embedkit.errors import BadInput, ConfigError, UnsupportedByBackend
from embedkit.search.measure import settings_of
from embedkit.urls import redact

if TYPE_CHECKING:
    from embedkit.backends.contract import Capabilities, VectorBackend
    from embedkit.bench.sets import AnnSet
    from embedkit.types import FloatArray

__all__ = ["BenchProgress", "bench_ann", "default_specs"]

RESULTS = "results.json"
_CHUNK = 10_000
_ROUNDS = 3
_ALONE = 100  # queries that ask one by one
_PATIENCE = 20.0  # seconds of all queries beyond which no dearer setting is tried
_ENOUGH = 0.999
_TRIED = 10  # queries of which it is seen whether the neighbours that somebody tells are true
_TRUE = 0.95  # share of them that has to be; rounding and equal distances make files differ in the last places


@dataclass(frozen=True, slots=True)
class BenchProgress:
    """A moment of a benchmark. `seen` of `total` indexes are measured, as `report` tells; `failed`: were refused."""

    total: int
    seen: int
    failed: int
    note: str
    report: AnnReport


def default_specs(n: int, dim: int, able: Capabilities) -> tuple[str, ...]:
    """One of every family that a backend builds, for `n` vectors of `dim` floats."""
    quarter, half = pieces_of(Part("pq"), dim, dim // 4), pieces_of(Part("pq4fs"), dim, dim // 2)
    texts = ["flat", "hnsw(m=16)", "hnsw(m=32)", "hnsw(m=32) + sq8", "ivf(nlist=auto)", "ivf(nlist=auto) + sq8"]
    if n >= 10_000:
        texts += [
            f"ivf(nlist=auto) + pq(m={quarter}) + refine(flat)",
            f"ivf(nlist=auto) + pq4fs(m={half}) + refine(flat)",
            "ivf(nlist=auto) + rabitq + refine(flat)",
            f"opq(m={quarter}) + ivf(nlist=auto) + pq(m={quarter}) + refine(flat)",
            f"opq(m={quarter}) + ivf(nlist=auto) + pq4fs(m={quarter}) + refine(flat)",
            f"pq4fs(m={half}) + refine(flat)",
            f"polysemous(m={quarter}) + refine(flat)",
        ]
        texts += [f"opq(m={quarter}) + imi(bits=auto) + pq(m={quarter}) + refine(flat)"] if dim % 2 == 0 else []
    specs = (IndexSpec.parse(text) for text in texts)
    always = set(able.index_families) - set(able.optional_families)
    mine = [one for one in specs if one.shape in always]
    return tuple(str(one if one.refine in ("", *able.refines) else replace(one, refine="")) for one in mine)


def bench_ann(
    found: AnnSet,
    out: Path,
    *,
    backends: Sequence[str],
    options: BackendOptions | None = None,
    specs: Sequence[str] = (),
    ks: Sequence[int] = (1, 10, 100),
    recall: float = 0.95,
    progress: Callable[[BenchProgress], None] | None = None,
) -> AnnReport:
    """Measure every spec in every backend; rows that `out` has already are not measured again.

    `specs`: as text, one of every family that a backend builds if there are none. In each backend the vectors lie in a
    collection of the benchmark's own, which is dropped when its specs are done. Raises BackendUnavailable, BadInput,
    ConfigError, DiskFull; what was measured until then is kept.
    """
    _check(found, ks, recall)
    texts = [str(IndexSpec.parse(one)) for one in specs]
    planned = {
        url: texts or list(default_specs(len(found.base), found.dim, capabilities(url)))
        for url in dict.fromkeys(backends)
    }
    report = _begun(found, out / RESULTS, ks, recall)
    _check_truth(found, max(ks))
    run = _Run(found, report, out, sum(map(len, planned.values())), progress)
    for url, wanted in planned.items():
        missing = run.without_known(redact(url), wanted)
        if missing:
            with closing(open_backend(url, options)) as backend:
                run.measure(backend, redact(url), missing)
    return run.report


def _check(found: AnnSet, ks: Sequence[int], recall: float) -> None:
    if not ks or min(ks) < 1 or max(ks) > len(found.base):
        raise BadInput(f"k={', '.join(map(str, ks)) or 'none'}: give numbers of 1 to {len(found.base):,}")
    if not 0 < recall <= 1:
        raise BadInput(f"recall={recall} is not a share; give more than 0 and at most 1")
    if found.truth is not None and found.truth.shape[1] < max(ks):
        raise BadInput(
            f"{found.name!r} tells the {found.truth.shape[1]} nearest of each query, and k={max(ks)} is wanted; "
            f"ask for fewer (-k {found.truth.shape[1]})"
        )


def _check_truth(found: AnnSet, k: int) -> None:
    """Raise BadInput where the neighbours that somebody tells are those of other vectors, or of another metric."""
    if found.truth is None:
        return
    base, few, told = found.base, found.queries[:_TRIED], found.truth[:_TRIED, :k]
    exact = exact_truth(base, few, k, metric=found.metric)
    shares = [
        recall_of(
            distances_of(base, few, one, metric=found.metric), limits_of(base, few, other, metric=found.metric), k
        )
        for one, other in ((told, exact), (exact, told))
    ]
    if min(shares) < _TRUE:
        raise BadInput(
            f"The true neighbours of {found.name!r} are not those of its vectors by {found.metric}: {min(shares):.0%} "
            f"of {len(few)} queries' are; name theirs, or the metric, or leave them out to have them computed"
        )


def _begun(found: AnnSet, path: Path, ks: Sequence[int], recall: float) -> AnnReport:
    """What an earlier run of the same kept, else one without rows. Raises ConfigError where another's lies there."""
    told, before = found.fingerprint(), read_report(path)
    if before is not None:
        if (before.fingerprint, list(before.ks)) != (told, sorted(set(ks))):
            raise ConfigError(
                f"{str(path)!r} holds results of {before.name!r} with {before.vectors:,} vectors, {before.queries:,} "
                f"queries, {before.metric} and k={', '.join(map(str, before.ks))}, and these are others, or have other "
                "true neighbours; name another folder, or remove it"
            )
        return replace(before, recall=recall)
    return AnnReport(
        name=found.name,
        fingerprint=told,
        vectors=len(found.base),
        dim=found.dim,
        metric=found.metric,
        queries=len(found.queries),
        ks=tuple(sorted(set(ks))),
        recall=recall,
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        filled={},
        rows=(),
    )


class _Run:
    """One run: the data, what is known so far, and where it is kept."""

    def __init__(
        self,
        found: AnnSet,
        report: AnnReport,
        out: Path,
        total: int,
        progress: Callable[[BenchProgress], None] | None,
    ) -> None:
        self.report = report
        self._found, self._path, self._progress = found, out / RESULTS, progress
        self._total, self._seen, self._failed = total, 0, 0
        self._collection = f"bench_{report.fingerprint}"
        self._limits: FloatArray | None = None

    def without_known(self, url: str, specs: Sequence[str]) -> list[str]:
        """The specs that are yet to be measured in a backend."""
        missing = [spec for spec in specs if (row := self.report.row(url, spec)) is None or row.refused]
        self._seen += len(specs) - len(missing)
        return missing

    def measure(self, backend: VectorBackend, url: str, specs: Sequence[str]) -> None:
        """Fill the backend's collection, measure, and drop it."""
        try:
            self._fill(backend, url)
        except UnsupportedByBackend as error:
            for text in specs:
                self._keep(AnnRow(url, text, refused=str(error)))
            return
        for text in specs:
            self._tell(f"{text}: building")
            spec = IndexSpec.parse(text)
            begun = time.perf_counter()
            try:
                backend.build_index(self._collection, spec)
            except (BadInput, ConfigError, UnsupportedByBackend) as error:
                self._keep(AnnRow(url, text, refused=str(error)))
                continue
            built = time.perf_counter() - begun
            points = self._points(backend, spec, text)
            self._keep(AnnRow(url, text, built, backend.index_use(self._collection).bytes, tuple(points)))
        backend.drop(self._collection)

    def _fill(self, backend: VectorBackend, url: str) -> None:
        """Every vector under its place as id; what a run that was killed has filled is taken as it is."""
        base = self._found.base
        there = self._collection in backend.list()
        if there and url in self.report.filled and backend.count(self._collection) == len(base):
            return
        backend.drop(self._collection)
        backend.create(CollectionSpec(self._collection, self._found.dim, self._found.metric))
        begun = time.perf_counter()
        for start in range(0, len(base), _CHUNK):
            part = np.ascontiguousarray(base[start : start + _CHUNK], np.float32)
            backend.upsert(self._collection, np.arange(start, start + len(part)), part)
            self._tell(f"{start + len(part):,} of {len(base):,} vectors in {url}")
        backend.flush(self._collection)
        self.report = replace(self.report, filled={**self.report.filled, url: time.perf_counter() - begun})
        write_report(self._path, self.report)

    def _points(self, backend: VectorBackend, spec: IndexSpec, text: str) -> list[AnnPoint]:
        """Every setting on a coarse grid, from cheap to dear; a path ends where it finds all, or takes too long."""
        points = []
        heeded = spec.knobs(rescores=backend.capabilities.rescores)
        for path in settings_of(spec, len(self._found.base), heeded, every=2):
            for params in path:
                told = ", ".join(f"{name}={value}" for name, value in params.items())
                self._tell(f"{text}: {told or 'searching'}")
                points.append(self._point(backend, params))
                last = points[-1]
                slow = len(self._found.queries) / min(last.qps.values()) > _PATIENCE
                if slow or min(last.recalls.values()) >= _ENOUGH:
                    break
        return points

    def _point(self, backend: VectorBackend, params: Mapping[str, int]) -> AnnPoint:
        queries, given, limits = self._found.queries, SearchParams(**params), self._truth()
        recalls, qps = {}, {}
        for k in self.report.ks:
            times = []
            for _ in range(_ROUNDS):
                begun = time.perf_counter()
                answer = backend.search(self._collection, queries, k, None, given)
                times.append(time.perf_counter() - begun)
                if times[0] > 1:
                    break
            hits = np.pad(answer.ids, ((0, 0), (0, k - answer.ids.shape[1])), constant_values=-1)
            apart = distances_of(self._found.base, queries, hits, metric=self._found.metric)
            recalls[k], qps[k] = recall_of(apart, limits, k), len(queries) / min(times)
        alone = []
        for query in queries[:_ALONE]:
            begun = time.perf_counter()
            backend.search(self._collection, query[None], self.report.k, None, given)
            alone.append(1_000 * (time.perf_counter() - begun))
        p50, p99 = np.percentile(alone, [50, 99]).tolist()
        return AnnPoint(dict(params), recalls, qps, p50, p99)

    def _truth(self) -> FloatArray:
        """How far away the k-th may be; true neighbours that nobody tells are found once and kept beside."""
        if self._limits is None:
            found, k = self._found, max(self.report.ks)
            kept = self._path.with_name(f"truth-{self.report.fingerprint}.npy")
            truth = found.truth if found.truth is not None else read_truth(kept)
            if truth is None:
                self._tell("true neighbours")
                truth = exact_truth(found.base, found.queries, k, metric=found.metric)
                write_truth(kept, truth)
            self._limits = limits_of(found.base, found.queries, truth[:, :k], metric=found.metric)
        return self._limits

    def _keep(self, row: AnnRow) -> None:
        self.report = self.report.with_row(row)
        write_report(self._path, self.report)
        self._seen, self._failed = self._seen + 1, self._failed + bool(row.refused)
        best = row.cheapest(self.report.recall, self.report.k)
        self._tell(
            f"{row.spec}: {row.refused or (f'{best.qps[self.report.k]:,.0f} queries/s' if best else 'measured')}"
        )

    def _tell(self, note: str) -> None:
        if self._progress is not None:
            self._progress(BenchProgress(self._total, self._seen, self._failed, note, self.report))
