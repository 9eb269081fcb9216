"""One collection: append-only vectors in a mapped file, rows in SQLite, an optional index.

Writing: the vectors go behind the last committed row, then one SQLite transaction makes them count.
A crash in between leaves bytes behind the end, which the next write covers. Positions are never
handed out and never reused, except by compaction, which writes a new file (a new *generation*).
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.backends.contract import CollectionSpec, Fetched, IndexSpec, SearchParams, SearchResult
from embedkit.backends.faiss import kernel
from embedkit.backends.faiss.errors import not_found, translated
from embedkit.backends.faiss.filters import ColumnCache
from embedkit.backends.faiss.rows import RowFile
from embedkit.errors import BackendUnavailable, EmbedkitError
from embedkit.filters import Filter

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray

__all__ = ["FaissCollection"]

_log = logging.getLogger(__name__)
_WASTE = 0.25  # share of dead rows that starts a compaction
_WASTE_ROWS = 10_000


@dataclass(frozen=True)
class _State:
    """What the committed rows are. `ids`: by position, -1 where dead. `covered`: rows in `index`."""

    ids: IdArray
    dead: int
    generation: int
    columns_version: int
    index: Any
    index_file: str
    covered: int

    @property
    def size(self) -> int:
        return len(self.ids)


class FaissCollection:
    """Thread-safe. Other processes may read and write too: SQLite tells when they have."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "rows.sqlite").is_file():
            raise not_found(folder.name)
        self.folder = folder
        self._lock = threading.RLock()
        self._cache = ColumnCache()
        self._compacting: threading.Thread | None = None
        with translated(folder):
            self._rows = RowFile(folder / "rows.sqlite")
            self.spec = self._rows.spec(folder.name)
            self._map: FloatArray = np.empty((0, self.spec.dim), np.float32)
            self._mapped_generation = -1
            self._ids_room = np.empty(0, np.int64)
            self._version = -1
            self._state: _State | None = None
            self._now()

    @staticmethod
    def create(folder: Path, spec: CollectionSpec) -> None:
        """Lay out the files of an empty collection; the row file comes last and makes it exist."""
        draft = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        with translated(folder):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            (draft / "vectors-0.f32").touch()
            rows = RowFile(draft / "rows.sqlite")
            rows.create(replace(spec, index=IndexSpec()))
            rows.close()
            os.replace(draft, folder)

    # -- what is there -------------------------------------------------------------------------

    def _now(self) -> _State:
        """The committed state, read again when another process has changed it."""
        version = self._rows.data_version()
        if self._state is None or version != self._version:
            with self._rows.reading():
                meta = self._rows.meta()
                ids = self._rows.ids_by_position(int(meta["next"]))
            self._adopt(meta, ids)
            self._version = version
        return self._state  # type: ignore[return-value]

    def _adopt(self, meta: dict[str, str], ids: IdArray) -> None:
        old = self._state
        if old and (old.generation, old.columns_version) != (int(meta["generation"]), int(meta["columns_version"])):
            self._cache.clear()
        index = old.index if old and old.index_file == meta["index_file"] else self._load_index(meta["index_file"])
        self._ids_room = ids
        self.spec = replace(self.spec, index=IndexSpec.parse(meta["index"]))
        self._state = _State(
            ids=ids,
            dead=int((ids < 0).sum()),
            generation=int(meta["generation"]),
            columns_version=int(meta["columns_version"]),
            index=index,
            index_file=meta["index_file"],
            covered=index.ntotal if index is not None else 0,
        )

    def _load_index(self, name: str) -> Any:
        return kernel.read_index(self.folder / name) if name else None

    def _vectors(self, state: _State) -> FloatArray:
        """The mapped rows ``(size, dim)``."""
        if self._mapped_generation != state.generation or len(self._map) < state.size:
            row = 4 * self.spec.dim
            with (self.folder / f"vectors-{state.generation}.f32").open("rb") as file:
                length = os.fstat(file.fileno()).st_size // row
                if length == 0:
                    self._map = np.empty((0, self.spec.dim), np.float32)
                else:
                    view = mmap.mmap(file.fileno(), length * row, access=mmap.ACCESS_READ)
                    self._map = np.frombuffer(view, np.float32).reshape(length, self.spec.dim)
            self._mapped_generation = state.generation
        return self._map[: state.size]

    # -- writing -------------------------------------------------------------------------------

    def upsert(self, ids: IdArray, vectors: FloatArray, columns: Sequence[str]) -> None:
        with self._lock, translated(self.folder):
            with self._rows.writing():
                state = self._now_in_transaction()
                start = state.size
                self._append(state, vectors)
                dead = self._rows.insert(start, ids, columns)
            self._state = replace(state, ids=self._grown(state, ids, dead), dead=state.dead + len(dead))
        self._compact_if_wasteful()

    def _now_in_transaction(self) -> _State:
        """As `_now`, under the write lock, so that no other process can come between."""
        if self._state is None or self._rows.data_version() != self._version:
            meta = self._rows.meta()
            self._adopt(meta, self._rows.ids_by_position(int(meta["next"])))
            self._version = self._rows.data_version()
        return self._state  # type: ignore[return-value]

    def _append(self, state: _State, vectors: FloatArray) -> None:
        handle = os.open(self.folder / f"vectors-{state.generation}.f32", os.O_RDWR)
        try:
            data, at = np.ascontiguousarray(vectors).data.cast("B"), state.size * self.spec.dim * 4
            while data:
                written = os.pwrite(handle, data, at)
                data, at = data[written:], at + written
            os.fdatasync(handle)
        finally:
            os.close(handle)

    def _grown(self, state: _State, ids: IdArray, dead: Sequence[int]) -> IdArray:
        """The id table with new rows; searches that run keep the old view, so dead rows need a copy."""
        size = state.size + len(ids)
        if dead or size > len(self._ids_room) or state.ids.base is not self._ids_room:
            room = np.empty(max(size, 1024, len(ids) + 3 * state.size // 2), np.int64)
            room[: state.size] = state.ids
            room[list(dead)] = -1
            self._ids_room = room
        self._ids_room[state.size : size] = ids
        return self._ids_room[:size]

    def update_columns(self, ids: IdArray, columns: Sequence[str]) -> None:
        with self._lock, translated(self.folder):
            with self._rows.writing():
                state = self._now_in_transaction()
                self._rows.update(ids, columns)
            self._state = replace(state, columns_version=state.columns_version + 1)
            self._cache.clear()

    def delete(self, ids: IdArray) -> None:
        with self._lock, translated(self.folder):
            with self._rows.writing():
                state = self._now_in_transaction()
                dead = self._rows.remove(ids)
            if dead:
                table = state.ids.copy()
                table[dead] = -1
                self._state = replace(state, ids=table, dead=state.dead + len(dead))
        self._compact_if_wasteful()

    def flush(self) -> None:
        with self._lock, translated(self.folder):
            self._rows.checkpoint()

    # -- reading -------------------------------------------------------------------------------

    def search(self, queries: FloatArray, k: int, where: Filter | None, params: SearchParams | None) -> SearchResult:
        with self._lock, translated(self.folder):
            state = self._now()
            vectors = self._vectors(state)
            mask = self._mask(state, where)
        metric = self.spec.metric
        if state.index is None:
            found = kernel.scan(vectors, queries, k, metric, mask)
        else:
            covered = state.covered
            tail = None if mask is None else mask[covered:]
            found = kernel.merge(
                [
                    kernel.search_index(state.index, queries, k, None if mask is None else mask[:covered], params),
                    kernel.scan(vectors[covered:], queries, k, metric, tail, covered),
                ],
                k,
                metric,
            )
        return _answer(found, state.ids, metric, min(k, state.size - state.dead))

    def _mask(self, state: _State, where: Filter | None) -> kernel.Mask | None:
        alive = state.ids >= 0 if state.dead else None
        if where is None:
            return alive
        start = self._cache.missing(where, state.size)
        if start is not None:
            self._cache.load(where, self._rows.columns_from(start), state.size)
        mask = self._cache.mask(where, state.size)
        return mask if alive is None else mask & alive

    def fetch(self, ids: IdArray) -> Fetched:
        with self._lock, translated(self.folder):
            state = self._now()
            found = self._rows.find(ids)
            present = [i for i in ids.tolist() if i in found]
            positions = np.array([found[i][0] for i in present], np.int64)
            rows = self._vectors(state)[positions] if present else np.empty((0, self.spec.dim), np.float32)
            return Fetched(np.array(present, np.int64), rows, tuple(found[i][1] for i in present))

    def scan_ids(self, batch: int) -> Iterator[IdArray]:
        with self._lock, translated(self.folder):
            ids = self._now().ids
        alive = ids[ids >= 0]
        for start in range(0, len(alive), batch):
            yield alive[start : start + batch].copy()

    def count(self) -> int:
        with self._lock, translated(self.folder):
            state = self._now()
            return state.size - state.dead

    # -- index and compaction ------------------------------------------------------------------

    def build_index(self, spec: IndexSpec) -> None:
        """Searches and writes go on meanwhile; rows that come later are scanned exactly beside the index."""
        with self._lock, translated(self.folder):
            if self._now().dead:
                self._compact()
            state = self._now()
            vectors = self._vectors(state)
        name, index = "", None
        with translated(self.folder):
            if spec.family != "flat":
                index = kernel.build(spec, vectors, self.spec.metric)
                name = f"index-{state.generation}-{state.size}-{os.urandom(4).hex()}.faiss"
                kernel.write_index(index, self.folder / name)
        with self._lock, translated(self.folder):
            with self._rows.writing():
                now = self._now_in_transaction()
                if now.generation != state.generation:
                    raise BackendUnavailable(
                        f"{self.folder}: it was compacted while the index was built; build it again"
                    )
                self._rows.set("index_file", name)
                self._rows.set("index", spec)
            self.spec = replace(self.spec, index=spec)
            self._state = replace(now, index=index, index_file=name, covered=index.ntotal if index else 0)
            self._sweep()

    def _compact_if_wasteful(self) -> None:
        state = self._state
        if state and state.dead > max(_WASTE_ROWS, _WASTE * state.size) and not self._compacting:
            self._compacting = threading.Thread(target=self._compact_behind, name="faiss-compact", daemon=True)
            self._compacting.start()

    def _compact_behind(self) -> None:
        try:
            with self._lock, translated(self.folder):
                spec = self.spec.index
                self._compact()
            if spec.family != "flat":
                self.build_index(spec)
        except EmbedkitError as error:
            _log.warning("The compaction of %s was put off: %s", self.folder, error)
        finally:
            self._compacting = None

    def _compact(self) -> None:
        """Write the live rows into a new file, close the gaps in the positions, drop the index."""
        with self._rows.writing():
            state = self._now_in_transaction()
            vectors = self._vectors(state)
            alive = np.flatnonzero(state.ids >= 0)
            generation = state.generation + 1
            with (self.folder / f"vectors-{generation}.f32").open("wb") as file:
                for start in range(0, len(alive), 65_536):
                    file.write(np.ascontiguousarray(vectors[alive[start : start + 65_536]]).data)
                file.flush()
                os.fdatasync(file.fileno())
            self._rows.renumber()
            for name, value in {
                "generation": generation,
                "next": len(alive),
                "index_file": "",
                "index": "flat",
            }.items():
                self._rows.set(name, value)
            meta = self._rows.meta()
        self._adopt(meta, state.ids[alive].copy())
        self._sweep()

    def _sweep(self) -> None:
        """Remove files that no committed state names."""
        state = self._now()
        wanted = {f"vectors-{state.generation}.f32", state.index_file}
        for path in [*self.folder.glob("vectors-*.f32"), *self.folder.glob("index-*")]:
            if path.name not in wanted:
                with contextlib.suppress(OSError):
                    path.unlink()

    def close(self) -> None:
        with self._lock:
            self._map = np.empty((0, self.spec.dim), np.float32)
            self._rows.close()


def _answer(found: kernel.Found, ids: IdArray, metric: str, k: int) -> SearchResult:
    """Positions become ids; padding becomes -1 and NaN."""
    values, positions = found.values[:, :k], found.positions[:, :k]
    there = positions >= 0
    known = np.where(there, ids[np.where(there, positions, 0)] if len(ids) else -1, -1)
    distances = np.where(there, values, np.nan).astype(np.float32)
    return SearchResult(known.astype(np.int64), distances, -distances if metric == "l2" else distances)
