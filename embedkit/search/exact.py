"""Exact scores of candidates from their stored vectors: to join several views, to rerank, and to spread hits out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from embedkit.backends.contract import VectorBackend
from embedkit.codes import hamming, signs
from embedkit.metadata.rows import CollectionRow, ViewRow
from embedkit.metadata.store import MetadataStore
from embedkit.search.ranks import maximal_marginal_relevance
from embedkit.types import Hit, Product

if TYPE_CHECKING:
    import numpy.typing as npt

    from embedkit.types import VectorArray

__all__ = ["Query", "exactly_scored", "spread_out"]


@dataclass(frozen=True, slots=True)
class Query:
    """One vector of a question. `vector`: ``(dim,)`` float32, or ``(dim / 8,)`` uint8 of a view of codes.

    Candidates out of a view of codes may also be scored by ``(dim,)`` float32, of which codes are the signs.

    `weight`: its share when several are fused.
    """

    view: ViewRow
    vector: VectorArray
    weight: float = 1.0


def exactly_scored(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    products: Mapping[str, Product],
    queries: Sequence[Query],
    *,
    by: str,
    beside: Mapping[str, float] | None = None,
) -> list[Hit]:
    """Candidates by their exact scores, best first; equal ones by key, and those without any of the vectors last.

    One that lacks a vector gets nothing for it; where more is farther, it is as far as the farthest candidate.

    `beside`: what else counts for a product, by key.
    """
    ids = store.vector_ids_of(row.id, list(products))
    totals = {key: (beside or {}).get(key, 0.0) for key in products}
    known = set(beside or ())
    for query in queries:
        of_view = {by_view[query.view.slot]: key for key, by_view in ids.items() if query.view.slot in by_view}
        known.update(of_view.values())
        if not of_view:
            continue
        fetched = backend.fetch(query.view.physical, np.asarray(list(of_view), np.int64))
        scores = _similarities(query.view, fetched.vectors, query.vector)
        scored = {of_view[one]: score for one, score in zip(fetched.ids.tolist(), scores.tolist(), strict=True)}
        lacking = float(scores.min(initial=0.0)) if query.view.metric == "l2" else 0.0
        for key in totals:
            totals[key] += query.weight * scored.get(key, lacking)
    first = queries[0].view.slot
    return [
        Hit(products[key], totals[key], totals[key], _one_id(ids.get(key, {}), first), by)
        for key in sorted(totals, key=lambda key: (key not in known, -totals[key], key))
    ]


def _one_id(ids: Mapping[str, int], view: str) -> int:
    return ids.get(view, next(iter(ids.values()), -1))


def _similarities(view: ViewRow, vectors: VectorArray, vector: VectorArray) -> npt.NDArray[np.float64]:
    """What a view measures, as a score of each row ``(n,)``; of codes, the cosine of their signs.

    Codes may be asked by numbers ``(dim,)`` in the place of a code: then it is the cosine of these with the signs, the
    asymmetric distance of Gordo 2014 (Asymmetric Distances for Binary Embeddings, section 3) for bits that are signs.
    """
    if view.metric == "hamming" and vector.dtype.kind == "f":
        products = signs(vectors.view(np.uint8), view.dim) @ vector
        return np.asarray(products / (float(np.linalg.norm(vector)) * view.dim**0.5 or 1.0), np.float64)
    if view.metric == "hamming":
        bits = hamming(vector[None].view(np.uint8), vectors.view(np.uint8))[0]
        return np.asarray(1 - 2 * bits / view.dim, np.float64)
    if view.metric == "l2":
        return np.asarray(-np.square(vectors - vector).sum(axis=1), np.float64)
    if view.metric == "cosine":
        vector = np.asarray(vector / (np.linalg.norm(vector) or 1.0), np.float32)
    return np.asarray(vectors @ vector, np.float64)


def spread_out(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    hits: Sequence[Hit],
    queries: Sequence[Query],
    count: int,
    *,
    diversity: float,
    joined: bool,
) -> list[Hit]:
    """The `count` hits of the best maximal marginal relevance, in that order; scores stay as they are.

    Two products are as like as their stored vectors are in the views that were asked, each measured as there and
    weighed as the question's; a missing vector is like nothing: a cosine of 0, or farther than any two are apart.
    `joined`: the scores are sums of such similarities, and not one backend's own.
    """
    keys = [hit.product.key for hit in hits]
    ids = store.vector_ids_of(row.id, keys)
    stored = [(query, *_stored(backend, query.view, [ids.get(key, {}) for key in keys])) for query in queries]
    unlike = [_unlike(query.view, vectors[there]) for query, vectors, there in stored]

    def likeness(place: int) -> npt.NDArray[np.float64]:
        total = np.zeros(len(keys))
        for (query, vectors, there), least in zip(stored, unlike, strict=True):
            alike = _similarities(query.view, vectors, vectors[place]) if there[place] else least
            total += query.weight * np.where(there, alike, least)
        return total

    relevance = np.array([hit.score for hit in hits], np.float64)
    if queries[0].view.metric == "hamming" and not joined:  # minus the bits, as the backend gives them
        relevance = 1 + 2 * relevance / queries[0].view.dim
    return [hits[place] for place in maximal_marginal_relevance(relevance, likeness, count, diversity=diversity)]


def _unlike(view: ViewRow, vectors: VectorArray) -> float:
    """What counts as the similarity to nothing: for ``l2`` no two of the vectors are as far from each other."""
    if view.metric != "l2" or not len(vectors):
        return 0.0
    return -4 * float(np.square(vectors - vectors.mean(axis=0)).sum(axis=1).max())


def _stored(
    backend: VectorBackend, view: ViewRow, ids: Sequence[Mapping[str, int]]
) -> tuple[VectorArray, npt.NDArray[np.bool_]]:
    """The vectors of products ``(n, width)``, and which of them are there; the others are zeros."""
    places = {by_view[view.slot]: place for place, by_view in enumerate(ids) if view.slot in by_view}
    fetched = backend.fetch(view.physical, np.asarray(list(places), np.int64))
    width, dtype = (view.dim // 8, np.uint8) if view.kind == "binary" else (view.dim, np.float32)
    vectors = np.zeros((len(ids), width), dtype)
    there = np.zeros(len(ids), np.bool_)
    rows = [places[vector_id] for vector_id in fetched.ids.tolist()]
    vectors[rows], there[rows] = fetched.vectors, True
    return cast("VectorArray", vectors), there
