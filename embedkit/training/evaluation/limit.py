"""A small part of a data set for a quick look: several classes of it, so that there is something to be mistaken for."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import ConfigError
from embedkit.training.datasets.contract import DataSet, Pairs, Subset

if TYPE_CHECKING:
    from embedkit.training.datasets.contract import BoolArray
    from embedkit.types import IdArray

__all__ = ["limited"]

_LEAST = 4  # queries: two classes of two; of one class alone every answer would be right
_FEW = 10  # pictures of a class that are enough to make room for another class
_GALLERY = 10  # times as many pictures of the gallery as queries


def limited(data: DataSet, pictures: int) -> DataSet:
    """At most so many queries, or four, of two classes or more, and the gallery's pictures of their classes.

    The classes are the first ones, those that the gallery has before others, as many as find room with ten pictures
    each or all they have. Where they have more than there is room for, each gives evenly many, spread over all of its
    own. Of the gallery ten times as many pictures are kept.

    Of pairs, evenly many from the whole list: from some fifty pictures on every fold of LFW keeps both kinds. Of
    pictures of several concepts, evenly many, and ten times as many of the gallery. Raises ConfigError when the gallery
    has nothing of these classes.
    """
    if data.query.concepts is not None:
        return _fewer_of_all(data, pictures)
    if data.pairs is not None:
        return _fewer_pairs(data, data.pairs, pictures)
    most, gallery = max(pictures, _LEAST), data.gallery
    classes = _first_classes(data.query.labels, most, found=None if gallery is None else gallery.labels)
    mask = _levelled(data.query.labels, classes, most)
    place = np.cumsum(mask) - 1
    if gallery is not None:
        gallery = gallery.take(_levelled(gallery.labels, classes, _GALLERY * most))
        if not len(gallery):
            raise ConfigError(f"A limit of {pictures} pictures leaves nothing to be found in the gallery; give more")
    return replace(
        data,
        query=data.query.take(mask),
        gallery=gallery,
        subsets=tuple(Subset(part.name, place[part.rows[mask[part.rows]]]) for part in data.subsets),
    )


def _first_classes(labels: IdArray, most: int, *, found: IdArray | None) -> IdArray:
    """The classes that come first and give a few of `most` pictures each, before others those that can be `found`."""
    known, first, counts = np.unique(labels, return_index=True, return_counts=True)
    lost = np.zeros(len(known), np.bool_) if found is None else ~np.isin(known, found)
    order = np.lexsort((first, lost))
    room = np.cumsum(np.minimum(counts[order], _FEW)) <= most
    room[:2] = True
    classes: IdArray = known[order[room]]
    return classes


def _levelled(labels: IdArray, classes: IdArray, most: int) -> BoolArray:
    """Which pictures to keep ``(n,)``: of every class all, or as many as of any other large one, `most` together."""
    rows = np.flatnonzero(np.isin(labels, classes))
    rows = rows[np.argsort(labels[rows], kind="stable")]
    _, starts, sizes = np.unique(labels[rows], return_index=True, return_counts=True)
    level = bisect_right(range(1, int(sizes.max(initial=0)) + 1), most, key=lambda one: np.minimum(sizes, one).sum())
    shares = np.minimum(sizes, level)
    size, share = np.repeat(sizes, sizes), np.repeat(shares, sizes)
    rank = np.arange(len(rows)) - np.repeat(starts, sizes)
    mask: BoolArray = np.zeros(len(labels), np.bool_)
    mask[rows] = (rank + 1) * share // size > rank * share // size
    return mask


def _fewer_of_all(data: DataSet, pictures: int) -> DataSet:
    gallery = None if data.gallery is None else data.gallery.take(_evenly(len(data.gallery), _GALLERY * pictures))
    return replace(data, query=data.query.take(_evenly(len(data.query), pictures)), gallery=gallery)


def _evenly(there: int, wanted: int) -> IdArray:
    return np.unique(np.linspace(0, there - 1, max(1, min(there, wanted))).astype(np.int64))


def _fewer_pairs(data: DataSet, pairs: Pairs, pictures: int) -> DataSet:
    chosen = _evenly(len(pairs), pictures // 2)
    used, places = np.unique(np.concatenate([pairs.first[chosen], pairs.second[chosen]]), return_inverse=True)
    fewer = Pairs(places[: len(chosen)], places[len(chosen) :], pairs.same[chosen], pairs.folds[chosen])
    return replace(data, query=data.query.take(used), pairs=fewer)
