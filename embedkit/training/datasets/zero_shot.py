"""CUB-200-2011, Cars196 and Stanford Online Products: half of the classes trains, the other half is judged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from embedkit import plugins
from embedkit.errors import BadSource
from embedkit.training.datasets.build import Builder, Row, columns, number
from embedkit.training.datasets.contract import DataSet
from embedkit.training.datasets.tree import Tree

__all__ = ["read_cars196", "read_cub200", "read_sop"]

_CUB_TRAINED = 100  # classes 1 to 100
_CARS_TRAINED = 98


def read_cub200(tree: Tree) -> DataSet:
    """CUB-200-2011. The owners' own split is by picture; metric learning splits by class, 1 to 100 and the rest."""
    classes = dict(_pairs(tree, "image_class_labels.txt", "image_id class_id"))
    rows = []
    for where, line in tree.lines("images.txt"):
        image, path = columns(where, line, "image_id path")
        if image not in classes:
            raise BadSource(f"{where}: image_class_labels.txt has no class for image {image}")
        rows.append(Row(path, number(where, classes[image])))
    return _split_at(tree, "cub200", rows, _CUB_TRAINED, _class_names(tree), ("images",))


def _class_names(tree: Tree) -> dict[int, str]:
    """What the classes are called, where there is a list of it."""
    if not tree.find("classes.txt"):
        return {}
    parted = ((where, columns(where, line, "class_id name")) for where, line in tree.lines("classes.txt"))
    return {number(where, key): name for where, (key, name) in parted}


def _pairs(tree: Tree, name: str, wanted: str) -> Iterable[tuple[str, str]]:
    for where, line in tree.lines(name):
        key, value = columns(where, line, wanted)
        yield key, value


def read_cars196(tree: Tree) -> DataSet:
    """Cars196: ``cars_annos.mat``, classes 1 to 98 and the rest; whose ``test`` flag is of another split."""
    matlab: Any = plugins.require("scipy.io.matlab", "train", needed_for="Cars196, whose list is a MATLAB file,")
    path = tree.file("cars_annos.mat", "devkit/cars_annos.mat")
    try:
        values = matlab.loadmat(path, squeeze_me=True)
        rows = [Row(str(one["relative_im_path"]), int(one["class"])) for one in values["annotations"]]
        names = {place: str(name) for place, name in enumerate(values["class_names"], 1)}
    except (OSError, ValueError, KeyError, TypeError, IndexError, NotImplementedError, matlab.MatReadError) as error:
        raise BadSource(f"{path}: it is not the list of Cars196: {error}; fetch it from its owners again") from error
    return _split_at(tree, "cars196", rows, _CARS_TRAINED, names, ("",))


def _split_at(
    tree: Tree, name: str, rows: list[Row], trained: int, names: dict[int, str], under: tuple[str, ...]
) -> DataSet:
    builder = Builder(tree, under=under)
    titles: dict[int | str, str] = {key: value for key, value in names.items()}
    train = builder.train([row for row in rows if int(row.label) <= trained], names=titles)
    query = builder.train([row for row in rows if int(row.label) > trained], names=titles)
    return DataSet(name, "zero-shot", train, query, missing=tuple(builder.missing))


def read_sop(tree: Tree) -> DataSet:
    """Stanford Online Products: ``Ebay_train.txt`` and ``Ebay_test.txt``, each with a header line."""
    builder = Builder(tree)
    train = builder.train(_products(tree, "Ebay_train.txt"))
    query = builder.train(_products(tree, "Ebay_test.txt"))
    return DataSet("sop", "zero-shot", train, query, missing=tuple(builder.missing))


def _products(tree: Tree, name: str) -> Iterable[Row]:
    for where, line in tree.lines(name):
        if line.startswith("image_id"):
            continue
        _, product, _, path = columns(where, line, "image_id class_id super_class_id path")
        yield Row(path, number(where, product))
