"""Where an ingest writes: one collection, its backend, its store and its encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embedkit.backends.contract import VectorBackend
from embedkit.encoders.contract import Encoder
from embedkit.metadata.rows import CollectionRow, ViewRow
from embedkit.metadata.store import MetadataStore
from embedkit.types import Attributes

__all__ = ["Target", "columns_of"]


@dataclass(frozen=True, slots=True)
class Target:
    """`encoders`: by view. They are empty where nothing is encoded (delete, verify)."""

    store: MetadataStore
    backend: VectorBackend
    row: CollectionRow
    encoders: Mapping[str, Encoder]

    @property
    def views(self) -> Mapping[str, ViewRow]:
        return {view.name: view for view in self.row.views}


def columns_of(key: str, title: str | None, attributes: Attributes) -> Attributes:
    """What a filter can see of a product; `key` and `title` win over attributes of that name."""
    return {**attributes, "key": key, "title": title}
