"""A folder for each class: any such tree, and the Kaggle in-class set of eBay's products."""

from __future__ import annotations

from embedkit.errors import BadSource
from embedkit.training.datasets.build import Builder, Row, halves, numbering
from embedkit.training.datasets.contract import DataSet
from embedkit.training.datasets.tree import Tree

__all__ = ["read_ebay", "read_folder"]

_TRAIN = ("train", "training")
_TEST = ("test", "testing", "val", "valid", "validation")


def read_folder(tree: Tree) -> DataSet:
    """``CLASS/**/picture``. With folders ``train`` and ``test`` (or ``val``; or ``query`` and ``gallery``), those.

    Without, the first half of the classes, sorted by name, trains, and the other half is judged; so it is where the
    folder ``train`` is alone.
    """
    there = {name.lower(): name for name in tree.folders()}
    train = next((there[name] for name in _TRAIN if name in there), None)
    test = next((there[name] for name in _TEST if name in there), None)
    if train is not None and {"query", "gallery"} <= there.keys():
        return _query_gallery(tree, train, there["query"], there["gallery"])
    if train is not None and test is not None:
        builder = Builder(tree)
        return DataSet("folder", "zero-shot", builder.train(_rows(tree, train)), builder.train(_rows(tree, test)))
    return _halves(tree, "folder", under=train if train is not None and len(there) == 1 else "")


def read_ebay(tree: Tree) -> DataSet:
    """The Kaggle in-class set of eBay's products, class-wise in halves: its owners published no split."""
    return _halves(tree, "ebay")


def _halves(tree: Tree, name: str, *, under: str = "") -> DataSet:
    first, second = halves(_rows(tree, under))
    builder = Builder(tree)
    return DataSet(name, "zero-shot", builder.train(first), builder.train(second))


def _query_gallery(tree: Tree, train: str, query: str, gallery: str) -> DataSet:
    builder = Builder(tree)
    asked, stored = _rows(tree, query), _rows(tree, gallery)
    known = numbering(asked, stored)
    names = tuple(map(str, known))
    return DataSet(
        "folder",
        "query-gallery",
        builder.train(_rows(tree, train)),
        builder.split(asked, known, names=names),
        builder.split(stored, known, names=names),
    )


def _rows(tree: Tree, folder: str) -> list[Row]:
    head = f"{folder}/" if folder else ""
    rows = [Row(path, name) for name in tree.folders(folder) for path in tree.pictures(f"{head}{name}", deep=True)]
    if not rows:
        raise BadSource(f"{str(tree.root / folder)!r} has no folders with pictures in them; each class is one folder")
    return rows
