"""Any SQL query through SQLAlchemy. Say ORDER BY in it, so that an interrupted run finds its place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from embedkit.errors import BadSource, MissingExtra
from embedkit.ingest.sources.cells import plain
from embedkit.ingest.sources.contract import RecordError, Source
from embedkit.ingest.sources.mapping import ColumnMapping, unlike
from embedkit.urls import redact

if TYPE_CHECKING:
    from embedkit.types import Record

__all__ = ["SqlSource", "open_source"]

_AS_WRITTEN: dict[str, Any] = {  # a colon or a percent sign in it is no parameter
    "stream_results": True,
    "yield_per": 1_000,
    "no_parameters": True,
}
_PACKAGES = {"MySQLdb": "mysqlclient", "psycopg2": "psycopg2-binary"}  # where pip knows a module by another name


def open_source(text: str, *, mapping: ColumnMapping, query: str | None) -> Source:
    """Raises BadSource when there is no query, or the URL is not understood."""
    if not query:
        raise BadSource(
            f"The catalog {redact(text)!r} is a database; say what to read, for example "
            '--query "SELECT id, image_url, title FROM products ORDER BY id"'
        )
    return SqlSource(text, mapping, query)


def _check_file(url: sa.URL) -> None:
    """SQLite would make an empty database of a name that is misspelt."""
    file = url.database
    if url.get_backend_name() != "sqlite" or not file or file == ":memory:" or file.startswith("file:"):
        return
    if not Path(file).is_file():
        raise BadSource(
            f"There is no database file {file!r}; write sqlite:///relative/path or sqlite:////absolute/path"
        )


class SqlSource(Source):
    """Streams the rows of one query. Paths of pictures are relative to the working directory, and kept absolute."""

    def __init__(self, url: str, mapping: ColumnMapping, query: str) -> None:
        self.name = redact(url)
        self._url, self._mapping, self._query = url, mapping, query
        try:
            parsed = sa.make_url(url)
            if parsed.drivername == "postgresql":
                parsed = parsed.set(drivername="postgresql+psycopg")
            _check_file(parsed)
            if "@" in (parsed.host or ""):  # else the driver would show it as a part of the host's name
                raise BadSource(f"The password in {redact(url)!r} holds an @; write %40 for it")
            self._engine = sa.create_engine(parsed)
        except ModuleNotFoundError as error:
            package = _PACKAGES.get(error.name or "", error.name or "its driver")
            extra = "postgres" if package == "psycopg" else ""
            raise MissingExtra(package, extra, needed_for=f"The database {redact(url)!r}") from error
        except ValueError as error:  # it would show what stands for the port, which may be of the password
            raise BadSource(f"The database {redact(url)!r} has no number for a port") from error
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
            raise BadSource(f"The database {redact(url)!r} cannot be opened: {error}") from error

    def fingerprint(self) -> str | None:
        """The query's own text, if it says how to order: else nothing tells where an interrupted run was."""
        if "order by" not in self._query.lower():
            return None
        text = f"{redact(self._url)}\x00{self._query}\x00{self._mapping}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def count(self) -> int | None:
        return None

    def records(self, start: int = 0) -> Iterator[Record | RecordError]:
        try:
            with self._engine.connect().execution_options(**_AS_WRITTEN) as connection:
                result = connection.exec_driver_sql(self._query)
                if not result.returns_rows:
                    raise BadSource(f"The query on {redact(self._url)!r} gives no rows; write a SELECT")
                columns = self._mapping.resolve("The query", unlike(self.name, list(result.keys())))
                for number, row in islice(enumerate(result.mappings(), 1), start, None):
                    locator = f"query row {number}"
                    try:
                        values = {name: plain(value) for name, value in row.items()}
                        yield columns.record(values, locator, os.path.abspath)
                    except ValueError as error:
                        yield RecordError(None, locator, str(error))
        except sa.exc.SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise BadSource(f"The query on {redact(self._url)!r} failed: {reason}") from error

    def close(self) -> None:
        self._engine.dispose()
