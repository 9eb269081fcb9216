"""The files of a data set on disk, found also where the case of a name differs, and its lists read line by line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedkit.errors import BadSource

__all__ = ["PICTURES", "Tree"]

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class Tree:
    """A folder. Paths are relative to it, with ``/`` between their parts; each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[str, dict[str, str]] = {}

    def find(self, *relative: str) -> str | None:
        """The full path of the first of several that exists; the case of letters may differ."""
        for path in relative:
            found = self._resolve(path.replace("\\", "/"))
            if found is not None:
                return found
        return None

    def _resolve(self, relative: str) -> str | None:
        place = str(self.root)
        for part in relative.split("/"):
            if part in ("", "."):
                continue
            names = self._names(place)
            name = names.get(part) or names.get(part.lower())
            if name is None or part == "..":
                return None
            place = f"{place}{os.sep}{name}"
        return place

    def _names(self, place: str) -> dict[str, str]:
        """What a folder holds: every name under itself, and under its lower-case form."""
        if place not in self._listed:
            try:
                found = sorted(os.listdir(place))
            except OSError:
                found = []
            self._listed[place] = {**{name.lower(): name for name in found}, **{name: name for name in found}}
        return self._listed[place]

    def entries(self, relative: str = "") -> list[str]:
        """The names in a folder, sorted, hidden ones left out."""
        place = self.find(relative)
        names = set(self._names(place).values()) if place else set()
        return sorted(name for name in names if not name.startswith("."))

    def folders(self, relative: str = "") -> list[str]:
        """The names of the folders in a folder, sorted."""
        place = self.find(relative)
        return [name for name in self.entries(relative) if place and os.path.isdir(os.path.join(place, name))]

    def pictures(self, relative: str = "", *, deep: bool = False) -> list[str]:
        """Relative paths of the pictures in a folder, sorted; with `deep` those of the folders below too.

        A link to a folder that it lies in is not followed.
        """
        return sorted(self._pictures(relative, deep, ()))

    def _pictures(self, relative: str, deep: bool, above: tuple[str, ...]) -> list[str]:
        head = f"{relative}/" if relative else ""
        found = [f"{head}{name}" for name in self.entries(relative) if name.lower().endswith(PICTURES)]
        if deep:
            above = (*above, os.path.realpath(self.find(relative) or self.root))
            for name in self.folders(relative):
                if os.path.realpath(self.find(f"{head}{name}") or self.root) not in above:
                    found += self._pictures(f"{head}{name}", True, above)
        return found

    def lines(self, *relative: str) -> Iterator[tuple[str, str]]:
        """(where, text) of every line that is not empty: ``images.txt line 7`` for messages. Raises BadSource."""
        path = self.file(*relative)
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise BadSource(f"{path}: the list cannot be read: {error}") from error
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"{path} line {number}", line.rstrip("\r")

    def json(self, *relative: str) -> Any:
        """The value of a JSON file. Raises BadSource."""
        path = self.file(*relative)
        try:
            return json.loads(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise BadSource(f"{path}: it is no JSON that can be read: {error}") from error

    def file(self, *relative: str) -> str:
        """As `find`. Raises BadSource when there is none."""
        path = self.find(*relative)
        if path is None:
            raise BadSource(
                f"{str(self.root)!r} has no {' or '.join(relative)}; see what belongs there with: "
                "embedkit datasets check"
            )
        return path
