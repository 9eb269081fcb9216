"""``rows.sqlite``: which position holds which id, with its columns. Its transactions are the commit points."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.backends.contract import CollectionSpec, IndexSpec

if TYPE_CHECKING:
    from embedkit.types import IdArray

__all__ = ["RowFile"]

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rows (position INTEGER PRIMARY KEY, id INTEGER NOT NULL UNIQUE, columns TEXT NOT NULL);
"""
_IN = "id IN (SELECT value FROM json_each(?))"


class RowFile:
    """One SQLite file; the caller holds a lock around every call."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")

    def create(self, spec: CollectionSpec) -> None:
        """Lay out an empty file."""
        self._db.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
        values = {"dim": spec.dim, "metric": spec.metric, "kind": spec.kind, "index": str(spec.index)}
        with self.writing():
            for name, value in {**values, "generation": 0, "next": 0, "columns_version": 0, "index_file": ""}.items():
                self.set(name, value)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One write transaction; no other process writes meanwhile."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One consistent view over several reads."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("COMMIT")

    def set(self, name: str, value: object) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, str(value)))

    def meta(self) -> dict[str, str]:
        return dict(self._db.execute("SELECT name, value FROM meta"))

    def data_version(self) -> int:
        """Changes when another connection has committed."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def spec(self, name: str) -> CollectionSpec:
        meta = self.meta()
        return CollectionSpec(
            name,
            int(meta["dim"]),
            meta["metric"],  # type: ignore[arg-type]
            meta["kind"],  # type: ignore[arg-type]
            IndexSpec.parse(meta["index"]),
        )

    def insert(self, start: int, ids: IdArray, columns: Sequence[str]) -> list[int]:
        """Put rows at consecutive positions; the positions they had before, which are now dead."""
        dead = self.remove(ids)
        rows = zip(range(start, start + len(ids)), ids.tolist(), columns, strict=True)
        self._db.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)
        self.set("next", start + len(ids))
        return dead

    def remove(self, ids: IdArray) -> list[int]:
        """The positions that have become dead."""
        given = (json.dumps(ids.tolist()),)
        dead = [row[0] for row in self._db.execute(f"SELECT position FROM rows WHERE {_IN}", given)]
        if dead:
            self._db.execute(f"DELETE FROM rows WHERE {_IN}", given)
        return dead

    def update(self, ids: IdArray, columns: Sequence[str]) -> None:
        self._db.executemany("UPDATE rows SET columns = ? WHERE id = ?", zip(columns, ids.tolist(), strict=True))
        self.set("columns_version", int(self.meta()["columns_version"]) + 1)

    def find(self, ids: IdArray) -> dict[int, tuple[int, dict[str, Any]]]:
        """(position, columns) by id."""
        found = self._db.execute(f"SELECT id, position, columns FROM rows WHERE {_IN}", (json.dumps(ids.tolist()),))
        return {row[0]: (row[1], json.loads(row[2])) for row in found}

    def ids_by_position(self, size: int) -> IdArray:
        """``(size,)`` int64, -1 at dead positions."""
        table = np.full(size, -1, np.int64)
        cursor = self._db.execute("SELECT position, id FROM rows")
        while chunk := cursor.fetchmany(50_000):
            pairs = np.array(chunk, np.int64)
            table[pairs[:, 0]] = pairs[:, 1]
        return table

    def columns_from(self, position: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """(position, columns) of the live rows from a position on."""
        for at, text in self._db.execute("SELECT position, columns FROM rows WHERE position >= ?", (position,)):
            yield at, json.loads(text)

    def renumber(self) -> None:
        """Close the gaps: positions 0, 1, 2, … in the old order."""
        self._db.execute(
            "CREATE TABLE packed (position INTEGER PRIMARY KEY, id INTEGER NOT NULL UNIQUE, columns TEXT NOT NULL)"
        )
        self._db.execute(
            "INSERT INTO packed SELECT row_number() OVER (ORDER BY position) - 1, id, columns "
            "FROM rows ORDER BY position"
        )
        self._db.execute("DROP TABLE rows")
        self._db.execute("ALTER TABLE packed RENAME TO rows")

    def checkpoint(self) -> None:
        """Bring the write-ahead log into the file, and both onto the disk."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._db.close()
