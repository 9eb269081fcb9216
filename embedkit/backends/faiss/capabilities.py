"""What the backend can do, as data."""

from __future__ import annotations

from embedkit.backends.contract import Capabilities

__all__ = ["CAPABILITIES"]

CAPABILITIES = Capabilities(
    name="faiss",
    metrics=("cosine", "ip", "l2"),
    vector_kinds=("float",),
    index_families=("flat", "hnsw", "ivf"),
    alias_switch=True,
    many_processes=True,
    emulated={
        "delete": "a tombstone at once, the space back by compaction in the background",
        "filter": "columns kept in typed arrays beside the vectors, evaluated before the search",
    },
)
