"""Near-duplicates: products whose vectors are as like as a threshold, joined into groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from embedkit.backends.contract import VectorBackend
from embedkit.filters import Filter
from embedkit.metadata.rows import CollectionRow, ViewRow
from embedkit.metadata.store import MetadataStore
from embedkit.search.stored import as_unit, every_vector
from embedkit.types import Hit

if TYPE_CHECKING:
    from embedkit.types import IdArray, VectorArray

__all__ = ["Comparing", "DuplicateGroup", "DuplicateReport", "components", "find_duplicates"]

_BLOCK = 2_048  # rows of either side that are compared at once
_PAIRS = 2**22  # that are held before they are joined
_ROUNDING = 1e-6  # equal vectors have a cosine of 1 but for the last bit


@dataclass(frozen=True, slots=True)
class Comparing:
    """How far a comparison is: `seen` products of `total` were held to all others."""

    seen: int
    total: int
    failed: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Products that are joined by steps of enough likeness. `score` of a hit: its cosine similarity to the kept one.

    `keep`: of those with a title the one with the most attributes, of equal ones the one that came first.
    """

    keep: Hit
    others: Sequence[Hit]


@dataclass(frozen=True, slots=True)
class DuplicateReport:
    """Groups, largest first. `compared`: how many products have a vector in the view."""

    view: str
    threshold: float
    compared: int
    groups: Sequence[DuplicateGroup]

    @property
    def removable(self) -> list[str]:
        """Keys of the products that are as like as `threshold` to the one that is kept of their group.

        A group may be a chain whose ends are less alike; they are left out here, and found by the next run.
        """
        return [hit.key for group in self.groups for hit in group.others if hit.score >= self.threshold - _ROUNDING]

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "view": self.view,
            "threshold": self.threshold,
            "compared": self.compared,
            "removable": self.removable,
            "groups": [
                {
                    "keep": group.keep.key,
                    "others": [{"key": hit.key, "similarity": round(hit.score, 6)} for hit in group.others],
                }
                for group in self.groups
            ],
        }


def find_duplicates(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    view: ViewRow,
    *,
    threshold: float,
    where: Filter | None,
    progress: Callable[[Comparing], None] | None = None,
) -> DuplicateReport:
    """Compare all vectors of a view by cosine similarity, of codes by that of their signs, ``1 - 2 * bits / dim``.

    Memory holds the vectors and one block of scores, never n × n; time grows with n².
    """
    ids, vectors = every_vector(store, backend, row, view, where)
    roots = components(len(ids), _alike(vectors, threshold, progress))
    order = np.argsort(roots, kind="stable")
    _, starts, counts = np.unique(roots[order], return_index=True, return_counts=True)
    groups = []
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        if count > 1:
            members = order[start : start + count]
            group = _group(store, row, view, ids[members], vectors[members])
            if group is not None:
                groups.append(group)
    groups.sort(key=lambda group: (-len(group.others), group.keep.key))
    return DuplicateReport(view.name, threshold, len(ids), groups)


def _alike(
    vectors: VectorArray, threshold: float, progress: Callable[[Comparing], None] | None
) -> Iterator[tuple[IdArray, IdArray]]:
    """Pairs of rows of enough likeness, each once, a few blocks at a time."""
    held: list[tuple[IdArray, IdArray]] = []
    for start in range(0, len(vectors), _BLOCK):
        rows = as_unit(vectors[start : start + _BLOCK])
        for left in range(start, len(vectors), _BLOCK):
            scores = rows @ as_unit(vectors[left : left + _BLOCK]).T
            one, other = np.nonzero(scores >= threshold - _ROUNDING)
            first = one + start < other + left
            held.append((one[first] + start, other[first] + left))
            if sum(len(part) for part, _ in held) >= _PAIRS:
                yield _joined(held)
                held = []
        yield _joined(held)
        held = []
        if progress is not None:
            progress(Comparing(start + len(rows), len(vectors)))


def _joined(held: Sequence[tuple[IdArray, IdArray]]) -> tuple[IdArray, IdArray]:
    empty = np.empty(0, np.int64)
    return np.concatenate([empty, *(one for one, _ in held)]), np.concatenate([empty, *(other for _, other in held)])


def components(count: int, pairs: Iterable[tuple[IdArray, IdArray]]) -> IdArray:
    """The connected components of `count` rows: for each the lowest row of its component, ``(count,)`` int64.

    Each root that meets a lower one is hung below it, then all paths are cut short (Shiloach and Vishkin 1982).

    >>> components(5, [(np.array([3, 1]), np.array([4, 3]))]).tolist()
    [0, 1, 2, 1, 1]
    """
    roots = np.arange(count)
    for one, other in pairs:
        while True:
            a, b = roots[one], roots[other]
            apart = a != b
            if not apart.any():
                break
            np.minimum.at(roots, np.maximum(a, b)[apart], np.minimum(a, b)[apart])
            while (roots != (shorter := roots[roots])).any():
                roots = shorter
    return roots


def _group(
    store: MetadataStore, row: CollectionRow, view: ViewRow, ids: IdArray, vectors: VectorArray
) -> DuplicateGroup | None:
    """The group of some vectors; None where all but one product have gone meanwhile."""
    products = store.products_by_vector(row.id, view.slot, ids.tolist())
    units = as_unit(vectors)
    places = {one: place for place, one in enumerate(ids.tolist()) if one in products}
    if len(places) < 2:
        return None
    hits = [Hit(products[one], 1.0, 1.0, one, view.name) for one in places]
    keep = min(hits, key=lambda hit: (not hit.product.title, -_filled(hit), hit.vector_id))
    near = units @ units[places[keep.vector_id]]
    others = [
        replace(hit, score=float(near[places[hit.vector_id]]), distance=float(near[places[hit.vector_id]]))
        for hit in hits
        if hit is not keep
    ]
    return DuplicateGroup(keep, sorted(others, key=lambda hit: (-hit.score, hit.key)))


def _filled(hit: Hit) -> int:
    return sum(value is not None for value in hit.product.attributes.values())
