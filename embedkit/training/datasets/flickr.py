"""MIRFlickr-25k and NUS-WIDE: pictures of several concepts; what shares one is alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import BadSource
from embedkit.training.datasets.build import Builder, Row, number, numbering
from embedkit.training.datasets.contract import DataSet
from embedkit.training.datasets.tree import Tree

if TYPE_CHECKING:
    from embedkit.training.datasets.contract import BoolArray
    from embedkit.types import IdArray

__all__ = ["read_mirflickr", "read_nuswide21", "read_nuswide81"]

_SEED = 0
_ANNOTATIONS = ("mirflickr25k_annotations_v080/", "annotations/", "")
_MIRFLICKR = ("mirflickr", "images", "")
_MIRFLICKR_COUNT = 25_000
_MIRFLICKR_CONCEPTS = (
    "animals", "baby", "bird", "car", "clouds", "dog", "female", "flower", "food", "indoor", "lake", "male", "night",
    "people", "plant_life", "portrait", "river", "sea", "sky", "structures", "sunset", "transport", "tree", "water",
)  # fmt: skip
_LISTS = ("ImageList/Imagelist.txt", "Imagelist.txt")
_CONCEPTS = ("ConceptsList/Concepts81.txt", "Concepts81.txt")
_TRUTH = ("Groundtruth/AllLabels/", "AllLabels/")
_NUSWIDE = ("Flickr", "images", "image", "")


def read_mirflickr(tree: Tree) -> DataSet:
    """MIRFlickr-25k: 24 concepts; the stricter lists of the owners, ``*_r1.txt``, are not used.

    Of the pictures that have a concept, 2,000 ask, the others are the gallery, and 5,000 of these train, drawn by
    NumPy's generator 0 where the papers on hashing draw at random.
    """
    home = next((home for home in _ANNOTATIONS if tree.find(f"{home}animals.txt")), "")
    flags = np.zeros((_MIRFLICKR_COUNT, len(_MIRFLICKR_CONCEPTS)), np.bool_)
    for place, name in enumerate(_MIRFLICKR_CONCEPTS):
        for where, line in tree.lines(f"{home}{name}.txt"):
            picture = number(where, line.strip())
            if not 0 < picture <= _MIRFLICKR_COUNT:
                raise BadSource(f"{where}: there is no picture {picture} among {_MIRFLICKR_COUNT:,}")
            flags[picture - 1, place] = True
    paths = [f"im{place + 1}.jpg" for place in range(_MIRFLICKR_COUNT)]
    order = np.random.default_rng(_SEED).permutation(np.flatnonzero(flags.any(axis=1)))
    asked, stored = order[:2_000], order[2_000:]
    return _made(
        "mirflickr25k",
        tree,
        _MIRFLICKR,
        paths,
        flags,
        _MIRFLICKR_CONCEPTS,
        (stored[:5_000], asked, stored),
        top=len(stored),
    )


def read_nuswide21(tree: Tree) -> DataSet:
    """NUS-WIDE: the 21 most frequent concepts. 100 pictures of each ask, the others that have one are the gallery.

    500 of each concept train, of the gallery (Xia 2014, Lai 2015). The papers draw at random; here NumPy's generator 0
    does, concept by concept, and a picture is drawn once.
    """
    paths, flags, names = _nuswide(tree)
    frequent = np.sort(np.argsort(-flags.sum(axis=0), kind="stable")[:21])
    flags, names = flags[:, frequent], tuple(names[place] for place in frequent)
    random = np.random.default_rng(_SEED)
    free: BoolArray = np.asarray(flags.any(axis=1))
    asked = _of_each(flags, 100, random, free)
    free[asked] = False
    learned = _of_each(flags, 500, random, free)
    return _made("nuswide21", tree, _NUSWIDE, paths, flags, names, (learned, asked, np.flatnonzero(free)), top=5_000)


def read_nuswide81(tree: Tree) -> DataSet:
    """NUS-WIDE: all 81 concepts. Of the pictures that have one 5,000 ask, the others are the gallery, 10,000 train.

    As in HashNet (Cao 2017), which draws at random; here NumPy's generator 0 does.
    """
    paths, flags, names = _nuswide(tree)
    order = np.random.default_rng(_SEED).permutation(np.flatnonzero(flags.any(axis=1)))
    asked, stored = order[:5_000], order[5_000:]
    return _made("nuswide81", tree, _NUSWIDE, paths, flags, names, (stored[:10_000], asked, stored), top=5_000)


def _nuswide(tree: Tree) -> tuple[list[str], BoolArray, tuple[str, ...]]:
    """Paths, concepts (n, 81) and their names: a list of 0 and 1 for each concept, in the order of the pictures."""
    paths = [line.strip().replace("\\", "/") for _, line in tree.lines(*_LISTS)]
    names = tuple(line.strip() for _, line in tree.lines(*_CONCEPTS))
    flags = np.zeros((len(paths), len(names)), np.bool_)
    for place, name in enumerate(names):
        file = tree.file(*(f"{home}Labels_{name}.txt" for home in _TRUTH))
        try:
            column = np.array(Path(file).read_bytes().split(), np.int64)
        except (OSError, ValueError) as error:
            raise BadSource(f"{file}: it is no list of 0 and 1: {error}; fetch it from its owners again") from error
        if len(column) != len(paths):
            raise BadSource(
                f"{file}: it has {len(column):,} rows, and the list of pictures {len(paths):,}; fetch both again"
            )
        flags[:, place] = column > 0
    return paths, flags, names


def _of_each(flags: BoolArray, count: int, random: np.random.Generator, free: BoolArray) -> IdArray:
    """So many pictures of every concept, rare ones first, none of them twice."""
    free, drawn = free.copy(), []
    for place in np.argsort(flags.sum(axis=0), kind="stable"):
        chosen = random.permutation(np.flatnonzero(flags[:, place] & free))[:count]
        free[chosen] = False
        drawn.append(chosen)
    return np.sort(np.concatenate(drawn))


def _made(
    name: str,
    tree: Tree,
    under: Sequence[str],
    paths: Sequence[str],
    flags: BoolArray,
    names: tuple[str, ...],
    parts: Iterable[IdArray],
    *,
    top: int,
) -> DataSet:
    """The splits train, query and gallery, of rows of the lists."""
    builder = Builder(tree, under=under, concepts=len(names))
    train, query, gallery = (
        [
            Row(paths[row], "+".join(names[place] for place in had), concepts=had)
            for row in np.sort(part).tolist()
            if (had := tuple(np.flatnonzero(flags[row]).tolist()))
        ]
        for part in parts
    )
    known = numbering(query, gallery)
    titles = tuple(map(str, known))
    return DataSet(
        name,
        "query-gallery",
        builder.train(train),
        builder.split(query, known, names=titles),
        builder.split(gallery, known, names=titles),
        concepts=names,
        missing=tuple(builder.missing),
        top=top,
    )
