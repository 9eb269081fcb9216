"""Reading a Milvus collection that embedkit has not made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.backends.milvus.errors import translated
from embedkit.errors import BadSource, CollectionNotFound

if TYPE_CHECKING:
    from embedkit.backends.milvus.backend import MilvusBackend
    from embedkit.types import VectorArray

__all__ = ["foreign_pages"]

_PAGE = 1_000


def foreign_pages(
    backend: MilvusBackend, name: str, *, vector: str | None
) -> Iterator[tuple[list[str], VectorArray, list[dict[str, Any]]]]:
    """Primary keys as texts, vectors, and every other field, page by page.

    `vector`: the field that holds them; the only one if unset. Raises BadSource, CollectionNotFound.
    """
    client = backend.client
    with translated(backend.url, name):
        if not client.has_collection(name):
            there = ", ".join(client.list_collections()) or "none"
            raise CollectionNotFound(f"There is no collection {name!r} at {backend.url}; it has {there}")
        fields = client.describe_collection(name)["fields"]
        client.load_collection(name)
    key = next(field["name"] for field in fields if field.get("is_primary"))
    kinds = {field["name"]: getattr(field["type"], "name", str(field["type"])) for field in fields}
    chosen = _vector_field(name, kinds, vector)
    with translated(backend.url, name):
        pages = client.query_iterator(name, batch_size=_PAGE, output_fields=["*"], consistency_level="Strong")
        try:
            while page := pages.next():
                rows = [dict(row) for row in page]
                keys = [str(row.pop(key)) for row in rows]
                vectors = _array([row.pop(chosen) for row in rows], binary=kinds[chosen] == "BINARY_VECTOR")
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
