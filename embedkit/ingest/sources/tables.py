"""Tables: CSV and TSV, JSON Lines, Parquet. Read as streams; `start` skips without building records."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit

from embedkit.errors import BadSource
from embedkit.ingest.places.contract import Place, reason_of
from embedkit.ingest.places.open import is_web
from embedkit.ingest.places.streams import COMPRESSED, buffered, decompressed, spooled
from embedkit.ingest.sources.cells import is_utf8, plain, typed
from embedkit.ingest.sources.contract import RecordError, Source
from embedkit.ingest.sources.located import located
from embedkit.ingest.sources.mapping import ColumnMapping, Columns, unlike
from embedkit.urls import redact

if TYPE_CHECKING:
    from embedkit.types import Record

__all__ = ["TABLE_KINDS", "open_csv", "open_jsonl", "open_parquet", "open_table", "table_suffix"]

TABLE_KINDS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_CELL_LIMIT = 64_000_000
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def table_suffix(name: str) -> str:
    """The suffix that tells the kind of a table, behind that of a compression.

    >>> table_suffix("shop/products.CSV.gz"), table_suffix("a.b/c")
    ('.csv', '')
    """
    path = PurePosixPath(name)
    if path.suffix.lower() in COMPRESSED:
        path = path.with_suffix("")
    return path.suffix.lower()


class _Table(Source):
    """A file in some place; picture paths in it are relative to its folder."""

    def __init__(self, place: Place, path: str, name: str, mapping: ColumnMapping) -> None:
        self.name = redact(name)
        self._place, self._path, self._mapping = place, path, mapping
        self._file_name = PurePosixPath(unquote(urlsplit(path).path) if is_web(path) else path).name or self.name
        with self._guard():
            self._columns = self._resolve()

    def fingerprint(self) -> str | None:
        with self._guard():
            found = self._place.find(self._path)
        if found is None or found.mark is None:
            return None
        text = f"{self._place.uri(self._path)}\x00{found.mark}\x00{self._mapping}"
        return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

    def count(self) -> int | None:
        return None

    def close(self) -> None:
        self._place.close()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Every way in which the file as a whole may fail, as one BadSource."""
        import pyarrow

        try:
            yield
        except (OSError, UnicodeError, csv.Error, pyarrow.ArrowException) as error:
            raise BadSource(f"The catalog {self.name!r} cannot be read: {reason_of(error)}") from error

    def _open(self, *, seek: bool = False) -> BinaryIO:
        stream = self._place.open(self._path, seek=seek)
        plain_stream = decompressed(stream, self._file_name)
        return spooled(plain_stream) if seek and plain_stream is not stream else plain_stream

    @contextmanager
    def _text(self) -> Iterator[io.BufferedReader]:
        with self._open() as opened, buffered(opened) as stream:
            if stream.peek(2)[:2] in _UTF16:
                raise BadSource(f"The catalog {self.name!r} is written in UTF-16; save it as UTF-8")
            yield stream

    @abstractmethod
    def _resolve(self) -> Columns:
        """Look at the head of the file and find the columns."""

    @abstractmethod
    def _rows(self, start: int) -> Iterator[tuple[int, dict[str, Any] | str]]:
        """(number for people, row) from the `start`-th on; a text is the reason why there is no row."""

    def records(self, start: int = 0) -> Iterator[Record | RecordError]:
        with self._guard():
            for number, row in self._rows(start):
                locator = f"{self._file_name} row {number}"
                if isinstance(row, str):
                    yield RecordError(None, locator, row)
                    continue
                try:
                    yield self._columns.record(row, locator, self._placed)
                except ValueError as error:
                    yield RecordError(None, locator, str(error))

    def _placed(self, reference: str) -> str:
        return self._place.beside(self._path, reference)


class _Csv(_Table):
    """The first line names the columns. Cells that look like numbers, true or false become such."""

    def _lines(self) -> Iterator[list[str] | str]:
        """Cells, or the reason why a row has none. Blank lines are left out."""
        csv.field_size_limit(_CELL_LIMIT)
        with (
            self._text() as stream,
            io.TextIOWrapper(stream, encoding="utf-8-sig", newline="", errors="surrogateescape") as file,
        ):
            first = next((line for line in file if line.strip()), "")
            delimiter = "\t" if table_suffix(self._file_name) == ".tsv" else _delimiter(first)
            rows = csv.reader(chain([first], file), delimiter=delimiter, strict=True)
            while True:
                try:
                    cells = next(rows, None)
                except csv.Error as error:
                    yield f"its quotes or its length are wrong: {error}"
                    continue
                if cells is None:
                    return
                if len(cells) > 1 or (cells and cells[0].strip()):
                    yield cells

    def _resolve(self) -> Columns:
        lines = self._lines()
        header = next(lines, None)
        lines.close()  # type: ignore[attr-defined]
        if header is None:
            raise BadSource(f"The catalog {self.name!r} is empty; its first line must name the columns")
        if isinstance(header, str) or not all(map(is_utf8, header)):
            reason = header if isinstance(header, str) else "it holds bytes that are not UTF-8"
            raise BadSource(f"The first line of {self.name!r} cannot be read: {reason}; save the table as UTF-8")
        self._header = [name.strip() for name in header]
        return self._mapping.resolve(self._file_name, unlike(self.name, self._header))

    def _rows(self, start: int) -> Iterator[tuple[int, dict[str, Any] | str]]:
        for number, cells in islice(enumerate(islice(self._lines(), 1, None), 1), start, None):
            if isinstance(cells, str):
                yield number, cells
            elif len(cells) != len(self._header):
                yield number, f"it has {len(cells)} cells, and the first line names {len(self._header)} columns"
            elif not all(map(is_utf8, cells)):
                yield number, "it holds bytes that are not UTF-8; save the table as UTF-8"
            else:
                yield number, self._typed(cells)

    def _typed(self, cells: list[str]) -> dict[str, Any]:
        plain_text = {self._columns.key, self._columns.image, self._columns.title}
        pairs = zip(self._header, cells, strict=True)
        return {name: cell if name in plain_text else typed(cell) for name, cell in pairs}


def _delimiter(first: str) -> str:
    """What separates the names of a first line, those in quotes left aside.

    >>> _delimiter('sku;"price, in euro"'), _delimiter("sku")
    (';', ',')
    """
    return max((",", ";", "\t", "|"), key=re.sub(r'"[^"]*"', "", first).count)


class _JsonLines(_Table):
    """One JSON object a line."""

    def _lines(self) -> Iterator[tuple[int, bytes | None]]:
        """(number, line) of what is not blank; None for a line beyond the limit."""
        with self._text() as file:
            number = 0
            while line := file.readline(_CELL_LIMIT + 1):
                number += 1
                if len(line) > _CELL_LIMIT:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(_CELL_LIMIT)
                    yield number, None
                elif line.strip():
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
        return self._mapping.resolve(self._file_name, list(names))

    def _rows(self, start: int) -> Iterator[tuple[int, dict[str, Any] | str]]:
        for number, line in islice(self._lines(), start, None):
            yield number, _object(line)


def _object(line: bytes | None) -> dict[str, Any] | str:
    if line is None:
        return f"the line is longer than {_CELL_LIMIT:,} bytes"
    try:
        row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        return f"it is no JSON: {error}"
    return row if isinstance(row, dict) else f"it is no JSON object but {type(row).__name__}"


class _Parquet(_Table):
    """Row groups are read in batches; those before `start` are not read at all."""

    @contextmanager
    def _parquet(self) -> Iterator[Any]:
        from pyarrow import parquet

        with self._open(seek=True) as stream, parquet.ParquetFile(stream) as file:
            yield file

    def _resolve(self) -> Columns:
        with self._parquet() as file:
            self._count = int(file.metadata.num_rows)
            return self._mapping.resolve(self._file_name, unlike(self.name, file.schema_arrow.names))

    def count(self) -> int:
        return self._count

    def _rows(self, start: int) -> Iterator[tuple[int, dict[str, Any] | str]]:
        with self._parquet() as file:
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
                for row in _python_rows(batch):
                    number += 1
                    if number > start:
                        yield number, row


def _python_rows(batch: Any) -> list[dict[str, Any] | str]:
    """Rows as Python values; if one of a batch has a value that Python cannot hold, that one alone fails."""
    try:
        return [{name: plain(value) for name, value in row.items()} for row in _in_microseconds(batch).to_pylist()]
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            return [f"it holds a value that cannot be read: {error}"]
    return [_python_rows(batch.slice(index, 1))[0] for index in range(batch.num_rows)]


def _in_microseconds(batch: Any) -> Any:
    """Python's times end at microseconds; what is finer in a column is cut off."""
    import pyarrow as pa

    fine = {pa.timestamp("ns"): pa.timestamp("us"), pa.time64("ns"): pa.time64("us"), pa.duration("ns"): "duration[us]"}
    for index, field in enumerate(batch.schema):
        kind = fine.get(field.type)
        if kind is None and pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            kind = pa.timestamp("us", field.type.tz)
        if kind is not None:
            batch = batch.set_column(index, field.name, batch.column(index).cast(kind, safe=False))
    return batch


_CLASSES: dict[str, type[_Table]] = {"csv": _Csv, "jsonl": _JsonLines, "parquet": _Parquet}


def open_table(place: Place, path: str, name: str, *, kind: str, mapping: ColumnMapping) -> Source:
    """A table in a place, which the source takes over. Raises BadSource."""
    try:
        return _CLASSES[kind](place, path, name, mapping)
    except BaseException:
        place.close()
        raise


def _opened(text: str, kind: str, mapping: ColumnMapping) -> Source:
    place, path, found = located(text)
    if found.is_folder:
        place.close()
        raise BadSource(f"The table {redact(text)!r} is a folder; leave --kind out to read it as one")
    return open_table(place, path, text, kind=kind, mapping=mapping)


def open_csv(text: str, *, mapping: ColumnMapping, query: str | None) -> Source:
    """CSV (``,`` ``;`` ``|``) or TSV, a path or any URL, perhaps compressed. Raises BadSource, MissingExtra."""
    del query
    return _opened(text, "csv", mapping)


def open_jsonl(text: str, *, mapping: ColumnMapping, query: str | None) -> Source:
    """JSON Lines, as `open_csv`."""
    del query
    return _opened(text, "jsonl", mapping)


def open_parquet(text: str, *, mapping: ColumnMapping, query: str | None) -> Source:
    """Parquet, as `open_csv`."""
    del query
    return _opened(text, "parquet", mapping)
