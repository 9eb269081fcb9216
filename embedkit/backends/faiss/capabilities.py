"""What the backend can do, as data."""

from __future__ import annotations

from embedkit.backends.contract import Capabilities

__all__ = ["CAPABILITIES"]

CAPABILITIES = Capabilities(
    name="faiss",
    metrics=("cosine", "ip", "l2", "hamming"),
    vector_kinds=("float", "binary"),
    index_families=("flat", "hnsw", "ivf"),
    binary_families=("flat", "hnsw", "ivf", "multihash"),
    ties_by_id=True,
    alias_switch=True,
    many_processes=True,
    emulated={
        "delete": "a tombstone at once, the space back by compaction in the background",
        "filter": "columns kept in typed arrays beside the vectors, evaluated before the search",
        "filter on an ivf of codes": "up to a quarter of the rows are scanned; else more hits are asked for and tested",
    },
)
