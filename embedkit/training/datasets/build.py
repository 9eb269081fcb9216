"""From the rows of a data set's lists to splits; what is not on disk is set aside and named."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from embedkit.errors import BadSource
from embedkit.training.datasets.contract import Captions, Split
from embedkit.training.datasets.tree import Tree

if TYPE_CHECKING:
    from embedkit.training.datasets.contract import BoolArray
    from embedkit.types import IdArray

__all__ = ["Builder", "Row", "captioned", "columns", "halves", "number", "numbering"]

Label: TypeAlias = int | str


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a list. `path`: as the list spells it. The rest: see `Split`."""

    path: str
    label: Label
    camera: int | None = None
    category: int | None = None
    box: tuple[int, int, int, int] | None = None
    domain: int | None = None
    concepts: tuple[int, ...] = ()


class Builder:
    """Makes the splits of one data set.

    `under`: folders that paths may be relative to, tried in order. `anywhere`: paths may lead out of the folder, as
    in a list of one's own. `concepts`: how many there are, in a set of pictures that have several.
    """

    def __init__(
        self, tree: Tree, *, under: Sequence[str] = ("",), anywhere: bool = False, concepts: int | None = None
    ) -> None:
        self._tree = tree
        self._under = under
        self._anywhere = anywhere
        self._concepts = concepts
        self.missing: dict[str, None] = {}

    def train(self, rows: Iterable[Row], *, names: Mapping[Label, str] | None = None) -> Split:
        """A split with dense labels, in the order of the published ones, and a name for each class."""
        rows = list(rows)
        known = numbering(rows)
        titles = tuple((names or {}).get(label, str(label)) for label in known)
        return self.split(rows, known, names=titles)

    def split(
        self, rows: Iterable[Row], known: Mapping[Label, int] | None = None, *, names: tuple[str, ...] | None = None
    ) -> Split:
        """A split whose labels are numbered by `known`, or are the published numbers."""
        kept: list[Row] = []
        paths: list[str] = []
        for row in rows:
            path = self._place(row.path)
            if path is None:
                self.missing[row.path] = None
            else:
                kept.append(row)
                paths.append(path)
        labels = [known[row.label] if known is not None else int(row.label) for row in kept]
        return Split(
            tuple(paths),
            np.array(labels, np.int64),
            cameras=_column([row.camera for row in kept]),
            names=names,
            categories=_column([row.category for row in kept]),
            boxes=_boxes(kept),
            domains=_column([row.domain for row in kept]),
            concepts=_flags(kept, self._concepts) if self._concepts is not None else None,
        )

    def _place(self, path: str) -> str | None:
        outside = os.path.join(self._tree.root, path)
        if self._anywhere and (os.path.isabs(path) or ".." in path) and os.path.isfile(outside):
            return outside
        return self._tree.find(*(f"{folder}/{path}" for folder in self._under))


def _column(values: list[int | None]) -> IdArray | None:
    """An array, None if no row has a value."""
    if all(value is None for value in values):
        return None
    return np.array([-1 if value is None else value for value in values], np.int64)


def _boxes(rows: list[Row]) -> IdArray | None:
    if all(row.box is None for row in rows):
        return None
    return np.array([row.box or (0, 0, 0, 0) for row in rows], np.int64).reshape(-1, 4)


def _flags(rows: list[Row], concepts: int) -> BoolArray:
    flags = np.zeros((len(rows), concepts), np.bool_)
    places = np.repeat(np.arange(len(rows)), [len(row.concepts) for row in rows])
    flags[places, np.array([one for row in rows for one in row.concepts], np.int64)] = True
    return flags


def numbering(*lists: Iterable[Row]) -> dict[Label, int]:
    """Dense numbers for the labels of several lists: whole numbers in their order, words in theirs."""
    labels = {row.label for rows in lists for row in rows}
    return {label: place for place, label in enumerate(sorted(labels, key=lambda one: (isinstance(one, str), one)))}


def captioned(split: Split, texts: Mapping[int, Sequence[str]]) -> Split:
    """The split with texts by label; those of labels without a picture are left out. Raises BadSource."""
    known = [(text, label) for label, several in texts.items() for text in several]
    for text, _ in known:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadSource(f"The caption {text!r} is not valid text: {error.reason} at {error.start + 1}") from error
    captions = Captions(tuple(text for text, _ in known), np.array([label for _, label in known], np.int64))
    return replace(split, captions=captions.of(split.labels))


def halves(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """The rows of the first half of the classes, and of the second (the larger by one if they are odd)."""
    rows = list(rows)
    known = numbering(rows)
    middle = len(known) // 2
    return [row for row in rows if known[row.label] < middle], [row for row in rows if known[row.label] >= middle]


def columns(where: str, line: str, names: str, *, path_first: bool = False) -> list[str]:
    """The columns of a line, whose path, first or else last, may hold spaces. Raises BadSource."""
    count = len(names.split())
    found = line.strip().rsplit(maxsplit=count - 1) if path_first else line.strip().split(maxsplit=count - 1)
    if len(found) != count:
        raise BadSource(f"{where}: {line.strip()!r} is not {names!r}; fetch the list from its owners again")
    return found


def number(where: str, text: str) -> int:
    """A whole number of a list. Raises BadSource."""
    try:
        return int(text)
    except ValueError:
        raise BadSource(f"{where}: {text!r} is no number; fetch the list from its owners again") from None
