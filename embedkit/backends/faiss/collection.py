"""One collection: append-only files of vectors and ids, rows in SQLite, an optional index.

Writing: vectors and ids go behind the last row that counts, then one SQLite transaction makes them count.
Positions are never handed out and never reused, except by compaction, which writes new files (a new *generation*).

Two locks, so that a search never waits for a write: `_writing` is held by writes, `_lock` for the moment in which
the committed state is read. Each has its own connection to the row file. A file lock lets one process at a time
build an index or compact.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from embedkit.backends.contract import (
    CollectionSpec,
    Fetched,
    IndexSpec,
    IndexUse,
    SearchParams,
    SearchResult,
    scores_of,
)
from embedkit.backends.faiss import kernel
from embedkit.backends.faiss.bits import BitKernel
from embedkit.backends.faiss.errors import broken, not_found, translated
from embedkit.backends.faiss.files import Generation
from embedkit.backends.faiss.filters import ColumnCache
from embedkit.backends.faiss.floats import FloatKernel
from embedkit.backends.faiss.folders import laid_out, mark_of
from embedkit.backends.faiss.rows import Meta, RowFile
from embedkit.backends.faiss.state import State
from embedkit.backends.validation import closed
from embedkit.errors import BackendUnavailable, EmbedkitError
from embedkit.filters import Filter

if TYPE_CHECKING:
    from embedkit.types import IdArray, Metric, VectorArray

__all__ = ["FaissCollection"]

_log = logging.getLogger(__name__)
_WASTE = 0.25  # share of dead rows that starts a compaction
_BESIDE = 0.5  # share of rows beside the index that starts its building anew
_APPENDED = 0.1  # share of rows beside the index that are added to it, where it can grow
_SOME = 10_000  # rows below which neither is worth it
_RENEWED = 1_000  # changed rows up to which the columns in memory are mended one by one
_FILTERS = 8  # whose rows are remembered, at 1 to 3 bytes a row
_TRIES = 3  # another process may sweep a generation away between the reading of its name and its opening


class FaissCollection:
    """Thread-safe. Other processes may read and write too: SQLite tells when they have."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise not_found(folder.name)
        self.folder = folder
        self._row_file = folder / "rows.sqlite"
        self._mark = mark_of(self._row_file)
        if self._mark is None:
            raise broken(folder, "the file 'rows.sqlite' is missing") if folder.is_dir() else not_found(folder.name)
        self._closed: Literal["", "closed", "dropped"] = ""
        self._lock = threading.RLock()
        self._writing = threading.RLock()
        self._cache = ColumnCache()
        self._upkeep: threading.Thread | None = None
        with self._told():
            self._reader = RowFile(self._row_file)
            self._writer = RowFile(self._row_file)
            self.spec = self._reader.spec(folder.name)
            self._kernel = BitKernel() if self.spec.kind == "binary" else FloatKernel(self.spec.metric)
            self._room = np.empty(0, np.int64)
            self._made: tuple[str, Any] = ("", None)
            self._version = (0, -1)
            self._state: State | None = None
        self.count()

    @staticmethod
    def create(folder: Path, spec: CollectionSpec) -> None:
        """Lay out the files of an empty collection; the folder's move makes it exist. Raises CollectionExists."""
        with translated(folder.parent), laid_out(folder) as draft:
            Generation(draft, 0, spec).create()
            rows = RowFile(draft / "rows.sqlite")
            rows.create(replace(spec, index=IndexSpec()))
            rows.close()

    def exists(self) -> bool:
        """False once another process has dropped it, whether or not there is another one of that name."""
        return mark_of(self._row_file) == self._mark

    def _told(self) -> contextlib.AbstractContextManager[None]:
        return translated(self.folder, self.folder.name)

    def _check_open(self) -> None:
        """Called with one of the locks held, so that nobody closes it meanwhile."""
        if self._closed == "dropped":
            raise not_found(self.folder.name)
        if self._closed:
            raise closed(str(self.folder))

    def _generation(self, number: int) -> Generation:
        return Generation(self.folder, number, self.spec)

    # -- what is there -------------------------------------------------------------------------

    @contextlib.contextmanager
    def _look(self) -> Iterator[State]:
        """The committed state, and one consistent view of the row file while it is used. Not to be nested."""
        with self._lock, self._told():
            self._check_open()
            for trial in range(_TRIES):
                self._reader.begin()
                try:
                    state = self._now()
                    if self._reader.is_current():
                        break
                    raise BackendUnavailable(f"{self.folder}: another process is writing to it; try again")
                except BaseException as error:
                    again = isinstance(error, FileNotFoundError) or not self._reader.is_current()
                    self._reader.end()
                    if not again or trial == _TRIES - 1:
                        raise
            try:
                yield state
            finally:
                self._reader.end()

    def _now(self) -> State:
        """What has been written since the last look is read, and no more."""
        version = self._reader.data_version()
        if self._state is None or version != self._version:
            self._state, self._version = self._refreshed(self._reader.meta()), version
        return self._state

    def _refreshed(self, meta: Meta) -> State:
        old = self._state if self._state and self._state.generation == meta.generation else None
        if old is None:
            self._cache.clear()
            self._room = np.empty(0, np.int64)
        files = self._generation(meta.generation)
        dead = self._reader.dead(old.seen[0] if old else 0)
        ids = self._with_tail(old.ids if old else self._room, files, meta.size)
        if len(dead.positions):  # searches that run keep the old table
            ids = ids.copy()
            ids[dead.positions] = -1
        alive = ids >= 0
        vectors = old.vectors if old and len(old.vectors) >= meta.size else files.map()
        if len(vectors) < meta.size:
            raise broken(self.folder, f"{meta.size:,} vectors count, and the file holds {len(vectors):,}")
        index = self._index(meta.index_file)
        changed = self._renew_columns(old, ids)
        self.spec = replace(self.spec, index=meta.index)
        return State(
            ids,
            vectors,
            None if alive.all() else alive,
            meta.generation,
            index,
            meta.index_file,
            meta.index,
            meta.built,
            (dead.last, changed),
        )

    def _index(self, name: str) -> Any:
        if self._state is not None and self._state.index_file == name:
            return self._state.index
        made, self._made = self._made, ("", None)
        return made[1] if made[0] == name else self._kernel.opened(self.folder / name)

    def _with_tail(self, ids: IdArray, files: Generation, size: int) -> IdArray:
        """The id table with the rows that have come since; it grows in place where there is room."""
        known = len(ids)
        if size == known:
            return ids
        if size > len(self._room) or ids.base is not self._room:
            room = np.empty(max(1_024, size + size // 2), np.int64)
            room[:known] = ids
            self._room = room
        tail = files.ids(known, size)
        if len(tail) < size - known:
            raise broken(self.folder, f"{size:,} ids count, and the file holds {known + len(tail):,}")
        self._room[known:size] = tail
        return self._room[:size]

    def _renew_columns(self, old: State | None, ids: IdArray) -> int:
        """Bring the columns in memory up to date; the last number of the log of changes."""
        changed = self._reader.changed(old.seen[1] if old else 0)
        if old is None or not len(changed.positions):
            if not changed.complete:
                self._cache.clear()
            return changed.last
        here = ids[changed.positions]
        if len(here) > _RENEWED:
            self._cache.clear()
        else:
            self._cache.put(self._reader.find(np.unique(here[here >= 0])).values())
        return changed.last

    # -- writing -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _write(self) -> Iterator[Meta]:
        """The one write transaction there is, and the state it starts from."""
        with self._writing, self._told():
            self._check_open()
            with self._writer.writing():
                yield self._writer.meta()

    def upsert(self, ids: IdArray, vectors: VectorArray, columns: Sequence[str]) -> None:
        with self._write() as meta:
            self._generation(meta.generation).append(meta.size, ids, vectors)
            self._writer.insert(meta.size, ids, columns)
        self._upkeep_if_due()

    def update_columns(self, ids: IdArray, columns: Sequence[str]) -> None:
        with self._write():
            self._writer.update(ids, columns)

    def delete(self, ids: IdArray) -> None:
        with self._write():
            self._writer.remove(ids)
        self._upkeep_if_due()

    def flush(self) -> None:
        with self._writing, self._told():
            self._check_open()
            self._writer.checkpoint()

    # -- reading -------------------------------------------------------------------------------

    def search(self, queries: VectorArray, k: int, where: Filter | None, params: SearchParams | None) -> SearchResult:
        with self._look() as state:
            admitted = self._admitted(state, where)
        found = self._kernel.search(
            state.vectors[: state.size],
            queries,
            k,
            admitted,
            state.index,
            state.made_of,
            params,
            lambda: state.order,
        )
        return _answer(found, state.ids, self.spec.metric, min(k, admitted.count if admitted else state.size))

    def _admitted(self, state: State, where: Filter | None) -> kernel.Admitted | None:
        """The live rows that a filter admits, None for all."""
        name = repr(where)  # in which 1 and true differ
        found = state.admitted.pop(name, None)
        if found is None:
            mask = state.alive if where is None else self._mask(state, where)
            if mask is None:
                return None
            found = kernel.Admitted.of(mask)
        state.admitted[name] = found  # the last one asked for goes last
        if len(state.admitted) > _FILTERS:
            del state.admitted[next(iter(state.admitted))]
        return found

    def _mask(self, state: State, where: Filter) -> kernel.Mask:
        start = self._cache.missing(where, state.size)
        if start is not None:
            self._cache.load(where, self._columns_from(state, start), state.size)
        mask = self._cache.mask(where, state.size)
        return mask if state.alive is None else mask & state.alive

    def _columns_from(self, state: State, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """(position, columns) of live rows: of the last ones by their ids, or of all."""
        if start < state.size // 2:
            yield from self._reader.every()
            return
        tail = state.ids[start:]
        yield from self._reader.find(tail[tail >= 0]).values()

    def fetch(self, ids: IdArray) -> Fetched:
        with self._look() as state:
            found = self._reader.find(ids)
            present = [i for i in ids.tolist() if i in found]
            rows = state.vectors[np.array([found[i][0] for i in present], np.int64)]
            return Fetched(np.array(present, np.int64), rows, tuple(found[i][1] for i in present))

    def scan_ids(self, batch: int) -> Iterator[IdArray]:
        with self._look() as state:
            ids = state.ids
        alive = ids[ids >= 0]
        for start in range(0, len(alive), batch):
            yield alive[start : start + batch]

    def count(self) -> int:
        with self._look() as state:
            return state.live

    # -- index and compaction ------------------------------------------------------------------

    @contextlib.contextmanager
    def _alone(self, *, wait: bool) -> Iterator[bool]:
        """Whether no other thread or process builds or compacts here meanwhile."""
        with self._told(), (self.folder / "upkeep.lock").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def check_index(self, spec: IndexSpec) -> None:
        """Raises ConfigError, UnsupportedByBackend unless such an index can be built over the rows that there are."""
        self._kernel.check(spec, self.spec.dim, self.count())

    def build_index(self, spec: IndexSpec) -> None:
        """Searches and writes go on meanwhile; rows that come later are scanned exactly beside the index."""
        self.check_index(spec)
        with self._alone(wait=True):
            self._build(spec)

    def index_use(self) -> IndexUse:
        """Dead rows within the index count as covered until they are swept out."""
        with self._look() as state, self._told():
            if state.made_of == IndexSpec():
                return IndexUse(state.live, state.live, 0)
            size = (self.folder / state.index_file).stat().st_size if state.index is not None else 0
            return IndexUse(state.live, min(state.live, state.covered), size)

    def _build(self, spec: IndexSpec) -> None:
        """Called when `_alone`. Dead rows are left behind on the way."""
        with self._look() as state:
            pass
        if state.alive is not None:
            self._renew(state, spec)
            return
        name = self._built(spec, state.vectors[: state.size])
        with self._write():
            self._writer.set_index(spec, name, state.size)
        self._sweep()

    def _extend(self, state: State) -> None:
        """Add the rows that lie beside the index to a copy of it. Called when `_alone`."""
        with self._told():
            index = self._kernel.read(self.folder / state.index_file)
            self._kernel.extend(index, state.vectors[state.covered : state.size])
            name = self._put_down(index)
        with self._write():
            self._writer.set_index(state.made_of, name, state.built)
        self._sweep()

    def _built(self, spec: IndexSpec, vectors: VectorArray) -> str:
        """Build an index over the first rows into a file; its name, '' for no index."""
        with self._told():
            index = self._kernel.build(spec, vectors)
            return self._put_down(index) if index is not None else ""

    def _put_down(self, index: Any) -> str:
        """Write an index into a new file; its name."""
        name = f"index-{os.urandom(6).hex()}.faiss"
        self._kernel.write(index, self.folder / name)
        self._made = (name, index)
        return name

    def _upkeep_if_due(self) -> None:
        """Start to compact, or to build the index anew, behind the caller's back."""
        if not self._upkeep and self._due() is not None:
            self._upkeep = threading.Thread(target=self._keep_up, name="faiss-upkeep", daemon=True)
            self._upkeep.start()

    def _due(self) -> Callable[[State], None] | None:
        """What is to be done, if anything: compact and build, add to the index, or build it anew."""
        with self._look() as state:
            dead, beside = state.size - state.live, state.size - state.covered
        if dead > max(_SOME, _WASTE * state.size):
            return self._build_again
        if state.made_of == IndexSpec() or state.live < self._kernel.needs(state.made_of, self.spec.dim):
            return None
        growth = self._kernel.growth(state.made_of)
        if state.index is None or growth == 1:
            return self._build_again if beside > max(_SOME, _BESIDE * state.size) else None
        if beside <= max(_SOME, _APPENDED * state.size):
            return None
        return self._extend if state.size < growth * state.built else self._build_again

    def _build_again(self, state: State) -> None:
        """Called when `_alone`. An index that has too few rows left to learn from waits for more."""
        del state
        with self._look() as now:
            enough = now.live >= self._kernel.needs(now.made_of, self.spec.dim)
        self._build(now.made_of) if enough else self._renew(now, now.made_of, bare=True)

    def _keep_up(self) -> None:
        try:
            with self._alone(wait=False) as alone:
                while alone and (work := self._due()) is not None:
                    with self._look() as state:
                        pass
                    work(state)
        except EmbedkitError as error:
            _log.warning("The upkeep of %s was put off: %s", self.folder, error)
        finally:
            self._upkeep = None

    def _renew(self, state: State, spec: IndexSpec, *, bare: bool = False) -> None:
        """A new generation without the dead rows, and its index, unless `bare`. Called when `_alone`.

        Writes wait only while the positions are renumbered, and what they brought since `state` is carried over.
        """
        files = self._generation(state.generation + 1)
        kept = np.flatnonzero(state.ids >= 0)
        with self._told():
            files.copy(state.vectors, kept)
            vectors = files.map()
        name = "" if bare else self._built(spec, vectors)
        with self._write():
            with self._look() as now:
                ids = np.concatenate([now.ids[kept], now.ids[state.size :]])
            files.write_ids(ids)
            files.append(len(kept), ids[len(kept) :], now.vectors[state.size : now.size])
            self._writer.renew(files.number, ids)
            self._writer.set_index(spec, name, len(kept))
        self._sweep()

    def _sweep(self) -> None:
        """Remove files that the committed state does not name. Called when `_alone`."""
        with self._look() as state:
            wanted = {*self._generation(state.generation).names, state.index_file}
        for path in (path for kind in ("vectors-*", "ids-*", "index-*") for path in self.folder.glob(kind)):
            if path.name not in wanted:
                with contextlib.suppress(OSError):
                    path.unlink()

    def close(self, *, dropped: bool = False) -> None:
        """Whoever still asks it, or waits to, gets BackendUnavailable, or CollectionNotFound if it was dropped."""
        thread = self._upkeep
        if thread is not None:
            thread.join()
        with self._writing, self._lock:
            self._closed = "dropped" if dropped else "closed"
            self._state = None
            self._reader.close()
            self._writer.close()


def _answer(found: kernel.Found, ids: IdArray, metric: Metric, k: int) -> SearchResult:
    """Positions become ids; padding becomes -1 and NaN."""
    values, known = found.values[:, :k], found.positions[:, :k]
    there = known >= 0
    if there.all():
        known = ids[known]
    else:
        known = np.where(there, ids[np.where(there, known, 0)] if len(ids) else -1, -1)
        values = np.where(there, values, np.float32(np.nan))
    return SearchResult(known, values, scores_of(metric, values))
