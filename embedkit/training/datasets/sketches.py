"""Sketches that ask for pictures: ``openmoji-sketch``, TU-Berlin and Sketchy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import numpy as np

from embedkit.training.datasets.build import Builder, Row, numbering
from embedkit.training.datasets.contract import PICTURE, SKETCH, DataSet
from embedkit.training.datasets.pixels import picture_bytes
from embedkit.training.datasets.tree import Tree

__all__ = ["read_openmoji", "read_sketchy", "read_sketchy_instances", "read_tuberlin"]

_SEED = 0
_TUBERLIN = ("png", "sketches", "png_ready"), ("ImageResized", "images", "ImageResized_ready")
_PLAIN = "tx_000000000000"  # of Sketchy's renderings, that which is only scaled
_SKETCHY = tuple(
    tuple(
        f"{head}{kind}/{_PLAIN}{tail}"
        for head in ("256x256/", "rendered_256x256/256x256/", "")
        for tail in ("", "_ready")
    )
    for kind in ("sketch", "photo")
)
_EXTENDED = tuple(
    f"{head}{name}"
    for head in ("256x256/", "")
    for name in ("EXTEND_image_sketchy", "EXTEND_image_sketchy_ready", "extended_photo")
)
_QUERIES = {"tuberlin": 10, "sketchy": 50}  # sketches of a category that ask (Liu 2017, section 4.1)
_INVALID = ("ambiguous", "context", "error", "pose")


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


def read_tuberlin(tree: Tree) -> DataSet:
    """TU-Berlin with the pictures that Zhang et al. (2016) added: 250 categories, a folder of each for both.

    As in deep sketch hashing (Liu 2017): ten sketches of a category ask, drawn by NumPy's generator 0 where the paper
    says at random; all the others and all pictures train, and all pictures are the gallery.
    """
    sketches, pictures = (_first(tree, folders) for folders in _TUBERLIN)
    return _by_category("tuberlin", tree, _in_folders(tree, [sketches], SKETCH), _in_folders(tree, [pictures], PICTURE))


def read_sketchy(tree: Tree) -> DataSet:
    """Sketchy by category: 125 of them. 50 sketches of each ask, as in `read_tuberlin`.

    The gallery is the 12,500 photos, and the 60,502 of the extension where they are there.
    """
    sketches, photos = (_first(tree, folders) for folders in _SKETCHY)
    more = next((folder for folder in _EXTENDED if tree.find(folder)), None)
    pictures = _in_folders(tree, [photos, more] if more else [photos], PICTURE)
    return _by_category("sketchy", tree, _in_folders(tree, [sketches], SKETCH), pictures)


def read_sketchy_instances(tree: Tree) -> DataSet:
    """Sketchy by photo: a sketch, ``n02691156_58-3.png``, asks for the photo that it was drawn of.

    The photos of ``info/testset.txt`` are the gallery, their sketches ask, and the other photos train, each a class.
    Sketches that ``info/invalid-*.txt`` name are left out.
    """
    sketches, photos = (_first(tree, folders) for folders in _SKETCHY)
    judged = {_stem(line.strip()) for _, line in tree.lines("info/testset.txt", "testset.txt")}
    invalid = {
        _stem(line.strip())
        for kind in _INVALID
        if tree.find(f"info/invalid-{kind}.txt")
        for _, line in tree.lines(f"info/invalid-{kind}.txt")
    }
    rows = [Row(row.path, _stem(row.path), domain=PICTURE) for row in _in_folders(tree, [photos], PICTURE)]
    known = {row.label for row in rows}
    for row in _in_folders(tree, [sketches], SKETCH):
        name = _stem(row.path)
        photo = name.rpartition("-")[0]
        if name not in invalid and photo in known:
            rows.append(Row(row.path, photo, domain=SKETCH))
    parts = [row for row in rows if row.label not in judged], [row for row in rows if row.label in judged]
    return _query_gallery("sketchy-instance", Builder(tree), *parts)


def _first(tree: Tree, folders: Sequence[str]) -> str:
    """The folder that is there. Raises BadSource."""
    tree.file(*folders)
    return next(folder for folder in folders if tree.find(folder))


def _in_folders(tree: Tree, folders: Iterable[str], domain: int) -> list[Row]:
    """The pictures of every category."""
    return [
        Row(path, category, domain=domain)
        for folder in folders
        for category in tree.folders(folder)
        for path in tree.pictures(f"{folder}/{category}")
    ]


def _stem(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).stem


def _by_category(name: str, tree: Tree, sketches: Sequence[Row], pictures: Sequence[Row]) -> DataSet:
    """Some sketches of every category ask, all pictures are the gallery, and all but the questions train."""
    random = np.random.default_rng(_SEED)
    labels = np.array([str(row.label) for row in sketches])
    asked: set[int] = set()
    for label in sorted(set(labels.tolist())):
        places = np.flatnonzero(labels == label)
        asked.update(random.permutation(places)[: _QUERIES[name]].tolist())
    queries = [row for place, row in enumerate(sketches) if place in asked]
    others = [row for place, row in enumerate(sketches) if place not in asked]
    return _query_gallery(name, Builder(tree), [*others, *pictures], [*queries, *pictures])


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
