"""A small part of a data set for a quick look: whole classes, so that there is still something to be found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import ConfigError
from embedkit.training.datasets.contract import DataSet, Pairs, Subset

if TYPE_CHECKING:
    from embedkit.types import IdArray

__all__ = ["limited"]


def limited(data: DataSet, pictures: int) -> DataSet:
    """At most so many queries (the first class whole), and the gallery's pictures of their classes.

    Of pairs, evenly many from the whole list: from some fifty pictures on every fold of LFW keeps both kinds. Of
    pictures of several concepts, evenly many, and ten times as many of the gallery. Raises ConfigError when the gallery
    has nothing of these classes.
    """
    if data.query.concepts is not None:
        return _fewer_of_all(data, pictures)
    if data.pairs is not None:
        return _fewer_pairs(data, data.pairs, pictures)
    labels = data.query.labels
    known, first, counts = np.unique(labels, return_index=True, return_counts=True)
    order = np.argsort(first)
    kept = np.cumsum(counts[order]) <= pictures
    kept[0] = True
    mask = np.isin(labels, known[order][kept])
    place = np.cumsum(mask) - 1
    gallery = data.gallery
    if gallery is not None:
        gallery = gallery.take(np.isin(gallery.labels, known[order][kept]))
        if not len(gallery):
            raise ConfigError(f"A limit of {pictures} pictures leaves nothing to be found in the gallery; give more")
    return replace(
        data,
        query=data.query.take(mask),
        gallery=gallery,
        subsets=tuple(Subset(part.name, place[part.rows[mask[part.rows]]]) for part in data.subsets),
    )


def _fewer_of_all(data: DataSet, pictures: int) -> DataSet:
    gallery = None if data.gallery is None else data.gallery.take(_evenly(len(data.gallery), 10 * pictures))
    return replace(data, query=data.query.take(_evenly(len(data.query), pictures)), gallery=gallery)


def _evenly(there: int, wanted: int) -> IdArray:
    return np.unique(np.linspace(0, there - 1, max(1, min(there, wanted))).astype(np.int64))


def _fewer_pairs(data: DataSet, pairs: Pairs, pictures: int) -> DataSet:
    chosen = _evenly(len(pairs), pictures // 2)
    used, places = np.unique(np.concatenate([pairs.first[chosen], pairs.second[chosen]]), return_inverse=True)
    fewer = Pairs(places[: len(chosen)], places[len(chosen) :], pairs.same[chosen], pairs.folds[chosen])
    return replace(data, query=data.query.take(used), pairs=fewer)
