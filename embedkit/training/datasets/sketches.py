"""Sketches that ask for pictures: ``openmoji-sketch``, TU-Berlin and Sketchy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from embedkit.training.datasets.build import Builder, Row, numbering
from embedkit.training.datasets.contract import PICTURE, SKETCH, DataSet
from embedkit.training.datasets.pixels import picture_bytes
from embedkit.training.datasets.tree import Tree

__all__ = ["read_openmoji"]

_SEED = 0


def read_openmoji(tree: Tree) -> DataSet:
    """``openmoji-sketch``: drawings as black outlines and in colour, as ``examples/openmoji-sketch.py`` makes them.

    What cannot be told apart by its outlines, such as the same hand in six colours of skin or most flags, is one class:
    it has one sketch, that of its first name, and all the coloured drawings. The classes, sorted by that name, are
    permuted and the first half trains. Of the second half the sketches ask, and the gallery is in colour.
    """
    classes = list(_by_outline(tree).values())
    order = np.random.default_rng(_SEED).permutation(len(classes))
    middle = len(classes) // 2
    builder = Builder(tree)
    train, judged = (
        [row for place in part for row in _outline_and_pictures(classes[place])]
        for part in (order[:middle], order[middle:])
    )
    return _query_gallery("openmoji-sketch", builder, train, judged)


def _by_outline(tree: Tree) -> dict[str, list[str]]:
    """The names of the drawings that lie in both folders, by what their outlines look like."""
    classes: dict[str, list[str]] = {}
    coloured = {path.partition("/")[2] for path in tree.pictures("image")}
    for path in tree.pictures("sketch"):
        name = path.partition("/")[2]
        if name in coloured:
            look = hashlib.sha256(picture_bytes(tree.file(path))).hexdigest()
            classes.setdefault(look, []).append(name)
    return classes


def _outline_and_pictures(names: Sequence[str]) -> list[Row]:
    title = names[0].rpartition(".")[0]
    pictures = [Row(f"image/{name}", title, domain=PICTURE) for name in names]
    return [Row(f"sketch/{names[0]}", title, domain=SKETCH), *pictures]


def _query_gallery(name: str, builder: Builder, train: Sequence[Row], judged: Sequence[Row]) -> DataSet:
    """Sketches ask, pictures are the gallery."""
    asked, stored = ([row for row in judged if row.domain == domain] for domain in (SKETCH, PICTURE))
    known = numbering(judged)
    names = tuple(map(str, known))
    return DataSet(
        name,
        "query-gallery",
        builder.train(train),
        builder.split(asked, known, names=names),
        builder.split(stored, known, names=names),
        missing=tuple(builder.missing),
    )
