"""CIFAR-10 as hashing is judged on it: queries of every class, the rest the base, a part of which trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import BadSource
from embedkit.training.datasets.contract import DataSet, Split
from embedkit.training.datasets.records import record_labels, record_path
from embedkit.training.datasets.tree import Tree

if TYPE_CHECKING:
    from embedkit.training.datasets.contract import BoolArray
    from embedkit.types import IdArray

__all__ = ["read_cifar10", "read_cifar10_official"]

_SEED = 0
_QUERIES, _TRAINED = 100, 500  # of a class
_TEST = "test_batch"
_BATCHES = tuple(f"data_batch_{n}" for n in range(1, 6))
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_HOMES = ("", "cifar-10-batches-bin/")


def read_cifar10(tree: Tree) -> DataSet:
    """100 queries of a class, the other 59,000 pictures are the gallery, and 500 of each class of it train.

    As in CNNH (Xia 2014) and after it, which draw them at random; here NumPy's generator 0 does, class by class. The
    binary version is read (``data_batch_1.bin``) and not that for Python: its files are pickled, and whoever made such
    a file may run code where it is read.
    """
    random = np.random.default_rng(_SEED)
    every = _pictures(tree)
    order = [random.permutation(np.flatnonzero(every.labels == label)) for label in range(len(_CLASSES))]
    asked = np.zeros(len(every.labels), np.bool_)
    asked[np.concatenate([places[:_QUERIES] for places in order])] = True
    learned = np.sort(np.concatenate([places[_QUERIES : _QUERIES + _TRAINED] for places in order]))
    query, gallery = every.split(np.flatnonzero(asked)), every.split(np.flatnonzero(~asked))
    return DataSet("cifar10", "query-gallery", every.split(learned), query, gallery, top=len(gallery))


def read_cifar10_official(tree: Tree) -> DataSet:
    """The owners' own split: the 10,000 test pictures ask, the 50,000 others train and are the gallery (Lin 2015)."""
    every = _pictures(tree)
    train, test = every.split(np.flatnonzero(~every.tested)), every.split(np.flatnonzero(every.tested))
    return DataSet("cifar10-official", "query-gallery", train, test, train, top=len(train))


@dataclass(frozen=True, slots=True, eq=False)
class _Pictures:
    """All 60,000; `tested`: which are of the owners' test part."""

    paths: tuple[str, ...]
    labels: IdArray
    tested: BoolArray

    def split(self, rows: IdArray) -> Split:
        return Split(tuple(self.paths[row] for row in rows), self.labels[rows], names=_CLASSES)


def _pictures(tree: Tree) -> _Pictures:
    """Raises BadSource."""
    pickled = tree.find("data_batch_1", "cifar-10-batches-py/data_batch_1")
    if pickled and not tree.find(*(f"{home}data_batch_1.bin" for home in _HOMES)):
        raise BadSource(
            f"{pickled}: it is pickled, which can run code, and is not read; fetch the binary version, "
            "cifar-10-binary.tar.gz, from the same page"
        )
    paths: list[str] = []
    columns, tested = [], []
    for name in (*_BATCHES, _TEST):
        file = tree.file(*(f"{home}{name}.bin" for home in _HOMES))
        labels = record_labels(file)
        if labels.max() >= len(_CLASSES):
            raise BadSource(f"{file}: the label {labels.max()} is no class of CIFAR-10, 0 to 9")
        paths += [record_path(file, place) for place in range(len(labels))]
        columns.append(labels)
        tested.append(np.full(len(labels), name == _TEST))
    return _Pictures(tuple(paths), np.concatenate(columns), np.concatenate(tested))
