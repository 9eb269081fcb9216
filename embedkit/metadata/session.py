"""What every part of the store stands on: reading, writing, and questions in parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import sqlalchemy as sa

from embedkit.errors import StoreBusy
from embedkit.metadata.errors import told
from embedkit.sqlite import SqliteConnection

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

    Inserting: TypeAlias = sqlite.Insert | postgresql.Insert

__all__ = ["Session", "inserting", "now", "parts"]

T = TypeVar("T")
_PART = 5_000  # values in one statement; SQLite takes 32,766, PostgreSQL 65,535


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(timezone.utc)


def parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """The values in pieces that fit into one statement."""
    for first in range(0, len(values), _PART):
        yield values[first : first + _PART]


def inserting(connection: sa.Connection, table: sa.Table) -> Inserting:
    """An insert that can say what becomes of a row which another writer has put there meanwhile."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


class Session:
    """An engine with two ways in. Thread-safe."""

    def __init__(self, engine: sa.Engine, url: str) -> None:
        self._engine = engine
        self.url = url
        alone = engine.dialect.name == "sqlite"  # there a connection begins nothing unless it is to write
        self._reader = engine if alone else engine.execution_options(isolation_level="AUTOCOMMIT")
        self._driver_error: type[Exception] = engine.dialect.loaded_dbapi.Error
        self._writer = engine.execution_options(write=True)

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        """Statements that each see the newest commit."""
        with told(self.url), self._reader.connect() as connection:
            yield connection
            driver = connection.connection.driver_connection
            if isinstance(driver, SqliteConnection) and not driver.is_current():
                raise StoreBusy(f"The metadata store {self.url} was written to while it was read; ask again.")

    def _rows(self, statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """The rows of a small statement in the driver's own words: SQLAlchemy takes longer than the database."""
        with self._read() as connection, closing(connection.connection.cursor()) as cursor:
            try:
                cursor.execute(statement, values)
                return list(cursor.fetchall())
            except self._driver_error as error:
                raise sa.exc.DBAPIError.instance(statement, values, error, self._driver_error) from error

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        """One transaction: all of it, or nothing if an error leaves the block."""
        with told(self.url), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        """Release every connection."""
        self._engine.dispose()
