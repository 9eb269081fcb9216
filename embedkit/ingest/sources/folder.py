"""A folder tree of pictures: one product a picture, its folders as categories.

Beside ``shoe.jpg`` may lie ``shoe.json`` (an object: ``title``, other fields are attributes) and
``shoe.txt`` (the title). Names that start with a dot are left alone. The same on this machine, on any
fsspec file system and in a zip or tar archive.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from embedkit.errors import BadSource
from embedkit.ingest.places.archives import ArchivePlace
from embedkit.ingest.places.contract import Entry, Place, joined, reason_of
from embedkit.ingest.sources.contract import RecordError, Source
from embedkit.ingest.sources.located import located
from embedkit.ingest.sources.mapping import ColumnMapping
from embedkit.ingest.sources.tables import TABLE_KINDS, open_table, table_suffix
from embedkit.types import Record
from embedkit.urls import redact

__all__ = ["IMAGE_SUFFIXES", "FolderSource", "open_source"]

IMAGE_SUFFIXES = frozenset(
    [
        ".apng",
        ".avif",
        ".avifs",
        ".bmp",
        ".dib",
        ".gif",
        ".heic",
        ".heif",
        ".j2k",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".jpx",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
_SIDE_CARS = (".txt", ".json")
_SIDE_CAR_LIMIT = 16_000_000
_DEEPEST = 100  # folders in folders; more is a loop that the place does not tell
_TABLES = ("products.jsonl", "products.csv", "products.parquet")


def open_source(text: str, *, mapping: ColumnMapping, query: str | None) -> Source:
    """A folder or an archive, or the ``products`` table at its root. Raises BadSource, MissingExtra."""
    del query
    place, root, found = located(text)
    try:
        if not found.is_folder:
            raise BadSource(
                f"{redact(text)!r} is no folder, and its name tells no kind of table; say which with --kind"
            )
        table = _table_in(place, root)
    except OSError as error:
        place.close()
        raise BadSource(f"The folder {redact(text)!r} cannot be read: {reason_of(error)}") from error
    except BaseException:
        place.close()
        raise
    if table is None:
        return FolderSource(place, root, text)
    return open_table(place, table, _named(text, root, table), kind=TABLE_KINDS[table_suffix(table)], mapping=mapping)


def _table_in(place: Place, root: str) -> str | None:
    """The path of the table of a folder; in an archive also in its one top folder."""
    entries = [entry for entry in place.entries(root) if not entry.name.startswith(".")]
    files = {entry.name for entry in entries if not entry.is_folder and not entry.problem}
    table = next((name for name in _TABLES if name in files), None)
    if table is not None:
        return joined(root, table)
    if isinstance(place, ArchivePlace) and len(entries) == 1 and entries[0].is_folder and not root:
        return _table_in(place, entries[0].name)
    return None


def _named(text: str, root: str, table: str) -> str:
    inside = table[len(root) :].strip("/")
    return f"{text.rstrip('/')}/{inside}"


@dataclass(frozen=True, slots=True)
class _File:
    path: str  # from the root, with /
    mark: str | None  # size and time, of the picture and its side-cars
    cars: tuple[str, ...]  # the suffixes of its side-cars


class FolderSource(Source):
    """Lists the tree once, when first asked; the order is that of the names."""

    empty_hint = f"it has no file whose name ends in {', '.join(sorted(IMAGE_SUFFIXES))}"

    def __init__(self, place: Place, root: str, name: str) -> None:
        self.name = redact(name)
        self._place, self._root = place, root
        self._listing: list[_File | RecordError] | None = None

    def _files(self) -> list[_File | RecordError]:
        if self._listing is None:
            self._listing = list(self._walk("", ()))
        return self._listing

    def _walk(self, prefix: str, above: tuple[Hashable, ...]) -> Iterator[_File | RecordError]:
        """Depth first by name; a folder that contains itself through a link is reported, once."""
        folder = joined(self._root, prefix)
        try:
            identity = self._place.identity(folder)
            if (identity is not None and identity in above) or len(above) > _DEEPEST:
                yield RecordError(None, _shown(prefix or "."), "the folder contains itself through a link")
                return
            entries = sorted(self._place.entries(folder), key=lambda entry: _bytes(entry.name))
        except OSError as error:
            yield RecordError(None, _shown(prefix or "."), f"the folder cannot be read: {reason_of(error)}")
            return
        marks = {entry.name: entry.mark for entry in entries if not entry.is_folder}
        for entry in entries:
            if entry.name.startswith(".") and not entry.problem:
                continue
            path = f"{prefix}/{entry.name}" if prefix else entry.name
            if entry.is_folder and not entry.problem:
                yield from self._walk(path, (*above, identity))
            elif PurePosixPath(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                yield _file(path, entry, marks)

    def fingerprint(self) -> str | None:
        digest = hashlib.blake2b(_bytes(self._place.uri(self._root)), digest_size=16)
        for file in self._files():
            mark = file.mark if isinstance(file, _File) else file.reason
            if mark is None:
                return None
            digest.update(_bytes(f"{file.path if isinstance(file, _File) else file.locator}\x00{mark}\n"))
        return digest.hexdigest()

    def count(self) -> int:
        return len(self._files())

    def records(self, start: int = 0) -> Iterator[Record | RecordError]:
        for file in islice(self._files(), start, None):
            yield self._record(file) if isinstance(file, _File) else file

    def _record(self, file: _File) -> Record | RecordError:
        path, place = file.path, joined(self._root, file.path)
        attributes: dict[str, Any] = {}
        folders = path.split("/")[:-1]
        if folders:
            attributes["category"] = "/".join(folders)
        title: str | None = _title_of(PurePosixPath(path).stem)
        try:
            if (text := self._side_car(place, ".txt", file)) is not None:
                title = text.strip() or title
            if (text := self._side_car(place, ".json", file)) is not None:
                given = json.loads(text)
                if not isinstance(given, dict):
                    raise ValueError(f"{PurePosixPath(path).stem}.json holds no JSON object")
                title = str(given.pop("title", None) or title)
                attributes.update(given)
        except (OSError, ValueError, RecursionError) as error:
            return RecordError(path, path, f"its side-car cannot be read: {reason_of(error)}")
        return Record(path, path, self._place.uri(place), title, attributes)

    def _side_car(self, place: str, suffix: str, file: _File) -> str | None:
        if suffix not in file.cars:
            return None
        path = str(PurePosixPath(place).with_suffix(suffix))
        try:
            with self._place.open(path) as stream:
                data = stream.read(_SIDE_CAR_LIMIT + 1)
        except FileNotFoundError:
            return None
        if len(data) > _SIDE_CAR_LIMIT:
            raise ValueError(f"{PurePosixPath(path).name} is larger than {_SIDE_CAR_LIMIT:,} bytes")
        return data.decode("utf-8-sig")

    def close(self) -> None:
        self._place.close()


def _file(path: str, entry: Entry, marks: dict[str, str | None]) -> _File | RecordError:
    if entry.problem:
        return RecordError(None, _shown(path), entry.problem)
    try:
        path.encode()
    except UnicodeEncodeError:
        return RecordError(None, _shown(path), "the file name is not valid UTF-8; rename the file")
    stem = entry.name[: -len(PurePosixPath(entry.name).suffix)]
    cars = tuple(suffix for suffix in _SIDE_CARS if stem + suffix in marks)
    told = [entry.mark, *(marks[stem + suffix] for suffix in cars)]
    known = [mark for mark in told if mark is not None]
    return _File(path, ";".join(known) if len(known) == len(told) else None, cars)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _shown(path: str) -> str:
    """A path for people and for databases: bytes that are no UTF-8 show as backslash escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _title_of(stem: str) -> str | None:
    words = re.sub(r"[_\-\s]+", " ", stem).strip()
    return words or None
