"""How a query runs: backend search, exact fusion of several vectors, one SQL query for the products."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from embedkit.arguments import check_kind
from embedkit.backends.contract import Capabilities, IndexSpec, SearchParams, VectorBackend
from embedkit.codes import hamming
from embedkit.errors import BadInput
from embedkit.filters import Filter
from embedkit.metadata.rows import CollectionRow, ViewRow
from embedkit.metadata.store import MetadataStore
from embedkit.types import Hit, Product

if TYPE_CHECKING:
    from embedkit.types import VectorArray

__all__ = ["Query", "check_text", "checked_params", "checked_weights", "search"]

_FUSION_POOL = 10  # candidates per wanted hit that each part of a fused query hands in
_MIN_POOL = 100


@dataclass(frozen=True, slots=True)
class Query:
    """One vector of a query. `vector`: ``(dim,)`` float32, or ``(dim / 8,)`` uint8 of a view of codes.

    `weight`: its share when several are fused.
    """

    view: ViewRow
    vector: VectorArray
    weight: float = 1.0


def check_text(text: str) -> None:
    """Raise BadInput unless words can be searched by."""
    check_kind(text, str, "What is searched by is a text")
    if not text.strip():
        raise BadInput("The text to search by is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"The text to search by is not valid text: {error.reason} at {error.start + 1}") from error


def checked_weights(weights: Mapping[str, float] | None) -> Mapping[str, float]:
    """The share of each part of a query. Raises BadInput."""
    known = {"image", "sketch", "text", "vector", "product"}
    check_kind(weights, Mapping | None, 'Weights are a mapping such as {"image": 0.7, "text": 0.3}')
    for name, value in (weights or {}).items():
        if name not in known:
            raise BadInput(f"There is no weight {name!r}; known: {', '.join(sorted(known))}")
        check_kind(value, Real, f"The weight {name!r} is a number of 0 or more")
        if not np.isfinite(value) or value < 0:
            raise BadInput(f"The weight {name}={value} is not a number of 0 or more")
    return weights or {}


def checked_params(
    given: SearchParams | Mapping[str, object] | None, queries: Sequence[Query], able: Capabilities
) -> SearchParams | None:
    """The knobs of a search. Raises BadInput for an unknown one, and for one that no index that is searched heeds."""
    if given is None:
        return None
    check_kind(given, SearchParams | Mapping, "params are SearchParams or a mapping such as {'ef': 128}")
    params = given if isinstance(given, SearchParams) else SearchParams.of(given)
    params = SearchParams.of(params.as_dict())
    searched = {query.view.index: IndexSpec.parse(query.view.index) for query in queries}
    heeded = {knob for spec in searched.values() for knob in spec.knobs(rescores=able.rescores)}
    for name in params.as_dict():
        if name not in heeded:
            has = f"it heeds {', '.join(sorted(heeded))}" if heeded else "it is searched exactly and heeds none"
            raise BadInput(f"{name} means nothing to the index {' and '.join(map(repr, searched))}; {has}")
    return params


def search(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    queries: Sequence[Query],
    *,
    k: int,
    where: Filter | None,
    params: SearchParams | None = None,
    without: str | None = None,
    again: Sequence[Query] | None = None,
    candidates: int | None = None,
) -> list[Hit]:
    """The k best products, best first. `without`: a key to leave out (the product one searches by).

    One query gives the backend's scores. Several are fused: the union of their candidates is scored
    exactly in every view, ``sum(weight * score)`` over the views that a product has. There the score of a code
    is the cosine of its signs, ``1 - 2 * bits / dim``, so that it can be added to other cosines.

    `params`: over those that the views were tuned to. `again`: the same question for other views, which score the
    candidates in place of the views that found them;
    products without a vector there come last. `candidates`: how many each query hands in where they are scored.
    """
    if not queries:
        raise BadInput("There is nothing to search by: give an image, a sketch, a text, a vector or a product")
    k = _whole("k", k, "hits")
    if len(queries) == 1 and again is None:
        if candidates is not None:
            raise BadInput("candidates counts what rerank puts in order; name a view to rerank by, or leave it out")
        found = _nearest(store, backend, row, queries[0], k + (without is not None), where, params)
        return [hit for hit in found if hit.product.key != without][:k]
    pool = max(_MIN_POOL, _FUSION_POOL * k) if candidates is None else _whole("candidates", candidates, "products")
    if pool < k:
        raise BadInput(f"candidates={pool} is less than the {k} hits that are asked for; give {k} or more")
    products: dict[str, Product] = {}
    most = max(k, min(pool + (without is not None), backend.capabilities.max_k))
    for query in queries:
        for hit in _nearest(store, backend, row, query, most, where, params):
            products[hit.product.key] = hit.product
    products.pop(without or "", None)
    return _scored(store, backend, row, products, again or queries, by="+".join(q.view.name for q in queries))[:k]


def _whole(name: str, value: int, what: str) -> int:
    """A number of 1 or more. Raises BadInput."""
    try:
        value = operator.index(value)  # NumPy's whole numbers too, which FAISS itself would refuse
    except TypeError:
        raise BadInput(f"{name}={value!r} is not a number of {what}; give 1 or more") from None
    if value < 1:
        raise BadInput(f"{name}={value} is not a number of {what}; give 1 or more")
    return value


def _nearest(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    query: Query,
    k: int,
    where: Filter | None,
    params: SearchParams | None,
) -> list[Hit]:
    """The k best live products of one view; asks for more when some rows turn out not to be live."""
    limit = backend.capabilities.max_k
    if k > limit:
        raise BadInput(f"k={k} is more than {limit}, the most that {backend.capabilities.name!r} gives")
    ask, params = k, (params or SearchParams()).over(query.view.knobs)
    while True:
        result = backend.search(query.view.physical, query.vector[None, :], ask, where, params)
        ids = result.ids[0]
        ids = ids[ids >= 0].tolist()
        products = store.products_by_vector(row.id, query.view.name, ids)
        found = [
            Hit(products[vector_id], score, distance, vector_id, query.view.name)
            for vector_id, score, distance in zip(
                ids, result.scores[0].tolist(), result.distances[0].tolist(), strict=False
            )
            if vector_id in products
        ]
        if len(found) >= k or len(ids) < ask or ask >= limit:
            return found[:k]
        ask = min(limit, 2 * ask)


def _scored(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    products: Mapping[str, Product],
    queries: Sequence[Query],
    *,
    by: str,
) -> list[Hit]:
    """Candidates by their exact scores, best first; equal ones by key, and those without any of the vectors last."""
    ids = store.vector_ids_of(row.id, list(products))
    totals = dict.fromkeys(products, 0.0)
    known: set[str] = set()
    for query in queries:
        of_view = {by_view[query.view.name]: key for key, by_view in ids.items() if query.view.name in by_view}
        known.update(of_view.values())
        for vector_id, score in _exact_scores(backend, query, list(of_view)).items():
            totals[of_view[vector_id]] += query.weight * score
    first = queries[0].view.name
    return [
        Hit(products[key], totals[key], totals[key], _one_id(ids[key], first), by)
        for key in sorted(totals, key=lambda key: (key not in known, -totals[key], key))
    ]


def _one_id(ids: Mapping[str, int], view: str) -> int:
    return ids.get(view, next(iter(ids.values()), -1))


def _exact_scores(backend: VectorBackend, query: Query, ids: list[int]) -> dict[int, float]:
    if not ids:
        return {}
    fetched = backend.fetch(query.view.physical, np.asarray(ids, np.int64))
    vectors = fetched.vectors
    if query.view.metric == "hamming":
        bits = hamming(query.vector[None].view(np.uint8), vectors.view(np.uint8))[0]
        scores = 1 - 2 * bits / query.view.dim
    elif query.view.metric == "l2":
        scores = -np.square(vectors - query.vector).sum(axis=1)
    elif query.view.metric == "cosine":
        scores = vectors @ (query.vector / (np.linalg.norm(query.vector) or 1.0))
    else:
        scores = vectors @ query.vector
    return dict(zip(fetched.ids.tolist(), scores.tolist(), strict=True))
