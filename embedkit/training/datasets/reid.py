"""Market-1501, VeRi-776 and VehicleID: the same person or vehicle, seen by other cameras."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from embedkit.errors import BadSource
from embedkit.training.datasets.build import Builder, Row, columns, number, numbering
from embedkit.training.datasets.contract import DataSet, Subset
from embedkit.training.datasets.tree import Tree

__all__ = ["read_market1501", "read_vehicleid", "read_veri776"]

_NAME = re.compile(r"(-1|\d+)_c(\d+)", re.IGNORECASE)
_SIZES = (800, 1600, 2400)


def read_market1501(tree: Tree) -> DataSet:
    """Market-1501: identities are in the names, such as ``0002_c1s1_000451_03.jpg``; -1 is junk, 0 distracts."""
    parts = {name: tree.pictures(name) for name in ("bounding_box_train", "query", "bounding_box_test")}
    return _cross_camera(tree, "market1501", *parts.values())


def read_veri776(tree: Tree) -> DataSet:
    """VeRi-776: ``name_train.txt``, ``name_query.txt``, ``name_test.txt`` list the names in ``image_*``."""
    parts = (
        [f"image_{part}/{line.strip()}" for _, line in tree.lines(f"name_{part}.txt")]
        for part in ("train", "query", "test")
    )
    return _cross_camera(tree, "veri776", *parts)


def _cross_camera(tree: Tree, name: str, train: list[str], query: list[str], gallery: list[str]) -> DataSet:
    builder = Builder(tree)
    return DataSet(
        name,
        "cross-camera",
        builder.train(row for row in _named(train) if int(row.label) > 0),
        builder.split(_named(query)),
        builder.split(_named(gallery)),
        missing=tuple(builder.missing),
    )


def _named(paths: Iterable[str]) -> Iterator[Row]:
    for path in paths:
        found = _NAME.match(path.rpartition("/")[2])
        if found is None:
            raise BadSource(f"{path}: the name does not begin with identity and camera, such as 0002_c1")
        yield Row(path, int(found[1]), camera=int(found[2]))


def read_vehicleid(tree: Tree) -> DataSet:
    """PKU VehicleID: ``train_test_split/*.txt`` with ``image vehicle``; the test lists of 800, 1,600 and 2,400.

    The query split holds the pictures of all three; `subsets` has the rows of each.
    """
    builder = Builder(tree)
    tests = {size: list(_listed(tree, f"train_test_split/test_list_{size}.txt")) for size in _SIZES}
    every = list({row.path: row for rows in tests.values() for row in rows}.values())
    known = numbering(every)
    train = builder.train(_listed(tree, "train_test_split/train_list.txt"))
    there = [row for row in every if tree.find(row.path)]
    query = builder.split(every, known, names=tuple(map(str, known)))
    places = {row.path: place for place, row in enumerate(there)}
    subsets = [
        Subset(str(size), np.array([places[row.path] for row in rows if row.path in places], np.int64))
        for size, rows in tests.items()
    ]
    return DataSet("vehicleid", "random-galleries", train, query, subsets=subsets, missing=tuple(builder.missing))


def _listed(tree: Tree, name: str) -> Iterator[Row]:
    for where, line in tree.lines(name):
        image, vehicle = columns(where, line, "image vehicle", path_first=True)
        yield Row(f"image/{image.removesuffix('.jpg')}.jpg", number(where, vehicle))
