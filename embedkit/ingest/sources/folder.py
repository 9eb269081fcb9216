"""A folder tree of pictures: one product a picture, its folders as categories.

Beside ``shoe.jpg`` may lie ``shoe.json`` (an object: ``title``, other fields are attributes) and
``shoe.txt`` (the title). Names that start with a dot are left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from embedkit.errors import BadSource
from embedkit.ingest.sources.contract import RecordError, Source
from embedkit.ingest.sources.mapping import ColumnMapping
from embedkit.types import Record

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
_SIDE_CAR_LIMIT = 16_000_000


def open_source(text: str, *, mapping: ColumnMapping, query: str | None) -> Source:
    """Raises BadSource when it is no readable folder."""
    del mapping, query
    root = Path(text)
    if not root.is_dir():
        raise BadSource(f"{text!r} is no folder")
    if not os.access(root, os.R_OK | os.X_OK):
        raise BadSource(f"The folder {text!r} may not be read; change its permissions")
    return FolderSource(root)


@dataclass(frozen=True, slots=True)
class _File:
    path: str  # from the root, with /
    mark: str  # size and time, of the picture and its side-cars


class FolderSource(Source):
    """Lists the tree once, when first asked; the order is that of the names."""

    def __init__(self, root: Path) -> None:
        self.name = str(root)
        self._root = root
        self._listing: list[_File | RecordError] | None = None

    def _files(self) -> list[_File | RecordError]:
        if self._listing is None:
            self._listing = list(self._walk(self._root, "", frozenset()))
        return self._listing

    def _walk(self, folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[_File | RecordError]:
        """Depth first by name; a folder that contains itself through a link is reported, once."""
        try:
            here = folder.stat()
            identity = (here.st_dev, here.st_ino)
            if identity in above:
                yield RecordError(None, _shown(prefix or "."), "the folder contains itself through a link")
                return
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            yield RecordError(None, _shown(prefix or "."), f"the folder cannot be read: {error.strerror or error}")
            return
        names = {entry.name: entry for entry in entries}
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{prefix}/{entry.name}" if prefix else entry.name
            if _is_folder(entry):
                yield from self._walk(Path(entry.path), path, above | {identity})
            elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                yield self._file(path, entry, names)

    def _file(self, path: str, entry: os.DirEntry[str], names: dict[str, os.DirEntry[str]]) -> _File | RecordError:
        try:
            path.encode()
        except UnicodeEncodeError:
            return RecordError(None, _shown(path), "the file name is not valid UTF-8; rename the file")
        stem = entry.name[: -len(Path(entry.name).suffix)]
        cars = (names[stem + suffix] for suffix in (".json", ".txt") if stem + suffix in names)
        return _File(path, ";".join(_mark(one) for one in (entry, *cars)))

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(os.fsencode(self._root.resolve()), digest_size=16)
        for file in self._files():
            mark = f"{file.path}\x00{file.mark}" if isinstance(file, _File) else f"{file.locator}\x00{file.reason}"
            digest.update(mark.encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()

    def count(self) -> int:
        return len(self._files())

    def records(self, start: int = 0) -> Iterator[Record | RecordError]:
        for file in islice(self._files(), start, None):
            yield self._record(file.path) if isinstance(file, _File) else file

    def _record(self, path: str) -> Record | RecordError:
        place = self._root / path
        attributes: dict[str, Any] = {}
        folders = path.split("/")[:-1]
        if folders:
            attributes["category"] = "/".join(folders)
        title: str | None = _title_of(place.stem)
        try:
            if (text := _side_car(place, ".txt")) is not None:
                title = text.strip() or title
            if (text := _side_car(place, ".json")) is not None:
                given = json.loads(text)
                if not isinstance(given, dict):
                    raise ValueError(f"{place.stem}.json holds no JSON object")
                title = str(given.pop("title", None) or title)
                attributes.update(given)
        except (OSError, ValueError) as error:
            return RecordError(path, path, f"its side-car cannot be read: {error}")
        return Record(path, path, str(place), title, attributes)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _mark(entry: os.DirEntry[str]) -> str:
    try:
        stat = entry.stat()
    except OSError:
        return "unreadable"
    return f"{stat.st_size},{stat.st_mtime_ns}"


def _shown(path: str) -> str:
    """A path for people and for databases: bytes that are no UTF-8 show as backslash escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _side_car(place: Path, suffix: str) -> str | None:
    path = place.with_suffix(suffix)
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_SIDE_CAR_LIMIT + 1)
    except FileNotFoundError:
        return None
    if len(text) > _SIDE_CAR_LIMIT:
        raise ValueError(f"{path.name} is larger than {_SIDE_CAR_LIMIT:,} characters")
    return text


def _title_of(stem: str) -> str | None:
    words = re.sub(r"[_\-\s]+", " ", stem).strip()
    return words or None
