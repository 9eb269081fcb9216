"""Tables: CSV and TSV, JSON Lines, Parquet. Read as streams; `start` skips without building records."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedkit.errors import BadSource
from embedkit.ingest.sources.contract import RecordError, Source
from embedkit.ingest.sources.mapping import ColumnMapping, Columns

if TYPE_CHECKING:
    from embedkit.types import Record

__all__ = ["open_csv", "open_jsonl", "open_parquet", "plain"]

_CELL_LIMIT = 64_000_000


class _Table(Source):
    """A local file; picture paths in it are relative to its folder."""

    def __init__(self, path: Path, mapping: ColumnMapping) -> None:
        self.name = str(path)
        self._path = path
        self._mapping = mapping
        self._base = str(path.parent)
        with self._guard():
            self._columns = self._resolve()

    def fingerprint(self) -> str:
        stat = self._path.stat()
        text = f"{self._path.resolve()}\x00{stat.st_size}\x00{stat.st_mtime_ns}\x00{self._mapping}"
        return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

    def count(self) -> int | None:
        return None

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Every way in which the file as a whole may fail, as one BadSource."""
        import pyarrow

        try:
            yield
        except (OSError, UnicodeError, csv.Error, pyarrow.ArrowException) as error:
            reason = getattr(error, "strerror", None) or error
            raise BadSource(f"The catalog {str(self._path)!r} cannot be read: {reason}") from error

    @abstractmethod
    def _resolve(self) -> Columns:
        """Look at the head of the file and find the columns."""

    @abstractmethod
    def _rows(self, start: int) -> Iterator[tuple[int, dict[str, Any] | str]]:
        """(number for people, row) from the `start`-th on; a text is the reason why there is no row."""

    def records(self, start: int = 0) -> Iterator[Record | RecordError]:
        with self._guard():
            for number, row in self._rows(start):
                locator = f"{self._path.name} row {number}"
                if isinstance(row, str):
                    yield RecordError(None, locator, row)
                    continue
                try:
                    yield self._columns.record(row, locator, self._base)
                except ValueError as error:
                    yield RecordError(None, locator, str(error))


class _Csv(_Table):
    """The first line names the columns. Cells that look like numbers, true or false become such."""

    def _lines(self) -> Iterator[list[str]]:
        csv.field_size_limit(_CELL_LIMIT)
        with self._path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
            if self._path.suffix.lower() == ".tsv":
                yield from csv.reader(file, delimiter="\t", strict=True)
            else:
                dialect = _dialect(file.readline())
                file.seek(0)
                yield from csv.reader(file, delimiter=dialect, strict=True)

    def _resolve(self) -> Columns:
        header = next(self._lines(), None)
        if not header:
            raise BadSource(f"The catalog {str(self._path)!r} is empty; its first line must name the columns")
        self._header = [name.strip() for name in header]
        double = next((name for name in self._header if self._header.count(name) > 1), None)
        if double is not None:
            raise BadSource(f"The catalog {str(self._path)!r} has two columns {double!r}; rename one")
        return self._mapping.resolve(self._path.name, self._header)

    def _rows(self, start: int) -> Iterator[tuple[int, dict[str, Any] | str]]:
        lines = (cells for cells in islice(self._lines(), 1, None) if cells)
        for number, cells in islice(enumerate(lines, 1), start, None):
            if len(cells) != len(self._header):
                yield number, f"it has {len(cells)} cells, and the first line names {len(self._header)} columns"
            elif not all(map(_is_utf8, cells)):
                yield number, "it holds bytes that are not UTF-8; save the table as UTF-8"
            else:
                yield number, self._typed(cells)

    def _typed(self, cells: list[str]) -> dict[str, Any]:
        plain_text = {self._columns.key, self._columns.image, self._columns.title}
        pairs = zip(self._header, cells, strict=True)
        return {name: cell if name in plain_text else _typed_cell(cell) for name, cell in pairs}


def _dialect(first: str) -> str:
    return max((",", ";", "\t", "|"), key=first.count)


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _typed_cell(cell: str) -> Any:
    """Numbers only as JSON writes them, so that ``007`` and phone numbers stay text."""
    text = cell.strip()
    if text == "" or text.lower() in ("nan", "null", "none", "n/a", "na"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text[0] in "-0123456789" and len(text) < 25:
        try:
            value = json.loads(text)
        except ValueError:
            return cell
        return value if isinstance(value, int | float) else cell
    return cell


class _JsonLines(_Table):
    """One JSON object a line."""

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line

    def _resolve(self) -> Columns:
        names: dict[str, None] = {}
        some = False
        for _, line in islice(self._lines(), 100):
            some = True
            row = _object(line)
            if isinstance(row, dict):
                names.update(dict.fromkeys(row))
        if not some:
            return Columns("key", "image", "title", None)
        return self._mapping.resolve(self._path.name, list(names))

    def _rows(self, start: int) -> Iterator[tuple[int, dict[str, Any] | str]]:
        for number, line in islice(self._lines(), start, None):
            yield number, _object(line)


def _object(line: bytes) -> dict[str, Any] | str:
    try:
        row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        return f"it is no JSON: {error}"
    return row if isinstance(row, dict) else f"it is no JSON object but {type(row).__name__}"


class _Parquet(_Table):
    """Row groups are read in batches; those before `start` are not read at all."""

    def _open(self) -> Any:
        from pyarrow import parquet

        return parquet.ParquetFile(self._path)

    def _resolve(self) -> Columns:
        with self._open() as file:
            self._count = int(file.metadata.num_rows)
            return self._mapping.resolve(self._path.name, file.schema_arrow.names)

    def count(self) -> int:
        return self._count

    def _rows(self, start: int) -> Iterator[tuple[int, dict[str, Any] | str]]:
        with self._open() as file:
            groups: list[int] = []
            first = 0
            for group in range(file.metadata.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if groups or first + size > start:
                    groups.append(group)
                else:
                    first += size
            number = first
            for batch in file.iter_batches(batch_size=1_000, row_groups=groups):
                for row in batch.to_pylist():
                    number += 1
                    if number > start:
                        yield number, {name: plain(value) for name, value in row.items()}


def plain(value: Any) -> Any:
    """What databases and Parquet hold beyond JSON, as JSON: dates in ISO 8601, decimals as numbers."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes | memoryview):
        return None
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _local(text: str) -> Path:
    path = Path(text)
    if "://" in text:
        raise BadSource(f"The table {text!r} is not on this machine; fetch it first")
    if not path.is_file():
        raise BadSource(f"There is no table {text!r}")
    if not os.access(path, os.R_OK):
        raise BadSource(f"The table {text!r} may not be read; change its permissions")
    return path


def open_csv(text: str, *, mapping: ColumnMapping, query: str | None) -> Source:
    """CSV (``,`` ``;`` ``|``) or TSV. Raises BadSource."""
    del query
    return _Csv(_local(text), mapping)


def open_jsonl(text: str, *, mapping: ColumnMapping, query: str | None) -> Source:
    """JSON Lines. Raises BadSource."""
    del query
    return _JsonLines(_local(text), mapping)


def open_parquet(text: str, *, mapping: ColumnMapping, query: str | None) -> Source:
    """Parquet. Raises BadSource."""
    del query
    return _Parquet(_local(text), mapping)
