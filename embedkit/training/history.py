"""What happened at which step: ``history.jsonl`` of a run, one JSON object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from embedkit.errors import DataCorrupt

__all__ = ["HISTORY", "History", "read_history"]

HISTORY = "history.jsonl"


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run; none if it has not begun. A last line that was cut off is left out. Raises DataCorrupt."""
    path = folder / HISTORY
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines, 1):
        try:
            if line:
                found.append(_read(line))
        except ValueError as error:
            if number < len(lines):  # a whole line
                raise DataCorrupt(f"{path}, line {number}: embedkit did not write it ({error})") from error
    return found


class History:
    """Lines that are appended. What lies after the step to go on from is forgotten, so that the curve joins.

    `folder` None: nothing is written, as in every process but the first.
    """

    def __init__(self, folder: Path | None, *, step: int) -> None:
        self._file: IO[str] | None = None
        if folder is None:
            return
        kept = [line for line in read_history(folder) if line["step"] <= step]
        path, draft = folder / HISTORY, folder / f".{HISTORY}"
        draft.write_text("".join(_line(line) for line in kept), encoding="utf-8")
        os.replace(draft, path)
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115  closed by `close`

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line, on disk as far as the operating system knows."""
        if self._file is not None:
            self._file.write(_line(line))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _read(line: bytes) -> dict[str, Any]:
    values = json.loads(line)
    if not isinstance(values, dict) or not isinstance(values.get("step"), int):
        raise ValueError("it names no step")
    return values


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values) + "\n"
