"""``rows.sqlite``: where each id lies, with its columns. Its transactions are the commit points.

The tables ``dead`` and ``changed`` are logs: a reader that knows a number of each reads only what came after,
so another process's write costs it as much as was written, and not as much as there is.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.backends.contract import CollectionSpec, IndexSpec
from embedkit.errors import DataCorrupt
from embedkit.sqlite import SqliteConnection, connect_sqlite

if TYPE_CHECKING:
    from embedkit.types import IdArray

__all__ = ["Changes", "Meta", "RowFile"]

_LAYOUT = 2
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE places (id INTEGER PRIMARY KEY, position INTEGER NOT NULL);
CREATE TABLE columns (id INTEGER PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE dead (number INTEGER PRIMARY KEY, position INTEGER NOT NULL);
CREATE TABLE changed (number INTEGER PRIMARY KEY, position INTEGER NOT NULL);
"""
_GIVEN = "IN (SELECT value FROM json_each(?))"
_LOG = 100_000  # changes that are kept for readers; one that is further behind reads all columns again


@dataclass(frozen=True, slots=True)
class Meta:
    """The committed state in short. `size`: positions in use, dead ones included. `index_file`: '' for none.

    `built`: rows that the index was built over; others may have been added to it.
    """

    generation: int
    size: int
    index: IndexSpec
    index_file: str
    built: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Positions that a log names, and its last number. `complete` false: the log no longer reaches back so far."""

    positions: IdArray
    last: int
    complete: bool = True


class RowFile:
    """One connection to the file; the caller lets one thread use it at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened = 0
        self._db = self._open()

    def _open(self) -> SqliteConnection:
        db = connect_sqlite(self._path, timeout=30)
        self._opened += 1
        if db.writes:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA cache_size=-32768")
        return db

    def create(self, spec: CollectionSpec) -> None:
        """Lay out an empty file."""
        self._db.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
        values = {"layout": _LAYOUT, "dim": spec.dim, "metric": spec.metric, "kind": spec.kind, "index": spec.index}
        with self.writing():
            for name, value in {**values, "generation": 0, "size": 0, "index_file": ""}.items():
                self._set(name, value)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One write transaction; no other connection writes meanwhile."""
        if not self._db.writes:
            raise sqlite3.OperationalError("attempt to write a readonly database")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def begin(self) -> None:
        """From here to `end` every read sees one and the same commit, the newest."""
        if not self.is_current():
            self._db.close()
            self._db = self._open()
        self._db.execute("BEGIN")

    def is_current(self) -> bool:
        """False if others have written to a file that is read as one that does not change."""
        return self._db.is_current()

    def end(self) -> None:
        self._db.execute("COMMIT")

    def _set(self, name: str, value: object) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, str(value)))

    def _values(self) -> dict[str, str]:
        return dict(self._db.execute("SELECT name, value FROM meta"))

    def data_version(self) -> tuple[int, int]:
        """Changes when another connection has committed."""
        return self._opened, int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def spec(self, name: str) -> CollectionSpec:
        """Raises DataCorrupt if another version of embedkit has laid the file out."""
        values = self._values()
        if values.get("layout") != str(_LAYOUT):
            raise DataCorrupt(
                f"{self._path}: the layout {values.get('layout', '1')} is not {_LAYOUT}, that of this embedkit; "
                "delete the folder and ingest again"
            )
        return CollectionSpec(
            name,
            int(values["dim"]),
            values["metric"],  # type: ignore[arg-type]
            values["kind"],  # type: ignore[arg-type]
            IndexSpec.parse(values["index"]),
        )

    # -- what is there -------------------------------------------------------------------------

    def meta(self) -> Meta:
        values = self._values()
        index = IndexSpec.parse(values["index"])
        size = int(values["size"])
        return Meta(int(values["generation"]), size, index, values["index_file"], int(values.get("built", size)))

    def dead(self, after: int) -> Changes:
        """Positions that died after a number of the log."""
        return self._log("dead", after)

    def changed(self, after: int) -> Changes:
        """Positions whose columns were replaced after a number of the log."""
        first = int(self._values().get("changed_from", 0))
        return (
            Changes(np.empty(0, np.int64), self._last("changed"), False)
            if after < first
            else self._log("changed", after)
        )

    def _log(self, table: str, after: int) -> Changes:
        rows = self._db.execute(f"SELECT number, position FROM {table} WHERE number > ?", (after,)).fetchall()
        if not rows:
            return Changes(np.empty(0, np.int64), after)
        pairs = np.array(rows, np.int64)
        return Changes(pairs[:, 1], int(pairs[-1, 0]))

    def _last(self, table: str) -> int:
        return int(self._db.execute(f"SELECT coalesce(max(number), 0) FROM {table}").fetchone()[0])

    def find(self, ids: IdArray) -> dict[int, tuple[int, dict[str, Any]]]:
        """(position, columns) by id."""
        found = self._db.execute(
            f"SELECT id, position, json FROM places JOIN columns USING (id) WHERE id {_GIVEN}", (_json(ids),)
        )
        return {row[0]: (row[1], json.loads(row[2])) for row in found}

    def every(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(position, columns) of all live rows."""
        for at, text in self._db.execute("SELECT position, json FROM places JOIN columns USING (id)"):
            yield at, json.loads(text)

    # -- writing, inside `writing` ----------------------------------------------------------------

    def insert(self, start: int, ids: IdArray, columns: Sequence[str]) -> None:
        """Put rows at consecutive positions; those that the ids had before die."""
        self._bury(ids)
        numbers = ids.tolist()
        places = zip(numbers, range(start, start + len(ids)), strict=True)
        self._db.executemany("INSERT OR REPLACE INTO places VALUES (?, ?)", places)
        self._db.executemany("INSERT OR REPLACE INTO columns VALUES (?, ?)", zip(numbers, columns, strict=True))
        self._set("size", start + len(ids))

    def remove(self, ids: IdArray) -> None:
        """Rows die; their columns are swept out by the next compaction."""
        if self._bury(ids):
            self._db.execute(f"DELETE FROM places WHERE id {_GIVEN}", (_json(ids),))

    def _bury(self, ids: IdArray) -> bool:
        done = self._db.execute(
            f"INSERT INTO dead (position) SELECT position FROM places WHERE id {_GIVEN}", (_json(ids),)
        )
        return done.rowcount > 0

    def update(self, ids: IdArray, columns: Sequence[str]) -> None:
        """Replace the columns of the ids that are there."""
        self._db.executemany(
            "UPDATE columns SET json = ? WHERE id = ? AND id IN (SELECT id FROM places)",
            zip(columns, ids.tolist(), strict=True),
        )
        self._db.execute(f"INSERT INTO changed (position) SELECT position FROM places WHERE id {_GIVEN}", (_json(ids),))
        last = self._last("changed")
        if last - int(self._values().get("changed_from", 0)) > 2 * _LOG:
            self._db.execute("DELETE FROM changed WHERE number <= ?", (last - _LOG,))
            self._set("changed_from", last - _LOG)

    def set_index(self, spec: IndexSpec, file: str, built: int) -> None:
        for name, value in {"index": spec, "index_file": file, "built": built}.items():
            self._set(name, value)

    def renew(self, generation: int, ids: IdArray) -> None:
        """A new generation: position `p` of its files holds the row ``ids[p]``, and no row where that is -1."""
        for table in ("places", "dead", "changed"):
            self._db.execute(f"DELETE FROM {table}")
        live = np.flatnonzero(ids >= 0)
        order = live[np.argsort(ids[live], kind="stable")]
        rows = zip(ids[order].tolist(), order.tolist(), strict=True)
        self._db.executemany("INSERT INTO places VALUES (?, ?)", rows)
        self._db.execute("DELETE FROM columns WHERE id NOT IN (SELECT id FROM places)")
        for name, value in {"generation": generation, "size": len(ids), "changed_from": 0}.items():
            self._set(name, value)

    def checkpoint(self) -> None:
        """Bring the write-ahead log into the file, and both onto the disk."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._db.close()


def _json(ids: IdArray) -> str:
    return json.dumps(ids.tolist())
