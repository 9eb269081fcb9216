"""Where an ingest writes: one collection, its backend, its store and its encoders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from embedkit.backends.contract import VectorBackend
from embedkit.encoders.contract import Encoder
from embedkit.metadata.rows import CollectionRow, RunCounts, ViewRow
from embedkit.metadata.store import MetadataStore
from embedkit.types import Attributes

__all__ = ["Moved", "Target", "columns_of"]


@dataclass(frozen=True, slots=True)
class Target:
    """`encoders`: by slot. They are empty where nothing is encoded (delete, verify), or lack an old version's."""

    store: MetadataStore
    backend: VectorBackend
    row: CollectionRow
    encoders: Mapping[str, Encoder]

    @property
    def views(self) -> Mapping[str, ViewRow]:
        """Every view that is written to, by slot: those that serve, and those of other versions."""
        return self.row.slots

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The moment of a write, which nobody shares. Raises Moved if the versions are not those that `row` knows."""
        with self.store.writing(self.row.id):
            if self.store.epoch(self.row.id) != self.row.epoch:
                raise Moved
            yield


class Moved(Exception):
    """A version was added, switched or dropped meanwhile: the same must be done again with the row as it is now."""

    counts = RunCounts()  # what a run had written by then


def columns_of(key: str, title: str | None, attributes: Attributes) -> Attributes:
    """What a filter can see of a product; `key` and `title` win over attributes of that name."""
    return {**attributes, "key": key, "title": title}
