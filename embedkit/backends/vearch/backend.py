"""The Vearch backend, for clusters of 3.5.

A collection is a space with the fields ``id`` (as a number, for scans), ``tokens`` (what filters are evaluated on, see
`filters`), ``columns`` (JSON, as given) and one of vectors (see `layout`). Every document carries our id as ``_id``:
one without would get another at every try, and a repeated request would double it.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from embedkit.backends.contract import (
    BackendOptions,
    CollectionSpec,
    Fetched,
    IndexSpec,
    SearchParams,
    SearchResult,
    VectorBackend,
)
from embedkit.backends.indexes import nearest_shapes
from embedkit.backends.validation import (
    check_filter,
    checked_columns,
    checked_ids,
    checked_k,
    checked_queries,
    checked_rows,
    checked_spec,
)
from embedkit.backends.vearch.capabilities import CAPABILITIES
from embedkit.backends.vearch.client import Condition, Document, VearchClient
from embedkit.backends.vearch.filters import TOKENS
from embedkit.backends.vearch.layout import layout_of
from embedkit.backends.vearch.names import Names, collection_of
from embedkit.backends.vearch.reading import Place, pages, rows_of_a_request
from embedkit.backends.vearch.schema import COLUMNS, enough_of, has_index, schema_of, spec_of
from embedkit.backends.vearch.searching import Searcher
from embedkit.backends.vearch.writing import documents
from embedkit.errors import (
    BackendUnavailable,
    BadInput,
    CollectionExists,
    CollectionNotFound,
    UnsupportedByBackend,
)
from embedkit.filters import Filter
from embedkit.types import Attributes

if TYPE_CHECKING:
    from embedkit.types import IdArray, VectorArray

__all__ = ["VearchBackend"]

T = TypeVar("T")
_SEEN = 5.0  # seconds after which a filter surely sees a written row
_PAUSE = 0.01
_SHARE = 0.8  # of its part of the rows: a partition surely has so many


class VearchBackend(VectorBackend):
    """One database of one cluster. Writes of one process go one by one."""

    capabilities = CAPABILITIES

    def __init__(self, client: VearchClient, options: BackendOptions) -> None:
        self.url = client.url
        self._client, self._options = client, options
        self._names = Names(client)
        self._searcher = Searcher(client, options.timeout)
        self._places: dict[str, Place] = {}
        self._writing = threading.RLock()

    # -- collections ---------------------------------------------------------------------------

    def _place(self, name: str) -> Place:
        """Read once; `_on` reads it again when it no longer holds."""
        place = self._places.get(name)
        return self._looked_up(name)[0] if place is None else place

    def _looked_up(self, name: str) -> tuple[Place, int]:
        """The place, and its number of rows."""
        wire, space = self._names.resolved(name)
        place, rows = self._seen(name, wire, space)
        self._places[name] = place
        return place, rows

    def _seen(self, name: str, wire: str, space: str) -> tuple[Place, int]:
        info = self._client.space(space, name)
        spec = spec_of(info, collection_of(space))
        return Place(name, wire, space, spec, layout_of(spec), enough_of(info)), int(info["doc_num"])

    def _on(self, name: str, work: Callable[[Place], T]) -> T:
        """Do something at a place; once more where it has moved since it was looked up."""
        place = self._place(name)
        try:
            return work(place)
        except CollectionNotFound:
            now, _ = self._looked_up(name)
            if now == place:
                raise
            return work(now)

    def _checked(self, name: str, check: Callable[[CollectionSpec], T]) -> T:
        """What was handed in, checked; once more where another process has made another collection of that name."""
        spec = self._place(name).spec
        try:
            return check(spec)
        except BadInput:
            now = self._looked_up(name)[0].spec
            if now == spec:
                raise
            return check(now)

    def _forget(self) -> None:
        self._places.clear()
        self._searcher.forget()

    def create(self, spec: CollectionSpec) -> None:
        wanted = checked_spec(spec, CAPABILITIES)
        self._names.check(wanted.name)
        schema = self._schema(wanted, wanted.name)
        with self._writing:
            if wanted.name in self.list() or self._client.alias(self._names.alias(wanted.name)):
                raise CollectionExists(f"Vearch at {self.url} already has a collection {wanted.name!r}")
            self._make(schema, wanted)
            self._forget()

    def _schema(self, spec: CollectionSpec, space: str, rows: int = 0) -> object:
        partitions, replicas = self._options.partitions, self._options.replicas
        return schema_of(spec, space, partitions=partitions, replicas=replicas, rows=_of_a_partition(rows, partitions))

    def _make(self, schema: object, spec: CollectionSpec) -> None:
        """Make a space; a cluster may be too old for its index."""
        try:
            self._client.create_space(schema, spec.name)
        except UnsupportedByBackend as error:
            always = set(CAPABILITIES.index_families) - set(CAPABILITIES.optional_families)
            near = " or ".join(map(repr, nearest_shapes(spec.index.shape, sorted(always))))
            raise UnsupportedByBackend(
                "vearch", f"build the index {spec.index.shape!r} at {self.url} (the nearest it has is {near}): {error}"
            ) from error

    def drop(self, name: str) -> None:
        with self._writing:
            spaces = self._names.spaces_of(name)
            for alias in self._names.aliases_to(spaces):
                self._client.drop_alias(alias)
            for space in spaces:
                self._client.drop_space(space)
            self._forget()

    def list(self) -> tuple[str, ...]:
        return self._names.collections()

    def describe(self, name: str) -> CollectionSpec:
        return self._looked_up(name)[0].spec

    # -- rows ----------------------------------------------------------------------------------

    def upsert(
        self, name: str, ids: IdArray, vectors: VectorArray, columns: Sequence[Attributes] | None = None
    ) -> None:
        ids, rows = self._checked(name, lambda spec: checked_rows(spec, ids, vectors))
        texts = checked_columns(columns, len(ids), self.capabilities)
        with self._writing:
            self._on(name, lambda place: self._write(place, ids, rows, texts))

    def _write(self, place: Place, ids: IdArray, rows: VectorArray, texts: Sequence[str]) -> None:
        some, stamps = rows_of_a_request(place.spec), {}
        for start in range(0, len(ids), some):
            part = slice(start, start + some)
            stamp = f"w{secrets.token_hex(5)}"
            made = documents(place, ids[part], rows[part], texts[part], stamp)
            self._client.upsert(place.wire, made, place.name)
            stamps[stamp] = len(made)
        for stamp, count in stamps.items():
            self._confirm(place, stamp, count)
        self._searcher.wrote(place, ids, rows)

    def _confirm(self, place: Place, stamp: str, count: int) -> None:
        """Wait until a filter sees what was written: Vearch fills the index of its fields behind one's back."""
        deadline = time.monotonic() + min(_SEEN, self._options.timeout)
        written = [Condition(TOKENS, "IN", [stamp])]
        while len(self._client.query(place.wire, written, count, ["_id"], place.name)) < count:
            if time.monotonic() > deadline:
                return  # another process has replaced or deleted some
            time.sleep(_PAUSE)

    def update_columns(self, name: str, ids: IdArray, columns: Sequence[Attributes]) -> None:
        ids = checked_ids(ids)
        texts = checked_columns(columns, len(ids), self.capabilities)
        wanted = dict(zip(ids.tolist(), texts, strict=True))
        with self._writing:
            there = self.fetch(name, ids)
            new = [wanted[row] for row in there.ids.tolist()]
            self._on(name, lambda place: self._write(place, there.ids, there.vectors, new))

    def delete(self, name: str, ids: IdArray) -> None:
        keys = [str(row) for row in checked_ids(ids).tolist()]
        with self._writing:
            self._on(name, lambda place: self._client.delete(place.wire, keys, name))

    # -- reading -------------------------------------------------------------------------------

    def search(
        self,
        name: str,
        queries: VectorArray,
        k: int,
        where: Filter | None = None,
        params: SearchParams | None = None,
    ) -> SearchResult:
        asked = self._checked(name, lambda spec: checked_queries(spec, queries))
        k = checked_k(k, self.capabilities)
        if where is not None:
            check_filter(where, self.capabilities)
        return self._on(name, lambda place: self._searcher.search(place, asked, k, where, params))

    def fetch(self, name: str, ids: IdArray) -> Fetched:
        given = checked_ids(ids).tolist()
        return self._on(name, lambda place: self._fetched(place, given))

    def _fetched(self, place: Place, given: Sequence[int]) -> Fetched:
        found: dict[int, Document] = {}
        fields, some = [COLUMNS, place.layout.field], rows_of_a_request(place.spec)
        for start in range(0, len(given), some):
            keys = [str(row) for row in given[start : start + some]]
            found.update({int(one["_id"]): one for one in self._client.get(place.wire, keys, fields, place.name)})
        present = [row for row in given if row in found]
        vectors = place.layout.taken([found[row][place.layout.field] for row in present], place.spec)
        columns = tuple(json.loads(found[row][COLUMNS]) for row in present)
        return Fetched(np.array(present, np.int64), vectors, columns)

    def scan_ids(self, name: str, batch: int = 10_000) -> Iterator[IdArray]:
        place, _ = self._looked_up(name)
        for page in pages(self._client, place, [], []):
            ids = np.array([int(document["_id"]) for document in page], np.int64)
            for start in range(0, len(ids), batch):
                yield ids[start : start + batch]

    def count(self, name: str) -> int:
        return self._looked_up(name)[1]

    def flush(self, name: str) -> None:
        self._on(name, lambda place: self._client.flush(place.wire, name))

    # -- index and alias -----------------------------------------------------------------------

    def build_index(self, name: str, spec: IndexSpec) -> None:
        """Copies the rows; what other processes write meanwhile is lost, what this one writes waits."""
        with self._writing:
            old, rows = self._looked_up(name)
            wanted = checked_spec(replace(old.spec, index=spec), self.capabilities)
            for left in set(self._names.spaces_of(old.spec.name)) - {old.space}:
                self._client.drop_space(left)
            if self._has_index(old, wanted, rows):
                self._wait_until_built(old)
                return
            space = self._names.rebuilt(old.spec.name)
            schema = self._schema(wanted, space, rows)
            self._make(schema, wanted)
            try:
                new, _ = self._seen(name, space, space)
                self._copy(old, new)
                self._wait_until_built(new)
            except BaseException:
                self._client.drop_space(space)
                raise
            for alias in {self._names.alias(old.spec.name), *self._names.aliases_to([old.space])}:
                self._names.point(alias, space)
            self._client.drop_space(old.space)
            self._forget()

    def _has_index(self, place: Place, wanted: CollectionSpec, rows: int) -> bool:
        """Whether a new space would be no other; it would have the partitions and replicas of the settings."""
        info, asked = self._client.space(place.space, place.name), self._options
        same = (info["partition_num"], info["replica_num"]) == (asked.partitions, asked.replicas)
        return same and has_index(info, wanted, _of_a_partition(rows, asked.partitions))

    def _copy(self, old: Place, new: Place) -> None:
        for page in pages(self._client, old, [], [COLUMNS, old.layout.field]):
            ids = np.array([int(document["_id"]) for document in page], np.int64)
            rows = old.layout.taken([document[old.layout.field] for document in page], old.spec)
            self._write(new, ids, rows, [document[COLUMNS] for document in page])

    def _wait_until_built(self, place: Place) -> None:
        """For as long as it goes on. A partition with too few rows to be trained on is left as it is."""
        changed, before = time.monotonic(), -1
        while not self._searcher.caught_up(place):
            done = self._searcher.indexed(place)
            if done != before:
                changed, before = time.monotonic(), done
            if time.monotonic() - changed > self._options.timeout:
                raise BackendUnavailable(
                    f"Vearch at {self.url} has not gone on with the index {place.spec.index} of {place.name!r} for "
                    f"{self._options.timeout:g} s ({done} rows are in it); look at the log of its partition servers"
                )
            time.sleep(_PAUSE)

    def switch_alias(self, alias: str, name: str) -> None:
        with self._writing:
            place, _ = self._looked_up(name)
            if alias in self.list():
                raise BadInput(f"{alias!r} is a collection; an alias needs a name of its own")
            self._names.point(self._names.alias(alias), place.space)
            self._forget()

    def close(self) -> None:
        self._client.close()


def _of_a_partition(rows: int, partitions: int) -> int:
    """So many rows a partition surely has."""
    return rows if partitions == 1 else int(_SHARE * rows / partitions)
