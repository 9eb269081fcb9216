"""A search in one space: what an index does not know yet, what a filter cannot say, and what the answer means."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.backends.answers import columnar
from embedkit.backends.contract import SearchParams, SearchResult
from embedkit.backends.oracle.exact import Page, answered_exactly
from embedkit.backends.vearch.client import Condition, Document, VearchClient
from embedkit.backends.vearch.filters import TOKENS, Pushed, push
from embedkit.backends.vearch.reading import Place, pages, rows_of_a_request
from embedkit.backends.vearch.schema import ALL, COLUMNS, ID, knobs
from embedkit.backends.vearch.writing import id_token
from embedkit.filters import Filter
from embedkit.matching import matches

if TYPE_CHECKING:
    from embedkit.types import IdArray, VectorArray

__all__ = ["Searcher"]

_QUERIES = 64  # of one request
_HITS = 50_000  # of one answer
_FIRST, _FACTOR, _CHECKED = 64, 8, 4_096  # hits asked for where they are checked: at first, more each time, at most
_FARTHER = 4  # times as far, at each step
_AMONG = 5_000  # ids of one condition
_SETTLED = 10.0  # seconds after which an index surely knows what was written
_PAUSE = 0.05
_NEAR = 1e-3  # of what a vector scores for itself


class Searcher:
    """Safe to use from several threads."""

    def __init__(self, client: VearchClient, timeout: float) -> None:
        self._client, self._patience = client, min(timeout, _SETTLED)
        self._trained: set[str] = set()
        self._written: dict[str, tuple[int, VectorArray]] = {}
        self._lock = threading.Lock()

    def wrote(self, place: Place, ids: IdArray, rows: VectorArray) -> None:
        """Remember the last row written: the next search waits until the index knows it."""
        if place.spec.index.family != "flat" and len(ids):
            with self._lock:
                self._written[place.space] = (int(ids[-1]), rows[-1])

    def forget(self) -> None:
        """Spaces have been made or dropped: a name may stand for another one."""
        with self._lock:
            self._trained.clear()
            self._written.clear()

    def search(
        self, place: Place, queries: VectorArray, k: int, where: Filter | None, params: SearchParams | None
    ) -> SearchResult:
        """The k nearest rows of each query among those that `where` admits."""
        if place.enough and not self._is_trained(place):
            return self._untrained(place, queries, k, where)
        self._settle(place)
        if where is None:
            return self._answer(place, self._unfiltered(place, queries, k, params))
        pushed = push(where)
        if pushed.nothing:
            return self._answer(place, [[] for _ in queries])
        passed = self._checked(place, queries, k, where, pushed, params)
        if passed is None and (exact := self._few(place, queries, k, where, pushed)) is not None:
            return exact
        if passed is None:
            passed = self._checked(place, queries, k, where, pushed, params, brute=True)
        if passed is None:
            passed = self._among(place, queries, k, list(self._matching(place, where, pushed)))
        return self._answer(place, passed)

    @staticmethod
    def _answer(place: Place, found: list[list[Document]]) -> SearchResult:
        pairs = [[(int(hit["_id"]), float(hit["_score"])) for hit in hits] for hits in found]
        return columnar(pairs, place.spec, place.layout.distances)

    def _unfiltered(
        self, place: Place, queries: VectorArray, k: int, params: SearchParams | None
    ) -> list[list[Document]]:
        """Where the lists that were looked through hold fewer rows than are asked for, more of them."""
        found, times = self._ranked(place, queries, k, [], [], params), 1
        while place.spec.index.family == "ivf" and times < ALL and any(len(hits) < k for hits in found):
            before, times = sum(map(len, found)), times * _FARTHER
            found = self._ranked(place, queries, k, [], [], params, times=times)
            if sum(map(len, found)) == before:
                break
        return found

    # -- filters -------------------------------------------------------------------------------

    def _checked(
        self,
        place: Place,
        queries: VectorArray,
        k: int,
        where: Filter,
        pushed: Pushed,
        params: SearchParams | None,
        *,
        brute: bool = False,
    ) -> list[list[Document]] | None:
        """Hits that pass the filter itself; None where asking for more of them does not pay.

        Nor does it where an index that is no scan gives fewer than it was asked for: not all that pass the conditions,
        and not the nearest of them.
        """
        conditions, most = pushed.conditions(), max(k, _CHECKED)
        ask = k if pushed.exact else min(most, max(_FIRST, _FACTOR * k))
        scanned = brute or place.spec.index.family == "flat"
        while True:
            found = self._ranked(place, queries, ask, conditions, [COLUMNS], params, brute=brute, times=_FARTHER)
            passed = [[hit for hit in hits if matches(where, json.loads(hit[COLUMNS]))] for hits in found]
            ended = [len(hits) < ask for hits in found]
            if any(ended) and not scanned:
                return None
            if all(over or len(good) >= k for over, good in zip(ended, passed, strict=True)):
                return [good[:k] for good in passed]
            if ask >= most:
                return None
            ask = min(most, ask * _FACTOR)

    def _few(self, place: Place, queries: VectorArray, k: int, where: Filter, pushed: Pushed) -> SearchResult | None:
        """The exact answer from the rows that pass the conditions, if one request holds them all."""
        most = rows_of_a_request(place.spec)
        conditions, fields = [*pushed.conditions(), Condition(ID, ">=", 0)], ["_id", COLUMNS, place.layout.field]
        found = self._client.query(place.wire, conditions, most + 1, fields, place.name)
        return answered_exactly(place.spec, [_read(place, found)], queries, k, where) if len(found) <= most else None

    def _matching(self, place: Place, where: Filter, pushed: Pushed) -> Iterator[int]:
        for page in pages(self._client, place, pushed.conditions(), [COLUMNS]):
            for document in page:
                if matches(where, json.loads(document[COLUMNS])):
                    yield int(document["_id"])

    def _among(self, place: Place, queries: VectorArray, k: int, ids: list[int]) -> list[list[Document]]:
        """The nearest of some rows, all of which are compared."""
        merged: list[list[Document]] = [[] for _ in queries]
        for start in range(0, len(ids), _AMONG):
            among = Condition(TOKENS, "IN", [id_token(row) for row in ids[start : start + _AMONG]])
            for row, hits in zip(merged, self._ranked(place, queries, k, [among], [], None, brute=True), strict=True):
                row.extend(hits)
        highest_first = place.layout.metrics[place.spec.metric] != "L2"
        return [sorted(row, key=lambda hit: hit["_score"], reverse=highest_first)[:k] for row in merged]

    # -- requests ------------------------------------------------------------------------------

    def _ranked(
        self,
        place: Place,
        queries: VectorArray,
        limit: int,
        conditions: Sequence[Condition],
        fields: Sequence[str],
        params: SearchParams | None,
        *,
        brute: bool = False,
        times: int = 1,
    ) -> list[list[Document]]:
        """For each query at most `limit` documents, best first; an index looks so many times as far."""
        rows = place.layout.numbers(queries, place.spec)
        some = max(1, min(_QUERIES, _HITS // limit))
        found: list[list[Document]] = []
        for start in range(0, len(rows), some):
            part = rows[start : start + some]
            answer = self._client.search(
                place.wire,
                place.layout.field,
                part.ravel().tolist(),
                limit,
                conditions,
                ["_id", *fields],
                place.name,
                brute=brute or place.spec.index.family == "flat",
                params=knobs(place.spec, params, limit, times=ALL if brute else times),  # for lists it heeds both
            )
            found += answer or [[] for _ in part]
        return found

    # -- what an index does not know yet -------------------------------------------------------

    def _is_trained(self, place: Place) -> bool:
        """Whether every partition with rows has an index over them."""
        if place.space in self._trained:
            return True
        parts = [part for part in self._partitions(place) if part["doc_num"]]
        if not parts or not all(part["index_num"] for part in parts):
            return False
        self._trained.add(place.space)
        return True

    def _partitions(self, place: Place) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = self._client.space(place.space, place.name)["partitions"]
        return parts

    def indexed(self, place: Place) -> int:
        """How many rows the index knows."""
        return sum(part["index_num"] for part in self._partitions(place))

    def caught_up(self, place: Place) -> bool:
        """Whether the index knows every row of the partitions that have enough of them to be trained on."""
        return all(
            part["index_num"] > part["max_docid"] or part["doc_num"] < max(place.enough, 1)
            for part in self._partitions(place)
        )

    def _untrained(self, place: Place, queries: VectorArray, k: int, where: Filter | None) -> SearchResult:
        """Exactly, from the rows themselves: there are fewer than the index is trained on."""
        every = (_read(place, page) for page in pages(self._client, place, [], [COLUMNS, place.layout.field]))
        return answered_exactly(place.spec, every, queries, k, where)

    def _settle(self, place: Place) -> None:
        """Wait until the index knows the last row that was written here; Vearch fills it behind one's back."""
        with self._lock:
            last = self._written.get(place.space)
        if last is None:
            return
        deadline = time.monotonic() + self._patience
        while not (self.caught_up(place) and self._finds(place, *last)) and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        with self._lock:
            if self._written.get(place.space) is last:
                del self._written[place.space]

    def _finds(self, place: Place, row: int, vector: VectorArray) -> bool:
        """Whether a row comes first for its own vector; a replaced one is known only by this."""
        (hits,) = self._ranked(place, vector[None], 10, [], [], None)
        own = place.layout.own_score(vector, place.spec)
        for hit in hits:
            if int(hit["_id"]) == row:
                near = abs(float(hit["_score"]) - own) <= _NEAR * max(1.0, abs(own))
                return near or place.spec.index.codes is not None
        return not self._client.get(place.wire, [str(row)], [COLUMNS], place.name)  # deleted meanwhile


def _read(place: Place, documents: Sequence[Document]) -> Page:
    """Rows of documents that come with their columns and vectors."""
    ids = np.array([int(document["_id"]) for document in documents], np.int64)
    vectors = place.layout.taken([document[place.layout.field] for document in documents], place.spec)
    return ids, vectors, [json.loads(document[COLUMNS]) for document in documents]
