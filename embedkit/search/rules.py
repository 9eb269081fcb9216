"""Which index to choose, by rule of thumb: what each takes in memory, how long a query takes, how far it can be taken.

High precision: a graph. High capacity: an inverted file or an inverted multi-index over rotated product codes, with
the vectors themselves to have the last word. The figures are orders of magnitude, of one core; measuring is better.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from embedkit.backends.indexes import IndexSpec, Part, lists_of, pieces_of
from embedkit.errors import BadInput

if TYPE_CHECKING:
    from embedkit.backends.contract import Capabilities

__all__ = ["IndexAdvice", "Point", "SpecAdvice", "by_rule", "bytes_of", "parse_bytes", "seconds_of"]

_BANDWIDTH = 8e9  # bytes a second that a core compares
_JUMP = 1.5e-7  # seconds to reach a row that is not beside the last one
_HITS = 10
_WHY = {
    "flat": "exact; nothing to build or tune",
    "hnsw": "a graph: the highest recall for its time, the most memory",
    "hnsw + sq8": "a graph over a byte a dimension: a third of the memory, the vectors put the hits in order",
    "ivf": "lists of whole vectors: a third of a graph's time to build, no loss within a list",
    "ivf + sq8": "lists of a byte a dimension: a quarter of the memory",
    "ivf + pq4fs": "lists of 4-bit codes that a processor compares 32 at a time; the vectors have the last word",
    "ivf + rabitq": "lists of a bit a dimension with an error bound; the vectors have the last word",
    "opq + ivf + pq": "rotated product codes: a few bytes a vector, for capacity",
    "opq + ivf + pq4fs": "rotated 4-bit codes: half the bytes again, read as a fast scan",
    "opq + imi + pq": "as many lists as vectors without the time to learn them: for the largest collections",
    "diskann": "a graph on disk with a few bytes a vector in memory",
}
_REACHES = {  # the recall beyond which more time buys little
    "flat": 1.0,
    "hnsw": 0.999,
    "hnsw + sq8": 0.99,
    "ivf": 0.999,
    "ivf + sq8": 0.99,
    "ivf + pq4fs": 0.98,
    "ivf + rabitq": 0.97,
    "opq + ivf + pq": 0.96,
    "opq + ivf + pq4fs": 0.96,
    "opq + imi + pq": 0.9,
    "diskann": 0.98,
}


@dataclass(frozen=True, slots=True)
class Point:
    """A measured setting: the share of the k nearest that is found, and queries a second."""

    params: Mapping[str, int]
    recall: float
    qps: float


@dataclass(frozen=True, slots=True)
class SpecAdvice:
    """One index. `bytes`: of memory, estimated. `misses`: why it does not fit what was asked for, '' if it does.

    `params`: to search with at first. `milliseconds`: of a query among all vectors, estimated. Measured, `points` are
    what settings gave over the sample, `recall` and `qps` those of `params`, `qps_at_n` what the rule makes of it for
    all vectors, and `build_seconds` the time over the sample.
    """

    spec: str
    params: Mapping[str, int]
    bytes: int
    why: str
    misses: str = ""
    milliseconds: float | None = None
    recall: float | None = None
    qps: float | None = None
    qps_at_n: float | None = None
    build_seconds: float | None = None
    points: Sequence[Point] = ()


@dataclass(frozen=True, slots=True)
class IndexAdvice:
    """Indexes, the best first, those that do not fit last. `measured`: vectors of the collection, 0 if by rule.

    `missing`: indexes that could not be built, with the reason.
    """

    backend: str
    n: int
    dim: int
    recall: float
    memory: int | None
    latency: float | None
    k: int
    specs: Sequence[SpecAdvice]
    measured: int = 0
    queries: int = 0
    missing: Sequence[str] = field(default_factory=tuple)

    @property
    def chosen(self) -> SpecAdvice | None:
        """The best that fits."""
        return next((one for one in self.specs if not one.misses), None)

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        chosen = self.chosen
        return {**asdict(self), "chosen": asdict(chosen) if chosen else None}


def parse_bytes(text: str | int) -> int:
    """A number of bytes from ``2GB``, ``512 MiB`` or a plain number. Raises BadInput.

    >>> parse_bytes("1.5GB")
    1500000000
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt]?)(i?)b?)\s*", str(text).lower())
    if match is None or float(match[1]) == 0:
        raise BadInput(f"{text!r} is no amount of memory; write for example 2GB or 512MiB")
    thousand, power = 1_024 if match[3] else 1_000, " kmgt".index(match[2] or " ")
    return round(float(match[1]) * float(thousand**power))


def by_rule(
    n: int,
    dim: int,
    able: Capabilities,
    *,
    recall: float = 0.95,
    memory: int | None = None,
    latency: float | None = None,
) -> IndexAdvice:
    """Indexes for `n` vectors of `dim` floats, of those that a backend builds: quickest first among what fits.

    `memory`: bytes. `latency`: milliseconds of a query. Raises BadInput.
    """
    for name, value in (("n", n), ("dim", dim)):
        if value < 1:
            raise BadInput(f"{name}={value} is not a number of vectors or dimensions; give 1 or more")
    found = []
    for spec in _candidates(n, dim, able):
        params = _first_params(spec, n, recall)
        size, taken = bytes_of(spec, n, dim), 1_000 * seconds_of(spec, n, dim, params)
        misses = _misses(spec, size, taken, recall, memory, latency)
        found.append(SpecAdvice(str(spec), params, size, _WHY[spec.shape], misses, taken))
    found.sort(key=lambda one: (bool(one.misses), one.milliseconds))
    return IndexAdvice(able.name, n, dim, recall, memory, latency, _HITS, found)


def _misses(spec: IndexSpec, size: int, taken: float, recall: float, memory: int | None, latency: float | None) -> str:
    if memory is not None and size > memory:
        return f"takes {size / 1e9:.2f} GB of the {memory / 1e9:.2f} GB"
    if recall > _REACHES[spec.shape]:
        return f"hardly goes beyond a recall of {_REACHES[spec.shape]:g}"
    if latency is not None and taken > latency:
        return f"takes about {taken:.2g} ms of the {latency:g} ms"
    return ""


def _candidates(n: int, dim: int, able: Capabilities) -> list[IndexSpec]:
    """What is worth a thought, in the shapes that a backend has; trained ones only over enough rows."""
    refine = " + refine(flat)" if "flat" in able.refines else ""
    pieces = pieces_of(Part("pq"), dim, dim // 4)
    halves = pieces_of(Part("pq4fs"), dim, dim // 2)
    texts = ["flat", "hnsw(m=16)", "hnsw(m=32)", "hnsw(m=32) + sq8"]
    if n >= 1_000:
        texts += ["ivf(nlist=auto)", "ivf(nlist=auto) + sq8", f"ivf(nlist=auto) + pq4fs(m={halves}){refine}"]
        texts += [f"ivf(nlist=auto) + rabitq{refine}"]
    if n >= 10_000:
        texts += [f"opq(m={pieces}) + ivf(nlist=auto) + pq(m={pieces}){refine}"]
        texts += [f"opq(m={pieces}) + ivf(nlist=auto) + pq4fs(m={pieces}){refine}"]
    if n >= 1_000_000 and dim % 2 == 0:
        texts += [f"opq(m={pieces}) + imi(bits=auto) + pq(m={pieces}){refine}"]
    texts += ["diskann"]
    always = set(able.index_families) - set(able.optional_families)
    return [spec for text in texts if (spec := IndexSpec.parse(text)).shape in always]


def _first_params(spec: IndexSpec, n: int, recall: float) -> dict[str, int]:
    """Where to begin; `tune` finds better ones."""
    step = 0 if recall <= 0.9 else 1 if recall <= 0.95 else 2 if recall <= 0.98 else 3
    params: dict[str, int] = {}
    if spec.family in ("hnsw", "diskann"):
        params["ef"] = (48, 96, 192, 384)[step]
    elif spec.family == "ivf":
        params["nprobe"] = min(lists_of(spec.main, n), max(4, round(lists_of(spec.main, n) * (1, 2, 4, 8)[step] / 128)))
    elif spec.family == "imi":
        params["nprobe"] = (256, 512, 1_024, 2_048)[step]
    if spec.refine:
        params["k_factor"] = (4, 8, 16, 32)[step]
    return params


def bytes_of(spec: IndexSpec, n: int, dim: int) -> int:
    """Memory of an index over `n` rows, estimated; the vectors that only refine lie on disk, and are not counted."""
    each, fixed = _row_bytes(spec, dim), 0.0
    if spec.family == "hnsw":
        each += 8.8 * spec.main.number("m", 16, 2, 128) + 12  # two times m links below, a tenth of that above
    elif spec.family == "ivf":
        lists = lists_of(spec.main, n)
        each, fixed = each + 8, 4.0 * dim * lists
        if spec.codes and spec.codes.name == "pq4fs":
            fixed += 16.0 * lists * _row_bytes(spec, dim)  # lists are filled up to a multiple of 32
    elif spec.family == "imi":
        bits = spec.main.number("bits", max(2, min(14, round(math.log2(max(n, 16)) / 2))), 1, 14)
        each, fixed = each + 8, 48.0 * 4**bits + 4.0 * dim * 2**bits
    elif spec.family == "diskann":
        each = dim / 4
    if spec.rotation is not None or (spec.codes and spec.codes.name == "rabitq"):
        fixed += 4.0 * dim * dim
    return round(n * each + fixed)


def _row_bytes(spec: IndexSpec, dim: int) -> float:
    """Of a row as the index keeps it."""
    if spec.codes is None:
        return 4.0 * dim
    pieces = spec.codes.number("m", dim // 4, 1, 32_768)
    by_name = {"sq8": dim, "fp16": 2 * dim, "pq": pieces, "pq4fs": pieces / 2, "rabitq": dim / 8 + 8}
    return float(by_name[spec.codes.name])


def seconds_of(spec: IndexSpec, n: int, dim: int, params: Mapping[str, int]) -> float:
    """The time of a query on one core, estimated by the bytes that are compared and the jumps between them."""
    each = _row_bytes(spec, dim)
    again = params.get("k_factor", 1) * _HITS * (_JUMP + 4 * dim / _BANDWIDTH) if spec.codes else 0.0
    if spec.family in ("hnsw", "diskann"):
        visited = params["ef"] * spec.main.number("m", 16, 2, 128) / (2 if spec.family == "hnsw" else 0.2)
        return visited * (_JUMP + each / _BANDWIDTH) + again
    if spec.family == "flat":
        return n * each / _BANDWIDTH
    lists = lists_of(spec.main, n) if spec.family == "ivf" else n
    scanned = n * params["nprobe"] / lists
    looked_up = 1e-9 * scanned * each if spec.codes and spec.codes.name == "pq" else 0.0  # one byte, one look
    coarse = (lists if spec.family == "ivf" else 2 * math.sqrt(n)) * 4 * dim / _BANDWIDTH
    return coarse + scanned * each / _BANDWIDTH + looked_up + params["nprobe"] * _JUMP + again
