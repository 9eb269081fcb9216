"""What the backend can do, as data."""

from __future__ import annotations

from dataclasses import replace

from embedkit.backends.contract import Capabilities

__all__ = ["LITE", "SERVER"]

SERVER = Capabilities(
    name="milvus",
    metrics=("cosine", "ip", "l2", "hamming"),
    vector_kinds=("float", "binary"),
    index_families=("flat", "hnsw", "ivf"),
    binary_families=("flat", "ivf"),
    max_columns_bytes=26_000,  # a JSON field holds 65,536 bytes, and the typed copy takes up to 2.5 times the columns
    alias_switch=True,
    many_processes=True,
    emulated={
        "update_columns": "the vectors are fetched and written again with the new columns",
        "filter": "compared on a copy of the columns whose names carry their type, so that every backend agrees",
        "like": "other patterns than 'text%': the rows are read, and the search gets the ids that match",
    },
)
LITE = replace(
    SERVER,
    many_processes=False,
    binary_families=("flat", "hnsw", "ivf"),
    emulated={
        **SERVER.emulated,
        "binary": "Lite stores bits as floats of 1 and -1, whose inner product orders exactly as the Hamming distance, "
        "and distances are given in bits; a server stores the bits, in flat and ivf indexes",
    },
)
