"""Exact search over rows in a dictionary: slow, forgetful and obviously right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.backends.contract import (
    CollectionSpec,
    Fetched,
    IndexSpec,
    SearchParams,
    SearchResult,
    VectorBackend,
    scores_of,
)
from embedkit.backends.oracle.capabilities import CAPABILITIES
from embedkit.backends.oracle.errors import not_found
from embedkit.backends.oracle.filters import matches
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
from embedkit.codes import hamming
from embedkit.errors import BadInput, CollectionExists
from embedkit.filters import Filter
from embedkit.types import Attributes, Metric

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray, VectorArray

__all__ = ["OracleBackend"]


@dataclass
class _Collection:
    spec: CollectionSpec
    vectors: dict[int, VectorArray] = field(default_factory=dict)
    columns: dict[int, dict[str, Any]] = field(default_factory=dict)

    def rows(self, ids: Sequence[int]) -> VectorArray:
        """The vectors of ids that are there."""
        rows: VectorArray = np.array([self.vectors[i] for i in ids], self.spec.dtype)
        return rows.reshape(len(ids), self.spec.width)


class OracleBackend(VectorBackend):
    """Keeps everything in this process and forgets it at `close`."""

    capabilities = CAPABILITIES

    def __init__(self, url: str) -> None:
        self.url = url
        self._collections: dict[str, _Collection] = {}
        self._aliases: dict[str, str] = {}
        self._lock = RLock()
        self._closed = False

    def _check_open(self) -> None:
        if self._closed:
            raise closed(self.url)

    def _get(self, name: str) -> _Collection:
        self._check_open()
        try:
            return self._collections[self._aliases.get(name, name)]
        except KeyError:
            raise not_found(name) from None

    def create(self, spec: CollectionSpec) -> None:
        with self._lock:
            self._check_open()
            if spec.name in self._collections or spec.name in self._aliases:
                raise CollectionExists(f"The backend 'oracle' already has a collection {spec.name!r}")
            self._collections[spec.name] = _Collection(checked_spec(spec, CAPABILITIES))

    def drop(self, name: str) -> None:
        with self._lock:
            self._check_open()
            self._collections.pop(name, None)
            self._aliases = {alias: target for alias, target in self._aliases.items() if target != name}

    def list(self) -> tuple[str, ...]:
        self._check_open()
        return tuple(sorted(self._collections))

    def describe(self, name: str) -> CollectionSpec:
        return self._get(name).spec

    def upsert(
        self, name: str, ids: IdArray, vectors: VectorArray, columns: Sequence[Attributes] | None = None
    ) -> None:
        with self._lock:
            there = self._get(name)
            ids, rows = checked_rows(there.spec, ids, vectors)
            texts = checked_columns(columns, len(ids), CAPABILITIES)
            for vector_id, row, text in zip(ids.tolist(), rows, texts, strict=True):
                there.vectors[vector_id] = row.copy()
                there.columns[vector_id] = json.loads(text)

    def update_columns(self, name: str, ids: IdArray, columns: Sequence[Attributes]) -> None:
        with self._lock:
            there = self._get(name)
            texts = checked_columns(columns, len(checked_ids(ids)), CAPABILITIES)
            for vector_id, text in zip(checked_ids(ids).tolist(), texts, strict=True):
                if vector_id in there.columns:
                    there.columns[vector_id] = json.loads(text)

    def delete(self, name: str, ids: IdArray) -> None:
        with self._lock:
            there = self._get(name)
            for vector_id in checked_ids(ids).tolist():
                there.vectors.pop(vector_id, None)
                there.columns.pop(vector_id, None)

    def search(
        self,
        name: str,
        queries: VectorArray,
        k: int,
        where: Filter | None = None,
        params: SearchParams | None = None,
    ) -> SearchResult:
        del params
        with self._lock:
            there = self._get(name)
            if where is not None:
                check_filter(where, CAPABILITIES)
            asked = checked_queries(there.spec, queries)
            admitted = [i for i, row in there.columns.items() if where is None or matches(where, row)]
            k = min(checked_k(k, CAPABILITIES), len(admitted))
            ids = np.array(admitted, np.int64)
            rows = there.rows(admitted)
        distances = _distances(there.spec.metric, asked, rows)
        scores = scores_of(there.spec.metric, distances)
        best = np.lexsort((np.broadcast_to(ids, scores.shape), -scores), axis=-1)[:, :k]
        return SearchResult(
            ids=ids[best].reshape(len(asked), k),
            distances=np.take_along_axis(distances, best, axis=1),
            scores=np.take_along_axis(scores, best, axis=1),
        )

    def fetch(self, name: str, ids: IdArray) -> Fetched:
        with self._lock:
            there = self._get(name)
            found = [i for i in checked_ids(ids).tolist() if i in there.vectors]
            return Fetched(np.array(found, np.int64), there.rows(found), tuple(there.columns[i] for i in found))

    def scan_ids(self, name: str, batch: int = 10_000) -> Iterator[IdArray]:
        with self._lock:
            ids = np.array(sorted(self._get(name).vectors), np.int64)
        for start in range(0, len(ids), batch):
            yield ids[start : start + batch]

    def count(self, name: str) -> int:
        return len(self._get(name).vectors)

    def flush(self, name: str) -> None:
        self._get(name)

    def build_index(self, name: str, spec: IndexSpec) -> None:
        with self._lock:
            there = self._get(name)
            there.spec = checked_spec(replace(there.spec, index=spec), CAPABILITIES)

    def switch_alias(self, alias: str, name: str) -> None:
        with self._lock:
            self._get(name)
            if alias in self._collections:
                raise BadInput(f"{alias!r} is a collection; an alias needs a name of its own")
            self._aliases[alias] = self._aliases.get(name, name)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._collections.clear()
            self._aliases.clear()


def _distances(metric: Metric, queries: Any, rows: Any) -> FloatArray:
    if metric == "hamming":
        return hamming(queries, rows).astype(np.float32)
    if metric == "l2":
        squares: FloatArray = np.square(queries[:, None, :] - rows[None, :, :]).sum(axis=2, dtype=np.float32)
        return squares
    products: FloatArray = queries @ rows.T
    return products
