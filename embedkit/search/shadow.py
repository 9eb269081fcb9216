"""Two versions of a collection side by side: the same products ask both, and what they find is compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedkit.search.exact import Query
from embedkit.search.query import Asked, search_many
from embedkit.search.wanted import Wanted

if TYPE_CHECKING:
    from embedkit.backends.contract import VectorBackend
    from embedkit.metadata.rows import CollectionRow, ViewRow
    from embedkit.metadata.store import MetadataStore
    from embedkit.types import Hit, VectorArray

__all__ = ["Shifted", "ViewComparison", "compare_views"]

_NAMED = 20  # queries that a comparison shows


@dataclass(frozen=True, slots=True)
class Shifted:
    """A product that asked: the share `overlap` of its k neighbours that stayed, and (key, score) of both answers."""

    key: str
    overlap: float
    before: tuple[tuple[str, float], ...]
    after: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class ViewComparison:
    """One view in two versions. `overlap`: the mean share of the k nearest that both versions name.

    `score_before`, `score_after`: the mean score of the k nearest; scores of two encoders, or of floats and codes, are
    on scales of their own. `same_first`: the share of queries whose nearest stayed. `moved`: those that changed most,
    most first, and none that did not.
    """

    view: str
    before: str
    after: str
    k: int
    queries: int
    overlap: float
    same_first: float
    score_before: float
    score_after: float
    moved: tuple[Shifted, ...]

    @property
    def score_shift(self) -> float:
        """How much higher the scores are in the new version."""
        return self.score_after - self.score_before

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {**asdict(self), "score_shift": self.score_shift}


def compare_views(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    pairs: Sequence[tuple[ViewRow, ViewRow]],
    *,
    k: int,
    queries: int,
    seed: int = 0,
) -> tuple[ViewComparison, ...]:
    """Compare views, (old, new) each, by `queries` products drawn by chance that have a vector in both.

    Each asks each version by its own vector there, and is left out of the answer.
    """
    keys = store.keys(row.id)
    order = np.random.default_rng(seed).permutation(len(keys))
    return tuple(
        _compared(store, backend, row, old, new, _asking(store, row, old, new, [keys[i] for i in order], queries), k)
        for old, new in pairs
    )


def _asking(
    store: MetadataStore, row: CollectionRow, old: ViewRow, new: ViewRow, keys: Sequence[str], count: int
) -> dict[str, tuple[int, int]]:
    """The first keys that have a vector in both, with the ids of the two."""
    found: dict[str, tuple[int, int]] = {}
    for first in range(0, len(keys), max(count, 1)):
        part = keys[first : first + max(count, 1)]
        ids = store.vector_ids_of(row.id, part)
        for key in part:
            by_slot = ids.get(key, {})
            if old.slot in by_slot and new.slot in by_slot and len(found) < count:
                found[key] = (by_slot[old.slot], by_slot[new.slot])
        if len(found) >= count:
            break
    return found


def _compared(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    old: ViewRow,
    new: ViewRow,
    asking: dict[str, tuple[int, int]],
    k: int,
) -> ViewComparison:
    keys = list(asking)
    answers = []
    for view, ids in ((old, [pair[0] for pair in asking.values()]), (new, [pair[1] for pair in asking.values()])):
        answers.append(_answers(store, backend, row, view, keys, ids, k))
    moved = []
    for key, before, after in zip(keys, *answers, strict=True):
        both = {hit.key for hit in before} & {hit.key for hit in after}
        share = len(both) / max(len(before), len(after), 1) if before or after else 1.0
        moved.append(Shifted(key, share, _named(before), _named(after)))
    firsts = [one.before[0][0] == one.after[0][0] for one in moved if one.before and one.after]
    moved.sort(key=lambda one: (one.overlap, one.key))
    return ViewComparison(
        view=new.name,
        before=old.encoder,
        after=new.encoder,
        k=k,
        queries=len(moved),
        overlap=_mean([one.overlap for one in moved]),
        same_first=_mean(firsts),
        score_before=_mean([score for one in moved for _, score in one.before]),
        score_after=_mean([score for one in moved for _, score in one.after]),
        moved=tuple(one for one in moved[:_NAMED] if one.overlap < 1),
    )


def _answers(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    view: ViewRow,
    keys: Sequence[str],
    ids: Sequence[int],
    k: int,
) -> list[list[Hit]]:
    """What each product finds in a view, itself left out; nothing for one that is deleted meanwhile."""
    fetched = backend.fetch(view.physical, np.asarray(ids, np.int64))
    vectors: dict[int, VectorArray] = dict(zip(fetched.ids.tolist(), fetched.vectors, strict=True))
    asked = {
        key: Asked([Query(view, vectors[vector_id])], without=key)
        for key, vector_id in zip(keys, ids, strict=True)
        if vector_id in vectors
    }
    found = dict(zip(asked, search_many(store, backend, row, list(asked.values()), Wanted(k)), strict=True))
    return [found.get(key, []) for key in keys]


def _named(hits: Sequence[Hit]) -> tuple[tuple[str, float], ...]:
    return tuple((hit.key, round(hit.score, 6)) for hit in hits)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
