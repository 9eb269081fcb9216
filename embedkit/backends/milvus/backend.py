"""The Milvus backend, for Lite and for servers from 2.3 on.

A collection has the fields ``id`` INT64, one of vectors (see `layout`), ``columns`` JSON (as given) and
dynamic ones (what filters are evaluated on, see `filters`). A search sees what this process has
written; counting and listing also see what every other process has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from pymilvus.exceptions import MilvusException

from embedkit.backends.answers import columnar
from embedkit.backends.contract import (
    Capabilities,
    CollectionSpec,
    Fetched,
    IndexSpec,
    SearchParams,
    SearchResult,
    VectorBackend,
)
from embedkit.backends.indexes import nearest_shapes
from embedkit.backends.milvus.admitted import Counts
from embedkit.backends.milvus.errors import not_found, translated
from embedkit.backends.milvus.filters import push
from embedkit.backends.milvus.layout import Layout, layout_of
from embedkit.backends.milvus.schema import create_collection, index_arguments, knobs, spec_of
from embedkit.backends.milvus.writing import parts_of, request_of, rows_at_once, send
from embedkit.backends.oracle.exact import Page, answered_exactly
from embedkit.backends.validation import (
    check_filter,
    checked_columns,
    checked_ids,
    checked_k,
    checked_queries,
    checked_rows,
    checked_spec,
    closed,
)
from embedkit.errors import BadInput, CollectionExists, Terminal, UnsupportedByBackend
from embedkit.filters import Filter
from embedkit.matching import matches
from embedkit.types import Attributes

if TYPE_CHECKING:
    from embedkit.types import IdArray, VectorArray

__all__ = ["MilvusBackend"]

T = TypeVar("T")
_Answer: TypeAlias = list[dict[str, Any]]  # a method of the backend is called `list`, so not inside the class
_Rankings: TypeAlias = list[list[tuple[int, float]]]

_PAGE = 10_000
_FARTHER = 16  # four times as many lists at each step
_STUCK = 600.0  # seconds without progress after which a server is taken not to have an index
_RARE = 0.05  # share of rows that a server's graph compares one and all
_COMPARED = 1_000  # rows that are read and compared in less time than a graph takes to be walked through
_SETTLED = 10.0  # seconds after which a server surely shows what was written


class MilvusBackend(VectorBackend):
    """One client; pymilvus shares it between threads. `at_close`: what is to be let go with it."""

    def __init__(
        self, url: str, client: Any, able: Capabilities, timeout: float, at_close: Callable[[], None] | None = None
    ) -> None:
        self.url = url
        self.capabilities = able
        self._open_client = client
        self._timeout = timeout
        self._at_close = at_close
        self._specs: dict[str, CollectionSpec] = {}
        self._counts = Counts()
        self._written = -_SETTLED
        self._lock = threading.Lock()

    @property
    def _lite(self) -> bool:
        return not self.capabilities.many_processes

    @property
    def client(self) -> Any:
        """The driver's own, for what the contract does not know: collections that embedkit has not made."""
        if self._open_client is None:
            raise closed(self.url)
        return self._open_client

    # -- collections ---------------------------------------------------------------------------

    def _spec(self, name: str) -> CollectionSpec:
        """Read once; what a search checks changes by `build_index` and `drop` alone, of this process or another."""
        spec = self._specs.get(name)
        if spec is None:
            with translated(self.url, name):
                if not self.client.has_collection(name, timeout=self._timeout):
                    raise not_found(name)
                self.client.load_collection(name, timeout=self._timeout)
                spec = spec_of(self.client, name, self._timeout)
            self._specs[name] = spec
        return spec

    def _as_it_is(self, name: str, work: Callable[[CollectionSpec], T]) -> T:
        """Do something by the spec; once more where another process has made another collection of that name."""
        spec = self._spec(name)
        try:
            return work(spec)
        except Terminal:
            now = self.describe(name)
            if now == spec:
                raise
            return work(now)

    def _layout(self, spec: CollectionSpec) -> Layout:
        return layout_of(spec.kind, self.capabilities)

    def create(self, spec: CollectionSpec) -> None:
        wanted = checked_spec(spec, self.capabilities)
        layout = self._layout(wanted)
        arguments = index_arguments(wanted, layout, 0, lite=self._lite)
        with self._lock, translated(self.url, wanted.name):
            if self.client.has_collection(wanted.name, timeout=self._timeout):
                raise CollectionExists(f"Milvus at {self.url} already has a collection {wanted.name!r}")
        with self._lock, self._told(wanted.index), translated(self.url, wanted.name):
            try:
                create_collection(self.client, wanted, layout, arguments, self._timeout)
            except MilvusException:
                self.client.drop_collection(wanted.name, timeout=self._timeout)
                raise
        self._specs.clear()
        self._counts.forget()

    @contextmanager
    def _told(self, index: IndexSpec) -> Iterator[None]:
        """Raise UnsupportedByBackend where a server refuses an index that only some of them build."""
        able = self.capabilities
        try:
            yield
        except Terminal as error:
            if index.shape not in able.optional_families or type(error) is not Terminal:
                raise
            always = [one for one in able.index_families if one not in able.optional_families]
            near = " or ".join(map(repr, nearest_shapes(index.shape, always)))
            raise UnsupportedByBackend(
                able.name,
                f"build the index {index.shape!r} on the server {self.url} (the nearest it has is {near}): {error}",
            ) from error

    def drop(self, name: str) -> None:
        with self._lock, translated(self.url, name):
            self._specs.clear()
            self._counts.forget()
            if name not in self.list():
                return
            for alias in self.client.list_aliases(name, timeout=self._timeout).get("aliases", []):
                self.client.drop_alias(alias, timeout=self._timeout)
            self.client.drop_collection(name, timeout=self._timeout)

    def list(self) -> tuple[str, ...]:
        with translated(self.url):
            return tuple(sorted(self.client.list_collections(timeout=self._timeout)))

    def describe(self, name: str) -> CollectionSpec:
        self._specs.pop(name, None)
        return self._spec(name)

    # -- rows ----------------------------------------------------------------------------------

    def upsert(
        self, name: str, ids: IdArray, vectors: VectorArray, columns: Sequence[Attributes] | None = None
    ) -> None:
        ids, rows = self._as_it_is(name, lambda spec: checked_rows(spec, ids, vectors))
        self._write(name, ids, rows, checked_columns(columns, len(ids), self.capabilities))

    def _write(self, name: str, ids: IdArray, rows: VectorArray, texts: Sequence[str]) -> None:
        spec = self._spec(name)
        layout = self._layout(spec)
        self._written = time.monotonic()
        with translated(self.url, name):
            for part in parts_of(layout.row_bytes(spec), texts):
                request = request_of(name, spec, layout, ids[part], rows[part], texts[part], lite=self._lite)
                send(self.client, request, self._timeout)

    def update_columns(self, name: str, ids: IdArray, columns: Sequence[Attributes]) -> None:
        ids = checked_ids(ids)
        texts = checked_columns(columns, len(ids), self.capabilities)
        wanted = dict(zip(ids.tolist(), texts, strict=True))
        there = self.fetch(name, ids)
        if len(there.ids):
            self._write(name, there.ids, there.vectors, [wanted[i] for i in there.ids.tolist()])

    def delete(self, name: str, ids: IdArray) -> None:
        self._spec(name)
        given = checked_ids(ids).tolist()
        self._written = time.monotonic()
        with translated(self.url, name):
            for start in range(0, len(given), _PAGE):
                self.client.delete(name, ids=given[start : start + _PAGE], timeout=self._timeout)

    # -- search --------------------------------------------------------------------------------

    def search(
        self,
        name: str,
        queries: VectorArray,
        k: int,
        where: Filter | None = None,
        params: SearchParams | None = None,
    ) -> SearchResult:
        k = checked_k(k, self.capabilities)
        return self._as_it_is(name, lambda spec: self._search(name, spec, queries, k, where, params))

    def _search(
        self,
        name: str,
        spec: CollectionSpec,
        queries: VectorArray,
        k: int,
        where: Filter | None,
        params: SearchParams | None,
    ) -> SearchResult:
        """An index finds what there is: the fewer rows a filter admits, the farther it looks (`knobs`).

        Questions that get fewer than there are, are asked farther and farther. A graph may not reach such rows at all:
        a server compares all by itself where their share is small, and up to a thousand are compared here else.
        """
        asked, layout = checked_queries(spec, queries), self._layout(spec)
        expression = self._expression(name, where) if where is not None else ""
        if expression is None:
            return columnar([[] for _ in asked], spec, layout.distances)

        def ask(queries: VectorArray, share: float) -> _Rankings:
            return self._ranked(name, spec, queries, k, expression, knobs(spec.index, params, k, share))

        share = 1.0
        if where is not None and spec.index.family != "flat":
            admitted, rows = self._admitted(name, expression), max(1, self._admitted(name, ""))
            share = min(1.0, admitted / rows)  # the counts may be of other moments
            itself = not self._lite and share < _RARE
            if spec.index.family == "hnsw" and admitted <= _COMPARED and not itself:
                return answered_exactly(spec, self._rows(name, spec, expression), asked, k)
        found, asks = ask(asked, share), knobs(spec.index, params, k, share)
        short = [] if spec.index.family == "flat" else [place for place, hits in enumerate(found) if len(hits) < k]
        wanted = min(k, self._admitted(name, expression)) if short else 0
        while short := [place for place in short if len(found[place]) < wanted]:
            share /= _FARTHER
            before, asks = asks, knobs(spec.index, params, k, share)
            if asks == before:  # it cannot look farther
                break
            for place, hits in zip(short, ask(asked[short], share), strict=True):
                found[place] = hits
        return columnar(found, spec, layout.distances)

    def _rows(self, name: str, spec: CollectionSpec, expression: str) -> Iterator[Page]:
        """Ids and vectors of what a filter admits."""
        layout = self._layout(spec)
        for page in self._pages(name, expression, [layout.field]):
            ids = np.array([row["id"] for row in page], np.int64)
            yield ids, layout.taken([row[layout.field] for row in page], spec), None

    def _ranked(
        self, name: str, spec: CollectionSpec, queries: VectorArray, k: int, expression: str, params: dict[str, int]
    ) -> _Rankings:
        layout, found = self._layout(spec), []
        step = rows_at_once(layout.row_bytes(spec))
        with translated(self.url, name):
            for start in range(0, len(queries), step):
                answer = self.client.search(
                    name,
                    layout.given(queries[start : start + step], spec),
                    anns_field=layout.field,
                    limit=k,
                    filter=expression,
                    output_fields=["id"],
                    search_params={"metric_type": layout.metrics[spec.metric], "params": params},
                    consistency_level=self._level(name, spec),
                    timeout=self._timeout,
                )
                found += [[(hit["id"], hit["distance"]) for hit in hits] for hits in answer]
        return found

    def _admitted(self, name: str, expression: str) -> int:
        """Rows that a filter admits, about."""
        return self._counts.of(name, expression, lambda: self._counted(name, expression, "Eventually"))

    def _level(self, name: str, spec: CollectionSpec) -> str:
        """Session sees one's own writes without waiting; but pymilvus knows them by name only, not by alias."""
        settled = name == spec.name or time.monotonic() - self._written > _SETTLED
        return "Session" if settled else "Strong"

    def _expression(self, name: str, where: Filter) -> str | None:
        """The filter for Milvus; None if no row can pass."""
        check_filter(where, self.capabilities)
        pushed = push(where)
        if pushed.exact:
            return pushed.text
        ids = [
            row["id"]
            for page in self._pages(name, pushed.text, ["columns"])
            for row in page
            if matches(where, row["columns"])
        ]
        return f"id in {ids}" if ids else None

    def _pages(self, name: str, expression: str, fields: Sequence[str]) -> Iterator[_Answer]:
        with translated(self.url, name):
            pages = self.client.query_iterator(
                name,
                batch_size=_PAGE if not fields else 1_000,
                filter=expression,
                output_fields=["id", *fields],
                consistency_level="Strong",
                timeout=self._timeout,
            )
            try:
                while page := pages.next():
                    yield page
            finally:
                pages.close()

    # -- reading -------------------------------------------------------------------------------

    def fetch(self, name: str, ids: IdArray) -> Fetched:
        spec, given = self._spec(name), checked_ids(ids).tolist()
        layout = self._layout(spec)
        step = rows_at_once(layout.row_bytes(spec))
        found: dict[int, tuple[Any, Attributes]] = {}
        with translated(self.url, name):
            for start in range(0, len(given), step):
                rows = self.client.query(
                    name,
                    filter=f"id in {given[start : start + step]}",
                    output_fields=["id", layout.field, "columns"],
                    consistency_level=self._level(name, spec),
                    timeout=self._timeout,
                )
                found.update({row["id"]: (row[layout.field], row["columns"]) for row in rows})
        present = [i for i in given if i in found]
        vectors = layout.taken([found[i][0] for i in present], spec)
        return Fetched(np.array(present, np.int64), vectors, tuple(found[i][1] for i in present))

    def scan_ids(self, name: str, batch: int = 10_000) -> Iterator[IdArray]:
        self._spec(name)
        for page in self._pages(name, "", []):
            ids = np.fromiter((row["id"] for row in page), np.int64, len(page))
            for start in range(0, len(ids), batch):
                yield ids[start : start + batch]

    def count(self, name: str) -> int:
        self._spec(name)
        return self._counted(name, "", "Strong")

    def _counted(self, name: str, expression: str, level: str) -> int:
        with translated(self.url, name):
            rows = self.client.query(
                name, filter=expression, output_fields=["count(*)"], consistency_level=level, timeout=self._timeout
            )
            return int(rows[0]["count(*)"])

    def flush(self, name: str) -> None:
        """A server logs what it acknowledges; to seal its segments takes seconds, and happens by itself."""
        self._spec(name)
        if self._lite:
            with translated(self.url, name):
                self.client.flush(name, timeout=self._timeout)

    # -- index and alias -----------------------------------------------------------------------

    def build_index(self, name: str, spec: IndexSpec) -> None:
        now = self._spec(name)
        wanted = checked_spec(replace(now, index=spec), self.capabilities)
        layout = self._layout(now)
        arguments = index_arguments(wanted, layout, self.count(name), lite=self._lite)
        with self._lock, self._told(spec), translated(self.url, name):
            self.client.flush(name, timeout=self._timeout)
            self.client.release_collection(name, timeout=self._timeout)
            self.client.drop_index(name, arguments["field_name"], timeout=self._timeout)
            try:
                self._put_index(name, arguments, sure=spec.shape not in self.capabilities.optional_families)
            except (MilvusException, Terminal):  # a server that does not build it keeps the one it had
                self.client.drop_index(name, arguments["field_name"], timeout=self._timeout)
                self._put_index(name, index_arguments(now, layout, 0, lite=self._lite))
                raise
            finally:
                self.client.load_collection(name)
        self._specs.pop(name, None)

    def _put_index(self, name: str, arguments: dict[str, Any], *, sure: bool = True) -> None:
        """Returns when it is built. `sure`: every server builds it, and it is waited for as long as that takes."""
        params = self.client.prepare_index_params()
        params.add_index(**arguments)
        if sure:
            self.client.create_index(name, params)
            return
        self.client.create_index(name, params, sync=False)
        done, since = -1, time.monotonic()
        while (told := self.client.describe_index(name, arguments["field_name"])) and told.get("pending_index_rows"):
            if told.get("state") == "Failed" or time.monotonic() - since > _STUCK:
                reason = told.get("index_state_fail_reason") or f"it has not come on for {_STUCK:.0f} seconds"
                raise Terminal(f"Milvus at {self.url} does not build it: {reason}")
            if told.get("indexed_rows", 0) > done:
                done, since = told.get("indexed_rows", 0), time.monotonic()
            time.sleep(0.2)

    def switch_alias(self, alias: str, name: str) -> None:
        self._spec(name)
        with self._lock, translated(self.url, name):
            if alias in self.client.list_collections(timeout=self._timeout):
                raise BadInput(f"{alias!r} is a collection; an alias needs a name of its own")
            real = self.client.describe_collection(name, timeout=self._timeout)["collection_name"]
            if self.client.has_collection(alias, timeout=self._timeout):
                self.client.alter_alias(real, alias, timeout=self._timeout)
            else:
                self.client.create_alias(real, alias, timeout=self._timeout)
        self._specs.clear()
        self._counts.forget()

    def close(self) -> None:
        client, self._open_client = self._open_client, None
        if client is not None:
            with translated(self.url):
                client.close()
                if self._at_close is not None:
                    self._at_close()
