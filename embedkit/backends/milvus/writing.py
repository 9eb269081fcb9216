"""Rows on their way into Milvus, column by column.

`MilvusClient.upsert` takes rows as dictionaries and walks through every value of each, in Python. A request holds
columns, and so do we; the driver's connection sends one that is ready, and sees to retries and to what a session has
written.

Lite's upsert keeps what an old row has and the new one lacks, which would be attributes that a product has lost. Its
insert replaces: of several rows with one id the newest counts. On a server an insert would be a second row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pymilvus import DataType
from pymilvus.grpc_gen import milvus_pb2

from embedkit.backends.milvus.filters import typed
from embedkit.backends.milvus.layout import Layout

if TYPE_CHECKING:
    from embedkit.backends.contract import CollectionSpec
    from embedkit.types import IdArray, VectorArray

__all__ = ["parts_of", "request_of", "rows_at_once", "send"]

_encoded = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_DYNAMIC = "$meta"  # the field of all that a schema does not name
_ROWS = 2_000  # of one message
_BYTES = 32 << 20  # of one message; a server takes 64 MiB


def rows_at_once(vector_bytes: int) -> int:
    """How many vectors a message holds, if they take so many bytes each."""
    return max(1, min(_ROWS, _BYTES // vector_bytes))


def parts_of(vector_bytes: int, texts: Sequence[str]) -> Iterator[slice]:
    """Rows in pieces that fit into a message. `texts`: their columns as JSON, of which the typed copy is longer."""
    most, start, size = rows_at_once(vector_bytes), 0, 0
    for row, text in enumerate(texts):
        more = vector_bytes + 4 * len(text.encode())
        if row - start == most or (size + more > _BYTES and row > start):
            yield slice(start, row)
            start, size = row, 0
        size += more
    if start < len(texts):
        yield slice(start, len(texts))


def request_of(
    name: str,
    spec: CollectionSpec,
    layout: Layout,
    ids: IdArray,
    rows: VectorArray,
    texts: Sequence[str],
    *,
    lite: bool,
) -> Any:
    """Some rows in the place of those that had their ids. `texts`: their columns as JSON."""
    request = (milvus_pb2.InsertRequest if lite else milvus_pb2.UpsertRequest)(collection_name=name, num_rows=len(ids))
    named = request.fields_data.add(field_name="id", type=DataType.INT64)
    named.scalars.long_data.data.extend(ids.tolist())
    vectors = request.fields_data.add(field_name=layout.field, type=DataType[layout.type])
    layout.put(vectors.vectors, rows, spec)
    columns = request.fields_data.add(field_name="columns", type=DataType.JSON)
    columns.scalars.json_data.data.extend([text.encode() for text in texts])
    filtered = request.fields_data.add(field_name=_DYNAMIC, type=DataType.JSON, is_dynamic=True)
    filtered.scalars.json_data.data.extend([_encoded(typed(json.loads(text))).encode() for text in texts])
    return request


def send(client: Any, request: Any, timeout: float) -> None:
    """Through the connection of a `MilvusClient`, with the database that it works in."""
    more = {"context": client._generate_call_context()} if hasattr(client, "_generate_call_context") else {}
    more["schema"] = {"fields": []}  # which would else be asked for, to make the request
    connection = client._get_connection()
    if isinstance(request, milvus_pb2.InsertRequest):
        connection.batch_insert(request.collection_name, [], timeout=timeout, insert_param=request, **more)
    else:
        connection.upsert(request.collection_name, [], timeout=timeout, upsert_param=request, **more)
