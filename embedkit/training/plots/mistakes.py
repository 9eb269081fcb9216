"""The worst mistakes on one sheet: what was asked, what came first, and what should have come."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from embedkit.training.datasets.contract import Split
from embedkit.training.evaluation.nearest import nearest
from embedkit.training.plots.figure import font_file
from embedkit.training.plots.sprites import class_names, small

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray

__all__ = ["Mistake", "Mistakes", "draw_mistakes", "worst_mistakes"]

_COUNT = 12
_TILE = 132  # pixels of a picture's side
_FRAME = 5
_GAP = 26
_COLUMN, _ROW = 3 * (_TILE + _GAP) + 46, _TILE + 72
_HEAD, _EDGE = 92, 34
_INK, _PALE, _LINE = (32, 36, 43), (107, 114, 128), (214, 218, 224)
_RED, _GREEN = (220, 38, 38), (22, 163, 74)


@dataclass(frozen=True, slots=True)
class Mistake:
    """Rows of the query, of its nearest, which is of another class, and of the best of its own class, with its rank."""

    query: int
    wrong: int
    right: int
    wrong_score: float
    right_score: float
    rank: int


@dataclass(frozen=True, slots=True)
class Mistakes:
    """The worst first; how many mistakes there are in all, and how many queries have another one of their class."""

    worst: tuple[Mistake, ...]
    total: int
    queries: int


def worst_mistakes(vectors: FloatArray, labels: IdArray, *, count: int = _COUNT) -> Mistakes:
    """Queries whose nearest is of another class, by how much nearer that is than the best of their own."""
    first, first_score = _best_other(vectors)
    right, right_score = _best_of_own(vectors, labels)
    matched = right >= 0
    wrong = matched & (first >= 0) & (labels[first] != labels)
    queries = np.flatnonzero(wrong)
    margins = first_score[queries] - right_score[queries]
    chosen = queries[np.argsort(-margins, kind="stable")[:count]]
    worst = tuple(
        Mistake(
            int(row), int(first[row]), int(right[row]), float(first_score[row]), float(right_score[row]),
            _rank(vectors, int(row), int(right[row])),
        )
        for row in chosen
    )  # fmt: skip
    return Mistakes(worst, len(queries), int(np.count_nonzero(matched)))


def _best_other(vectors: FloatArray) -> tuple[IdArray, FloatArray]:
    """The nearest other of each row and its score; -1 where there is none."""
    ids, scores = np.full(len(vectors), -1), np.zeros(len(vectors), np.float32)
    for block in nearest(vectors, k=1):
        rows = slice(block.start, block.start + len(block.ids))
        ids[rows], scores[rows] = block.ids[:, 0], block.scores[:, 0]
    return ids, scores


def _best_of_own(vectors: FloatArray, labels: IdArray) -> tuple[IdArray, FloatArray]:
    """The same within each class."""
    ids, scores = np.full(len(vectors), -1), np.zeros(len(vectors), np.float32)
    order = np.argsort(labels, kind="stable")
    _, starts = np.unique(labels[order], return_index=True)
    for rows in np.split(order, starts[1:]):
        if len(rows) > 1:
            own, scores[rows] = _best_other(vectors[rows])
            ids[rows] = rows[own]
    return ids, scores


def _rank(vectors: FloatArray, query: int, row: int) -> int:
    """At which place of all others a row is found, from 1."""
    scores = vectors @ vectors[query]
    before = (scores > scores[row]) | ((scores == scores[row]) & (np.arange(len(scores)) < row))
    before[[query, row]] = False
    return int(np.count_nonzero(before)) + 1


def draw_mistakes(path: Path, split: Split, vectors: FloatArray) -> None:
    """A sheet of two columns: query, its wrong nearest in red, the best of its own class in green."""
    found = worst_mistakes(vectors, split.labels)
    lines = max(1, -(-len(found.worst) // 2))
    sheet = Image.new("RGB", (2 * _COLUMN + 2 * _EDGE - 46, _HEAD + lines * _ROW + 12), "white")
    pen = _Pen(sheet)
    pen.write(_EDGE, 24, "The worst mistakes", "title")
    pen.write(_EDGE, 56, _summary(found), "text", colour=_PALE)
    for place, mistake in enumerate(found.worst):
        across, down = divmod(place, lines)
        left, top = _EDGE + across * _COLUMN, _HEAD + down * _ROW
        if down:
            pen.line(left, top - 10, left + 3 * _TILE + 2 * _GAP)
        _draw_row(pen, split, mistake, left, top + 2)
    sheet.save(path, "PNG", optimize=True)


def _summary(found: Mistakes) -> str:
    if not found.queries:
        return "No picture has another one of its class: nothing can be found."
    share = f"{found.total:,} of {found.queries:,} pictures ({found.total / found.queries:.1%})"
    if not found.total:
        return f"There are none: {share} have another class nearest."
    return f"{share} have another class nearest. These are the clearest."


def _draw_row(pen: _Pen, split: Split, mistake: Mistake, left: int, top: int) -> None:
    rows = (mistake.query, mistake.wrong, mistake.right)
    names = class_names(split, split.labels[list(rows)])
    notes = (
        "asked with",
        f"came first  {mistake.wrong_score:.3f}",
        f"own class  {mistake.right_score:.3f}, place {mistake.rank:,}",
    )
    for place, (row, name, note, colour) in enumerate(zip(rows, names, notes, (None, _RED, _GREEN), strict=True)):
        x = left + place * (_TILE + _GAP)
        pen.tile(x, top, small(split, row, _TILE - 2 * _FRAME), colour)
        pen.write(x, top + _TILE + 6, name, "name", width=_TILE + _GAP - 6)
        pen.write(x, top + _TILE + 25, note, "note", colour=colour or _PALE, width=_TILE + _GAP - 6)
        pen.write(x, top + _TILE + 41, Path(split.paths[row]).name, "note", colour=_PALE, width=_TILE + _GAP - 6)


class _Pen:
    """Words and tiles on a sheet."""

    def __init__(self, sheet: Image.Image) -> None:
        self._sheet, self._draw = sheet, ImageDraw.Draw(sheet)
        self._fonts = {
            name: ImageFont.truetype(str(font_file(bold=bold)), size)
            for name, size, bold in (("title", 21, True), ("text", 14, False), ("name", 13, True), ("note", 11, False))
        }

    def write(
        self, x: int, y: int, text: str, font: str, *, colour: tuple[int, int, int] = _INK, width: int = 0
    ) -> None:
        """One line; what is longer than `width` pixels ends in dots."""
        words = "".join(char if char.isprintable() else " " for char in text)[:400]
        face = self._fonts[font]
        if width and face.getlength(words) > width:
            while words and face.getlength(words + "…") > width:
                words = words[:-1]
            words = words.rstrip() + "…"
        self._draw.text((x, y), words, fill=colour, font=face)

    def line(self, left: int, y: int, right: int) -> None:
        self._draw.line((left, y, right, y), fill=(236, 238, 241))

    def tile(self, x: int, y: int, picture: Image.Image, frame: tuple[int, int, int] | None) -> None:
        """A picture in the middle of a square, with a coloured frame or a thin grey one."""
        box = (x, y, x + _TILE - 1, y + _TILE - 1)
        self._draw.rectangle(box, fill="white", outline=frame or _LINE, width=_FRAME - 1 if frame else 1)
        offset = (_TILE - picture.width) // 2, (_TILE - picture.height) // 2
        self._sheet.paste(picture, (x + offset[0], y + offset[1]))
