"""Reading a Milvus collection that embedkit has not made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.backends.milvus.errors import translated
from embedkit.errors import BadSource, CollectionNotFound

if TYPE_CHECKING:
    from embedkit.backends.milvus.backend import MilvusBackend
    from embedkit.types import Metric, VectorArray

__all__ = ["Foreign", "foreign_collection", "foreign_pages"]

_PAGE = 1_000
_METRICS: dict[str, Metric] = {"COSINE": "cosine", "IP": "ip", "L2": "l2", "HAMMING": "hamming"}


@dataclass(frozen=True, slots=True)
class Foreign:
    """A collection: its fields of keys and of vectors, the type of every field, and what its index measures by.

    `metric` is None where there is no index, or one that embedkit has no such metric for.
    """

    name: str
    key: str
    vector: str
    kinds: Mapping[str, str]
    metric: Metric | None


def foreign_collection(backend: MilvusBackend, name: str, *, vector: str | None) -> Foreign:
    """What a collection is made of. `vector`: its field of vectors; the only one if unset.

    Raises BadSource, CollectionNotFound.
    """
    client = backend.client
    with translated(backend.url, name):
        if not client.has_collection(name):
            there = ", ".join(client.list_collections()) or "none"
            raise CollectionNotFound(f"There is no collection {name!r} at {backend.url}; it has {there}")
        fields = client.describe_collection(name)["fields"]
        indexes = [client.describe_index(name, one) for one in client.list_indexes(name)]
    key = next(field["name"] for field in fields if field.get("is_primary"))
    kinds = {field["name"]: getattr(field["type"], "name", str(field["type"])) for field in fields}
    chosen = _vector_field(name, kinds, vector)
    measures = [str(index.get("metric_type", "")).upper() for index in indexes if index.get("field_name") == chosen]
    return Foreign(name, key, chosen, kinds, _METRICS.get(measures[0]) if measures else None)


def foreign_pages(
    backend: MilvusBackend, there: Foreign
) -> Iterator[tuple[list[str], VectorArray, list[dict[str, Any]]]]:
    """Primary keys as texts, vectors, and every other field, page by page."""
    name, kinds = there.name, there.kinds
    with translated(backend.url, name):
        backend.client.load_collection(name)
        pages = backend.client.query_iterator(name, batch_size=_PAGE, output_fields=["*"], consistency_level="Strong")
        try:
            while page := pages.next():
                rows = [dict(row) for row in page]
                keys = [str(row.pop(there.key)) for row in rows]
                vectors = _array([row.pop(there.vector) for row in rows], binary=kinds[there.vector] == "BINARY_VECTOR")
                yield (
                    keys,
                    vectors,
                    [{n: v for n, v in row.items() if "VECTOR" not in kinds.get(n, "")} for row in rows],
                )
        finally:
            pages.close()


def _vector_field(name: str, kinds: dict[str, str], asked: str | None) -> str:
    there = [field for field, kind in kinds.items() if kind in ("FLOAT_VECTOR", "BINARY_VECTOR")]
    if asked is not None and asked not in there:
        raise BadSource(
            f"The collection {name!r} has no field of vectors {asked!r}; it has {', '.join(there) or 'none'}"
        )
    if asked is None and len(there) != 1:
        raise BadSource(
            f"The collection {name!r} has {len(there)} fields of vectors ({', '.join(there) or 'none'}); "
            "say which with --vectors FIELD"
        )
    return asked or there[0]


def _array(values: list[Any], *, binary: bool) -> VectorArray:
    if binary:
        codes = [value[0] if isinstance(value, list) else value for value in values]
        return np.stack([np.frombuffer(code, np.uint8) for code in codes])
    return np.asarray(values, np.float32)
