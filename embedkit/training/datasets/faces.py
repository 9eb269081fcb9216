"""Labeled Faces in the Wild: 6,000 pairs of faces in ten folds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from embedkit.errors import BadSource
from embedkit.training.datasets.build import Builder, Row, number, numbering
from embedkit.training.datasets.contract import DataSet, Pairs
from embedkit.training.datasets.tree import Tree

__all__ = ["read_lfw"]

_FOLDERS = ("lfw", "lfw-deepfunneled", "lfw_funneled", "lfw-funneled", "")


def read_lfw(tree: Tree) -> DataSet:
    """LFW, view 2: ``pairs.txt``, folds of 300 pairs of one person and 300 of two.

    The query split holds the pictures of the pairs. Training is by people of ``peopleDevTrain.txt``, where that is
    there, who also occur in the pairs; a figure to publish comes from another training set.
    """
    builder = Builder(tree, under=_FOLDERS)
    pairs = list(_pairs(tree))
    faces = list(dict.fromkeys(face for first, second, _, _ in pairs for face in (first, second)))
    rows = [Row(_path(name, image), name) for name, image in faces]
    there = [face for face, row in zip(faces, rows, strict=True) if _found(tree, row.path)]
    places = {face: place for place, face in enumerate(there)}
    known = numbering(rows)
    query = builder.split(rows, known, names=tuple(map(str, known)))
    whole = [pair for pair in pairs if pair[0] in places and pair[1] in places]
    table = np.array([(places[a], places[b], same, fold) for a, b, same, fold in whole], np.int64).reshape(-1, 4)
    lost = len(pairs) - len(whole)
    return DataSet(
        "lfw",
        "pairs",
        builder.train(_people(tree)),
        query,
        pairs=Pairs(table[:, 0], table[:, 1], table[:, 2].astype(bool), table[:, 3]),
        missing=tuple(builder.missing),
        problems=(f"{lost:,} of {len(pairs):,} pairs lack a picture",) if lost else (),
    )


Face = tuple[str, int]


def _pairs(tree: Tree) -> Iterator[tuple[Face, Face, bool, int]]:
    """(first, second, same, fold): the header is ``folds TAB pairs``, each fold has so many same, then different."""
    lines = tree.lines("pairs.txt")
    where, header = next(lines, ("pairs.txt", ""))
    counts = [number(where, text) for text in header.split()]
    if len(counts) not in (1, 2) or min(counts) < 1:
        raise BadSource(f"{where}: {header!r} is not 'folds TAB pairs'; fetch the list from its owners again")
    folds, size = (1, counts[0]) if len(counts) == 1 else counts
    seen = 0
    for where, line in lines:
        parts = line.strip().split("\t") if "\t" in line else line.split()
        if len(parts) == 3:
            first, second = (parts[0], number(where, parts[1])), (parts[0], number(where, parts[2]))
        elif len(parts) == 4:
            first, second = (parts[0], number(where, parts[1])), (parts[2], number(where, parts[3]))
        else:
            raise BadSource(f"{where}: {line!r} is neither 'name n n' nor 'name n name n'")
        yield first, second, len(parts) == 3, seen // (2 * size)
        seen += 1
    if seen != 2 * size * folds:
        raise BadSource(f"{tree.file('pairs.txt')}: it has {seen:,} pairs, not the {2 * size * folds:,} of its header")


def _path(name: str, image: int) -> str:
    return f"{name}/{name}_{image:04}.jpg"


def _found(tree: Tree, path: str) -> bool:
    return tree.find(*(f"{folder}/{path}" for folder in _FOLDERS)) is not None


def _people(tree: Tree) -> Iterator[Row]:
    """Every picture of the people of the development list; nobody where there is none."""
    if tree.find("peopleDevTrain.txt") is None:
        return
    for where, line in tree.lines("peopleDevTrain.txt"):
        parts = line.strip().split("\t") if "\t" in line else line.split()
        if len(parts) == 2:
            yield from (Row(_path(parts[0], n), parts[0]) for n in range(1, number(where, parts[1]) + 1))
