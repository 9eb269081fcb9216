"""What a search in FAISS is made of, whatever the vectors are: rows by position, parts on every core, index files."""

from __future__ import annotations

import errno
import logging
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt

from embedkit.backends.contract import IndexSpec, SearchParams
from embedkit.errors import DataCorrupt

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray, VectorArray

__all__ = [
    "Admitted",
    "Found",
    "Kernel",
    "Mask",
    "Order",
    "alone",
    "completed",
    "farther",
    "in_parts",
    "merged",
    "more",
    "passed",
    "probes_of",
    "sample",
    "selector",
]

Mask: TypeAlias = npt.NDArray[np.bool_]

_log = logging.getLogger(__name__)
_THREADS = os.cpu_count() or 1
_SPLIT = 4_000_000  # numbers; a smaller scan is over before a second thread has started
_FARTHER, _LEAST_SHARE = 16, 1e-7  # four times as many lists at each step
_FEW = 0.25  # share of admitted rows up to which going through their positions beats testing every row


@dataclass(frozen=True, slots=True)
class Found:
    """``(n, k)``: raw metric values and positions, best first, -1 where there are fewer."""

    values: FloatArray
    positions: IdArray

    def taken(self, places: npt.NDArray[np.intp]) -> Found:
        """Of each query some of its rows, by place ``(n, m)``."""
        query = np.arange(len(places))[:, None]
        return Found(self.values[query, places], self.positions[query, places])

    def short_of(self, wanted: int) -> IdArray:
        """The queries, by place, to which there are fewer rows."""
        return np.flatnonzero((self.positions >= 0).sum(axis=1) < wanted)

    def put(self, places: IdArray, others: Found, width: int) -> None:
        """Other answers in the place of some."""
        self.values[places, :width] = others.values[:, :width]
        self.positions[places, :width] = others.positions[:, :width]

    @classmethod
    def joined(cls, parts: Sequence[Found]) -> Found:
        """Several answers to the same queries side by side."""
        values, positions = ([part.values for part in parts], [part.positions for part in parts])
        return cls(np.concatenate(values, axis=1), np.concatenate(positions, axis=1))


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

    @property
    def share(self) -> float:
        """Of all rows; not 0, for it is divided by."""
        return max(1, self.count) / max(1, len(self.mask))

    def first(self, size: int) -> Admitted:
        """Of the first rows alone."""
        if size >= len(self.mask):
            return self
        rows = None if self.rows is None else self.rows[: int(self.rows.searchsorted(size))]
        count = int(np.count_nonzero(self.mask[:size])) if rows is None else len(rows)
        return Admitted(self.mask[:size], count, rows)


@dataclass(frozen=True, slots=True)
class Order:
    """The order of rows whose ids do not ascend with their positions.

    `ids`: by position, -1 where dead. `calm`: rows whose id is higher than every one before. `strays`: the other
    living ones, by id; a row that replaces an earlier one is one.
    """

    ids: IdArray
    calm: Mask
    strays: IdArray

    @classmethod
    def of(cls, ids: IdArray) -> Order | None:
        """None where ids and positions ascend together."""
        calm = ids == np.maximum.accumulate(ids)
        strays = np.flatnonzero(~calm & (ids >= 0))
        return cls(ids, calm, strays[np.argsort(ids[strays])]) if len(strays) else None

    def by_id(self, rows: IdArray) -> IdArray:
        """Living rows, given by ascending positions, in the order of their ids."""
        calm = self.calm[rows]
        settled, strays = rows[calm], rows[~calm]
        strays = strays[np.argsort(self.ids[strays])]
        return np.insert(settled, self.ids[settled].searchsorted(self.ids[strays]), strays)


class Kernel(ABC):
    """How the vectors of one kind are searched. It holds no rows; a collection has one."""

    @abstractmethod
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
        """The k best rows that are admitted; None admits all.

        `index`, made by `spec`, covers the first rows and those behind are scanned exactly; None for a scan of all.
        `order`: None where ids ascend with positions; called only by a kernel that orders equal rows.
        """

    @abstractmethod
    def check(self, spec: IndexSpec, dim: int, rows: int) -> None:
        """Raise ConfigError for parameters that do not fit, or for too few rows; none may be yet to come.

        Raises UnsupportedByBackend for what FAISS does not build.
        """

    @abstractmethod
    def needs(self, spec: IndexSpec, dim: int) -> int:
        """Rows that an index learns from at least."""

    @abstractmethod
    def growth(self, spec: IndexSpec) -> float:
        """How many times as many rows as it was built over an index may have; 1 if none can be added."""

    @abstractmethod
    def extend(self, index: Any, vectors: VectorArray) -> None:
        """Add rows behind those that an index has; no search may use it meanwhile."""

    @abstractmethod
    def build(self, spec: IndexSpec, vectors: VectorArray) -> Any:
        """An index over every row, whose labels are positions; None for ``flat`` and where there are no rows.

        Raises ConfigError for a bad parameter.
        """

    @abstractmethod
    def _write(self, index: Any, path: str) -> None: ...

    @abstractmethod
    def _read(self, path: str) -> Any: ...

    def write(self, index: Any, path: Path) -> None:
        """Write beside, then move: a crash leaves the old file or the new one. Raises OSError."""
        draft = path.with_suffix(".part")
        try:
            self._write(index, str(draft))
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(draft, path)
        except RuntimeError as error:  # in which FAISS hides what the system said
            told = next((code for code in errno.errorcode if f"({os.strerror(code)})" in str(error)), errno.EIO)
            raise OSError(told, os.strerror(told), str(draft)) from error
        finally:
            draft.unlink(missing_ok=True)

    def read(self, path: Path) -> Any:
        """Raises DataCorrupt."""
        try:
            return self._read(str(path))  # already of its own class; `downcast_index` would not keep it alive
        except (MemoryError, RuntimeError) as error:
            raise DataCorrupt(f"{path}: FAISS cannot read the index; build it again") from error

    def opened(self, path: Path) -> Any:
        """The index of a file; None, and a word in the log, where it is missing or broken: the vectors are there."""
        try:
            return self.read(path)
        except DataCorrupt as error:
            _log.warning("%s (embedkit index build); until then searches compare every vector", error)
            return None


@cache
def _pool() -> ThreadPoolExecutor:
    # A part has one thread; FAISS would start a team of them for every part.
    return ThreadPoolExecutor(_THREADS, "faiss-scan", initializer=partial(faiss.omp_set_num_threads, 1))


def _begin_in_fork() -> None:
    """Wait for no thread that was left behind: neither of the pool, nor of the team of OpenMP."""
    _pool.cache_clear()
    faiss.omp_set_num_threads(1)  # of the thread that forked


os.register_at_fork(after_in_child=_begin_in_fork)


def in_parts(
    part: Callable[[int, int], Found], first: int, last: int, shape: tuple[int, int], k: int, *, lower: bool
) -> Found:
    """`part` of a range, on every core where that pays: FAISS itself shares out queries, and not rows.

    `shape`: that of the queries. `lower`: whether lower values are better.
    """
    if shape[0] >= _THREADS or (last - first) * shape[1] < _SPLIT or _THREADS == 1:
        return part(first, last)
    edges = np.linspace(first, last, _THREADS + 1).astype(int).tolist()
    return merged(list(_pool().map(part, edges[:-1], edges[1:])), k, lower=lower)


@contextmanager
def alone(shape: tuple[int, int], rows: int) -> Iterator[None]:
    """Within it FAISS keeps to this thread where a team would only wait for each other: one query, or little to do."""
    before = faiss.omp_get_max_threads()
    few = shape[0] == 1 or shape[0] * shape[1] * rows < _SPLIT
    if few and before > 1:
        faiss.omp_set_num_threads(1)  # of this thread; others keep theirs
    try:
        yield
    finally:
        if few and before > 1:
            faiss.omp_set_num_threads(before)


def merged(parts: Sequence[Found], k: int, *, lower: bool) -> Found:
    """The k best of several answers to the same queries; of equal ones those of the earlier parts."""
    every = Found.joined(parts)
    worth = np.where(every.positions >= 0, -every.values if lower else every.values, -np.inf)
    return every.taken(np.argsort(-worth, axis=1, kind="stable")[:, :k])


def selector(mask: Mask | None) -> tuple[Any, Any]:
    """FAISS's view of a mask, and the memory that must outlive it."""
    if mask is None:
        return None, None
    bits = np.packbits(mask, bitorder="little")
    return faiss.IDSelectorBitmap(len(mask), faiss.swig_ptr(bits)), bits


def passed(search: Callable[[int], Found], k: int, mask: Mask) -> Found:
    """The first k hits that a mask admits, of an index that takes no filter: more are asked for, and tested.

    `search` gives as many hits as it is asked for, best first; `mask` is as long as the index has rows.
    """
    ask = more(k, mask)
    while True:
        ask = min(ask, len(mask))
        found = search(ask)
        there = found.positions >= 0
        good = there & mask[np.where(there, found.positions, 0)]
        if ask == len(mask) or bool(((good.sum(axis=1) >= k) | ~there.all(axis=1)).all()):
            blanked = Found(found.values, np.where(good, found.positions, -1))
            return blanked.taken(np.argsort(~good, axis=1, kind="stable")[:, :k])
        ask *= 4


def completed(found: Found, count: int, exactly: Callable[[IdArray, int], Found]) -> Found:
    """Questions to which an index knows fewer rows than the `count` there are get the exact answer.

    An index looks around a question; where a filter leaves out nearly all that is there, it comes home with nothing.
    `exactly`: for some of the questions, by their places, the n best rows.
    """
    wanted = min(found.positions.shape[1], count)
    short = found.short_of(wanted)
    if len(short):
        found.put(short, exactly(short, wanted), wanted)
    return found


def farther(found: Found, count: int, look: Callable[[IdArray, float], Found]) -> Found:
    """Questions to which the lists that were looked through hold fewer rows than there are, of all, look through more.

    `look`: for some of them, by their places, what is found as under a filter that admits a share of the rows.
    """
    wanted, share = min(found.positions.shape[1], count), 1.0
    while share > _LEAST_SHARE and len(short := found.short_of(wanted)):
        share /= _FARTHER
        found.put(short, look(short, share), wanted)
    return found


def more(k: int, mask: Mask) -> int:
    """Rows of which k are nearly sure to be admitted, if the filter knows nothing of distances; if it leaves out a
    handful, quite sure.
    """
    count = int(np.count_nonzero(mask))
    return min(16 + math.ceil(2 * k * len(mask) / max(1, count)), k + len(mask) - count)


def probes_of(index: Any, params: SearchParams | None) -> int:
    """How many lists of an inverted file a search goes through."""
    lists = int(index.nlist)
    return min((params and params.nprobe) or max(1, round(lists**0.5)), lists)


def sample(vectors: VectorArray, count: int) -> VectorArray:
    """At most so many rows, the same ones every time, in order."""
    if len(vectors) <= count:
        return vectors
    chosen = np.random.default_rng(0).choice(len(vectors), count, replace=False)
    return vectors[np.sort(chosen)]
