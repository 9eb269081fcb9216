"""How a query runs: backend search, fusion of several parts, one SQL query for the products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from embedkit.backends.contract import SearchParams, SearchResult, VectorBackend
from embedkit.errors import BadInput
from embedkit.filters import Filter
from embedkit.metadata.rows import CollectionRow, ViewRow
from embedkit.metadata.store import MetadataStore
from embedkit.search.attributes import check_group
from embedkit.search.exact import Query, exactly_scored, spread_out
from embedkit.search.knobs import over_tuned
from embedkit.search.ranks import firsts_of_groups, reciprocal_ranks
from embedkit.search.wanted import Wanted
from embedkit.search.words import VIEW, Keywords, keyword_scores, ranked_by_keywords
from embedkit.types import Hit

if TYPE_CHECKING:
    from embedkit.types import VectorArray

__all__ = ["Asked", "nearest", "search", "search_many"]

_GROUPED = 4  # rows asked for each group that is wanted; twice as many each time that they do not do
_TIED = 1_000  # rows more at most, to see all that share the last place
_BATCH = 1_024  # queries of one question to a backend
_BATCH_HITS = 100_000  # and hits of its answer


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: vectors, words, or both. `without`: the key of a product that is left out.

    `again`: the same question for the view whose exact scores put the candidates in order.
    """

    queries: Sequence[Query]
    keywords: Keywords | None = None
    without: str | None = None
    again: Sequence[Query] | None = None

    @property
    def parts(self) -> int:
        return len(self.queries) + (self.keywords is not None)


def search(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    asked: Asked,
    wanted: Wanted,
    params: SearchParams | None = None,
) -> list[Hit]:
    """The best live products. Raises BadInput, and what backend and store raise."""
    if not asked.queries:
        return search_words(store, row, asked, wanted)
    _check(asked, wanted, backend)
    if _is_plain(asked, wanted):
        hits = _by_one_vector(store, backend, row, asked, wanted, params)
    else:
        hits = _by_several(store, backend, row, asked, wanted, params)
    if wanted.group_by is not None:
        check_group(store, row, wanted.group_by, hits)
    return hits


def search_words(store: MetadataStore, row: CollectionRow, asked: Asked, wanted: Wanted) -> list[Hit]:
    """`search` of a question without a vector, which the store answers alone."""
    _check(asked, wanted)
    hits = _by_words(store, row, asked, wanted)
    if wanted.group_by is not None:
        check_group(store, row, wanted.group_by, hits)
    return hits


def search_many(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    asked: Sequence[Asked],
    wanted: Wanted,
    params: SearchParams | None = None,
) -> list[list[Hit]]:
    """The answer to each question, as `search` gives it; those by one vector are put to the backend together."""
    answers: dict[int, list[Hit]] = {}
    together: dict[tuple[object, ...], list[int]] = {}
    for place, one in enumerate(asked):
        _check(one, wanted, backend)
        if one.queries and _is_plain(one, wanted):
            query = one.queries[0]
            together.setdefault((query.view.name, query.vector.shape, query.vector.dtype.str), []).append(place)
    ask = _first_ask(wanted, backend, without=any(one.without for one in asked))
    step = max(1, min(_BATCH, _BATCH_HITS // ask))
    for places in together.values():
        view = asked[places[0]].queries[0].view
        for start in range(0, len(places), step):
            some = places[start : start + step]
            vectors = np.stack([asked[place].queries[0].vector for place in some])
            knobs = over_tuned(view, params)
            result = backend.search(view.physical, cast("VectorArray", vectors), ask, wanted.where, knobs)
            given = np.count_nonzero(result.ids >= 0, axis=1).tolist()
            for place, count, found in zip(some, given, _hits(store, row, view, result), strict=True):
                hits = _kept(_by_id(found), asked[place], wanted)
                if count < ask or _settled(found, hits, backend, view, wanted, ask):  # else that one is asked alone
                    answers[place] = hits[wanted.offset : wanted.reach]
    if wanted.group_by is not None:
        check_group(store, row, wanted.group_by, [hit for hits in answers.values() for hit in hits])
    return [
        answers[place] if place in answers else search(store, backend, row, one, wanted, params)
        for place, one in enumerate(asked)
    ]


def _check(asked: Asked, wanted: Wanted, backend: VectorBackend | None = None) -> None:
    """Raise BadInput for wishes that do not go together; `backend`: the one that vectors are asked of."""
    if not asked.parts:
        raise BadInput(
            "There is nothing to search by: give an image, a sketch, a text, keywords, a vector or a product"
        )
    if wanted.fusion == "rrf" and (asked.parts == 1 or asked.again is not None):
        why = "rerank puts the candidates in order" if asked.again is not None else "there is one part alone"
        raise BadInput(f"fusion='rrf' joins the ranks of several parts, and {why}; leave it out")
    if wanted.candidates is not None and _is_plain(asked, wanted):
        raise BadInput(
            "candidates counts what rerank puts in order, fusion joins or diversity chooses from; "
            "name a view to rerank by, ask by several parts, or leave it out"
        )
    if wanted.diversity and not asked.queries:
        raise BadInput("diversity compares products with the question's vector, and keywords have none; add a text")
    if wanted.diversity and wanted.fusion == "rrf":
        raise BadInput("diversity weighs scores against similarities, and 'rrf' has ranks alone; fuse by 'weighted'")
    if wanted.min_score is not None and (not asked.queries or wanted.fusion == "rrf"):
        scored = "'rrf' adds up ranks" if asked.queries else "the score of keywords depends on all other products"
        raise BadInput(f"min_score needs a score that means the same for every question, and {scored}; leave it out")
    if wanted.max_distance is not None:
        _check_distance(asked)
    if backend is not None and asked.queries and wanted.reach > (limit := backend.capabilities.max_k):
        more = f"k={wanted.k} is" if not wanted.offset else f"offset={wanted.offset} and k={wanted.k} are"
        raise BadInput(f"{more} more than {limit}, the most that {backend.capabilities.name!r} gives")


def _check_distance(asked: Asked) -> None:
    if asked.parts > 1 or asked.again is not None or not asked.queries:
        raise BadInput(
            "max_distance measures one vector from another, and this question has no single one; use min_score"
        )
    metric = asked.queries[0].view.metric
    if metric not in ("l2", "hamming"):
        raise BadInput(
            f"The view {asked.queries[0].view.name!r} is measured by {metric!r}, where more is nearer; use min_score"
        )


def _is_plain(asked: Asked, wanted: Wanted) -> bool:
    """Whether the order of one ranking is the answer's."""
    return asked.parts == 1 and asked.again is None and not (wanted.diversity and asked.queries)


def _kept(hits: Sequence[Hit], asked: Asked, wanted: Wanted) -> list[Hit]:
    """Those that are wanted, in order."""
    kept = [hit for hit in hits if hit.product.key != asked.without and wanted.admits(hit)]
    return kept if wanted.group_by is None else firsts_of_groups(kept, wanted.group_by)


# -- one ranking ---------------------------------------------------------------------------------


def _by_words(store: MetadataStore, row: CollectionRow, asked: Asked, wanted: Wanted) -> list[Hit]:
    assert asked.keywords is not None  # a question has a part, and it is not a vector
    ask = wanted.reach * (_GROUPED if wanted.group_by else 1)
    while True:
        found = ranked_by_keywords(store, row, asked.keywords, ask, where=wanted.where, without=asked.without)
        hits = _kept(found, asked, wanted)
        if len(hits) >= wanted.reach or len(found) < ask:
            return hits[wanted.offset : wanted.reach]
        ask *= 2


def _by_one_vector(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    asked: Asked,
    wanted: Wanted,
    params: SearchParams | None,
) -> list[Hit]:
    limit = backend.capabilities.max_k
    ask = _first_ask(wanted, backend, without=asked.without is not None)
    while True:
        found = nearest(store, backend, row, asked.queries[0], ask, wanted.where, params)
        hits = _kept(found, asked, wanted)
        done = len(found) < ask or ask >= limit or not wanted.admits(found[-1])
        if done or _settled(found, hits, backend, asked.queries[0].view, wanted, ask):
            return hits[wanted.offset : wanted.reach]
        ask = min(limit, 2 * ask)


def _first_ask(wanted: Wanted, backend: VectorBackend, *, without: bool) -> int:
    """One more than is wanted, to see whether the last place is shared."""
    return min(backend.capabilities.max_k, wanted.reach * (_GROUPED if wanted.group_by else 1) + without + 1)


def _by_id(hits: list[Hit]) -> list[Hit]:
    """Equal scores in the order of ids: which of two equal vectors a backend gives first may depend on k."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.vector_id))


def _settled(
    found: Sequence[Hit], hits: Sequence[Hit], backend: VectorBackend, view: ViewRow, wanted: Wanted, ask: int
) -> bool:
    """Whether no other row could stand among the hits that are wanted.

    Products with the same picture share a score. All of them have to be seen, so that each has its place and pages
    neither repeat nor lack one; not so of codes, most of which are shared, where the backend gives the lowest ids.
    """
    if len(hits) < wanted.reach:
        return False
    by_id = backend.capabilities.ties_by_id and view.index.startswith(("flat", "multihash"))
    tied = not (view.metric == "hamming" and by_id) and found[-1].score == hits[wanted.reach - 1].score
    return not tied or ask >= wanted.reach + _TIED


def nearest(
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
    ask, params = k, over_tuned(query.view, params)
    while True:
        result = backend.search(query.view.physical, query.vector[None, :], ask, where, params)
        found = _hits(store, row, query.view, result)[0]
        if len(found) >= k or np.count_nonzero(result.ids >= 0) < ask or ask >= limit:
            return _by_id(found[:k])
        ask = min(limit, 2 * ask)


def _hits(store: MetadataStore, row: CollectionRow, view: ViewRow, result: SearchResult) -> list[list[Hit]]:
    """The live products of every answer, by one statement."""
    products = store.products_by_vector(row.id, view.slot, result.ids[result.ids >= 0].tolist())
    return [
        [
            Hit(products[vector_id], score, distance, vector_id, view.name)
            for vector_id, score, distance in zip(ids, scores, distances, strict=True)
            if vector_id in products
        ]
        for ids, scores, distances in zip(
            result.ids.tolist(), result.scores.tolist(), result.distances.tolist(), strict=True
        )
    ]


# -- several -------------------------------------------------------------------------------------


def _by_several(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    asked: Asked,
    wanted: Wanted,
    params: SearchParams | None,
) -> list[Hit]:
    """Candidates of every part, put in one order."""
    pool, limit = wanted.pool, backend.capabilities.max_k
    _check_pool(wanted)
    while True:
        most = max(wanted.reach, min(pool + (asked.without is not None), limit))
        found = [
            [hit for hit in nearest(store, backend, row, query, most, wanted.where, params) if hit.key != asked.without]
            for query in asked.queries
        ]
        if asked.keywords is not None:
            found.append(
                ranked_by_keywords(store, row, asked.keywords, most, where=wanted.where, without=asked.without)
            )
        hits = _kept(_ordered(store, backend, row, asked, wanted, found), asked, wanted)
        short = wanted.group_by is not None and wanted.candidates is None and len(hits) < wanted.reach
        if not short or most >= limit or all(len(part) + (asked.without is not None) < most for part in found):
            break
        pool *= 2
    if wanted.diversity:
        queries = asked.again or asked.queries
        hits = spread_out(
            store, backend, row, hits, queries, wanted.reach, diversity=wanted.diversity,
            joined=asked.parts > 1 or asked.again is not None,
        )  # fmt: skip
    return hits[wanted.offset : wanted.reach]


def _check_pool(wanted: Wanted) -> None:
    """Raise BadInput where an answer would reach behind its candidates, or its pages have other ones each."""
    if wanted.group_by is not None and wanted.offset and wanted.candidates is None:
        raise BadInput(
            "The pages of an answer in groups need the same candidates each; "
            f"give candidates={10 * wanted.reach} or so, from the first page on"
        )
    if wanted.reach <= wanted.pool:
        return
    if not wanted.offset:
        raise BadInput(
            f"candidates={wanted.pool} is less than the {wanted.k} hits that are asked for; give {wanted.k} or more"
        )
    raise BadInput(
        f"offset={wanted.offset} and k={wanted.k} reach behind the {wanted.pool} candidates of each part; "
        f"give candidates={wanted.reach} or more, the same for every page"
    )


def _ordered(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    asked: Asked,
    wanted: Wanted,
    found: Sequence[Sequence[Hit]],
) -> list[Hit]:
    """The candidates of all parts, best first."""
    if asked.parts == 1 and asked.again is None:
        return list(found[0])
    by = "+".join([*(query.view.name for query in asked.queries), *([VIEW] if asked.keywords else [])])
    if wanted.fusion == "rrf":
        return _by_ranks(asked, found, by)
    products = {hit.key: hit.product for part in found for hit in part}
    beside: dict[str, float] = {}
    if asked.keywords is not None and asked.again is None and found[-1]:
        best = found[-1][0].score
        scores = keyword_scores(store, row, asked.keywords, products)
        beside = {key: asked.keywords.weight * score / best for key, score in scores.items()}
    return exactly_scored(store, backend, row, products, asked.again or asked.queries, by=by, beside=beside)


def _by_ranks(asked: Asked, found: Sequence[Sequence[Hit]], by: str) -> list[Hit]:
    weights = [query.weight for query in asked.queries] + ([asked.keywords.weight] if asked.keywords else [])
    scores = reciprocal_ranks([[hit.key for hit in part] for part in found], weights)
    first = {hit.key: hit for part in reversed(found) for hit in part}  # of the earliest part that has it
    return [
        Hit(first[key].product, scores[key], scores[key], first[key].vector_id, by)
        for key in sorted(scores, key=lambda key: (-scores[key], key))
    ]
