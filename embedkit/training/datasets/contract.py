"""What a data set is: its pictures by split, and the rules by which an encoder is judged on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from embedkit.types import IdArray

    BoolArray: TypeAlias = npt.NDArray[np.bool_]

__all__ = ["PICTURE", "PROTOCOLS", "SKETCH", "Captions", "DataSet", "Pairs", "Protocol", "Split", "Subset"]

Protocol = Literal[
    "consumer-to-shop",
    "cross-camera",
    "image-text",
    "pairs",
    "query-gallery",
    "random-galleries",
    "street-to-shop",
    "zero-shot",
]
"""``zero-shot``: the test pictures search each other, none finds itself; their classes were never trained.
``query-gallery``: queries search a gallery of other pictures. ``cross-camera`` (Market-1501): so do they, but entries
of the same identity from the same camera, and of identity -1, are junk that counts neither way; identity 0 distracts.
``consumer-to-shop``: top-k accuracy by category, in the whole gallery; ``street-to-shop``: within the category.
``image-text``: captions search the pictures and pictures the captions; right is what has the label of the query.
``pairs`` (LFW): same or not, in ten folds. ``random-galleries`` (VehicleID): one picture of each vehicle, drawn ten
times, is the gallery."""

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

PICTURE, SKETCH = 0, 1  # domains
_COLUMNS = ("labels", "cameras", "categories", "boxes", "domains", "concepts")


@dataclass(frozen=True, slots=True, eq=False)
class Captions:
    """Texts on pictures. `labels`: (m,) int64; a text belongs to every picture of its label.

    Where each picture has captions of its own, each has a label of its own.
    """

    texts: tuple[str, ...]
    labels: IdArray

    def __len__(self) -> int:
        return len(self.texts)

    def of(self, labels: IdArray) -> Captions:
        """Those of some labels."""
        rows = np.flatnonzero(np.isin(self.labels, labels))
        return Captions(tuple(self.texts[row] for row in rows), self.labels[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Pictures of one part of a data set; every array has a row for each.

    `labels`: (n,) int64. Of a training split they are dense, from 0, and `names` has a name for each; those of query
    and gallery agree with each other. `cameras`: (n,) int64, where the protocol asks for them. `categories`: (n,)
    int64, into `DataSet.categories`. `boxes`: (n, 4) int64, left, top, width, height of what counts in the picture;
    a width of 0 stands for the whole picture. `domains`: (n,) int64, `PICTURE` or `SKETCH`, where a set has both.
    `concepts`: (n, c) bool, what is in the picture, into `DataSet.concepts`, where that is more than one thing; the
    labels then number the sets of concepts that occur. `captions`: one or more for every label, where the protocol asks
    for them.
    """

    paths: tuple[str, ...]
    labels: IdArray
    cameras: IdArray | None = None
    names: tuple[str, ...] | None = None
    categories: IdArray | None = None
    boxes: IdArray | None = None
    captions: Captions | None = None
    domains: IdArray | None = None
    concepts: BoolArray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def classes(self) -> int:
        """How many classes or concepts it has pictures of.

        In a gallery of many cameras, 0 (distractors) and -1 (junk) are none.
        """
        if self.concepts is not None:
            return int(self.concepts.any(axis=0).sum())
        special = self.cameras is not None and self.names is None
        return int(np.count_nonzero(np.unique(self.labels) > (0 if special else -1)))

    def take(self, rows: IdArray | BoolArray) -> Split:
        """The pictures at some positions, or of a mask."""
        chosen = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        columns: dict[str, Any] = {
            name: column[chosen] for name in _COLUMNS if (column := getattr(self, name)) is not None
        }
        captions = self.captions.of(self.labels[chosen]) if self.captions is not None else None
        return replace(self, paths=tuple(self.paths[row] for row in chosen), captions=captions, **columns)

    def joined(self, other: Split) -> Split:
        """The pictures of both, whose labels agree; columns that one of them lacks are left out."""
        columns: dict[str, Any] = {
            name: np.concatenate([mine, others])
            if (mine := getattr(self, name)) is not None and (others := getattr(other, name)) is not None
            else None
            for name in _COLUMNS
        }
        return replace(self, paths=self.paths + other.paths, **columns)

    def of_domain(self, domain: int) -> Split:
        """Its sketches, or its pictures. Of a split without domains everything is a picture."""
        domains = np.full(len(self), PICTURE) if self.domains is None else self.domains
        return self.take(domains == domain)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of pictures of the query split: positions (p,) int64, whether they are the same (p,) bool, folds (p,)."""

    first: IdArray
    second: IdArray
    same: BoolArray
    folds: IdArray

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True, slots=True, eq=False)
class Subset:
    """A named part of the query split that is judged on its own; `rows` are positions (n,) int64."""

    name: str
    rows: IdArray


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """A data set with its official splits.

    `gallery`: None where the queries search each other. `missing`: what the lists name and the disk has not; those
    pictures are in no split. `concepts`: the names of what the columns of `Split.concepts` stand for. `problems`: what
    else is not as its owners publish it. `without_caption`: pictures that have none where captions are asked for; they
    are in no split either. `top`: how many of the nearest the mean average precision of codes counts, by the papers
    that use this set; 0 where none do.
    """

    name: str
    protocol: Protocol
    train: Split
    query: Split
    gallery: Split | None = None
    pairs: Pairs | None = None
    subsets: Sequence[Subset] = ()
    categories: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    without_caption: int = 0
    top: int = 0

    @property
    def shown(self) -> Split:
        """What plots show: the query split, and beside sketches the pictures that they ask for."""
        if self.gallery is None or self.query.domains is None:
            return self.query
        return self.query.joined(self.gallery)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name; those that are judged come after ``train``."""
        if self.gallery is None:
            return {"train": self.train, "test": self.query}
        return {"train": self.train, "query": self.query, "gallery": self.gallery}
