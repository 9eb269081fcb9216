"""From hits by query, as drivers give them, to the columnar answer of a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedkit.backends.contract import CollectionSpec, SearchResult, scores_of
from embedkit.codes import nearest_first

if TYPE_CHECKING:
    from embedkit.types import FloatArray

__all__ = ["columnar"]


def columnar(
    found: Sequence[Sequence[tuple[int, float]]],
    spec: CollectionSpec,
    distances_of: Callable[[FloatArray, CollectionSpec], FloatArray],
) -> SearchResult:
    """`found`: for each query ``(id, what the driver calls distance or score)``, best first.

    `distances_of` makes raw metrics of these. Codes at the same distance go by id.
    """
    width = max((len(row) for row in found), default=0)
    ids = np.full((len(found), width), -1, np.int64)
    native = np.full((len(found), width), np.nan, np.float32)
    for row, pairs in enumerate(found):
        if pairs:
            ids[row, : len(pairs)], native[row, : len(pairs)] = zip(*pairs, strict=True)
    distances = distances_of(native, spec)
    if spec.kind == "binary":
        order = nearest_first(distances, ids)
        ids, distances = np.take_along_axis(ids, order, axis=1), np.take_along_axis(distances, order, axis=1)
    return SearchResult(ids, distances, scores_of(spec.metric, distances))
