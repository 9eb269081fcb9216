"""``milvus:///file.db`` (embedded Lite) and ``milvus://host:19530/database`` (a server)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from embedkit.backends.contract import BackendOptions, Capabilities
from embedkit.backends.url import parse_url

if TYPE_CHECKING:
    from embedkit.backends.contract import VectorBackend

__all__ = ["FACTORY", "LITE", "SERVER"]

SERVER = Capabilities(
    name="milvus",
    metrics=("cosine", "ip", "l2"),
    vector_kinds=("float",),
    index_families=("flat", "hnsw", "ivf"),
    max_columns_bytes=26_000,  # a JSON field holds 65,536 bytes, and the typed copy takes up to 2.5 times the columns
    alias_switch=True,
    many_processes=True,
    emulated={
        "update_columns": "the vectors are fetched and written again with the new columns",
        "filter": "compared on a copy of the columns whose names carry their type, so that every backend agrees",
        "like": "other patterns than 'text%': the rows are read, and the search gets the ids that match",
    },
)
LITE = replace(SERVER, name="milvus", many_processes=False)


class _Factory:
    def capabilities(self, url: str) -> Capabilities:
        return SERVER if parse_url(url).host else LITE

    def open(self, url: str, options: BackendOptions) -> VectorBackend:
        from embedkit.backends.milvus.connect import connect

        backend: VectorBackend = connect(parse_url(url), options)
        return backend


FACTORY = _Factory()
