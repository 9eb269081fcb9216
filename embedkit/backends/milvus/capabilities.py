"""What the backend can do, as data."""

from __future__ import annotations

from dataclasses import replace

from embedkit.backends.contract import Capabilities

__all__ = ["LITE", "SERVER"]

SERVER = Capabilities(
    name="milvus",
    metrics=("cosine", "ip", "l2", "hamming"),
    vector_kinds=("float", "binary"),
    index_families=(
        *("flat", "hnsw", "hnsw + sq8", "hnsw + pq", "ivf", "ivf + sq8", "ivf + pq", "ivf + pq4fs", "ivf + rabitq"),
        *("diskann", "cagra"),
    ),
    binary_families=("flat", "ivf"),
    optional_families=("hnsw + sq8", "hnsw + pq", "ivf + rabitq", "diskann", "cagra"),
    refines=("flat", "fp16"),
    max_columns_bytes=26_000,  # a JSON field holds 65,536 bytes, and the typed copy takes up to 2.5 times the columns
    alias_switch=True,
    many_processes=True,
    emulated={
        "update_columns": "the vectors are fetched and written again with the new columns",
        "filter": "compared on a copy of the columns whose names carry their type, so that every backend agrees",
        "filter on an index": "the index looks farther by as much as the filter leaves out, which a count tells once a "
        "minute, and as far as it can where a question gets too few; up to 1,000 rows are read and compared here where "
        "a graph might miss them",
        "newer indexes": "hnsw + sq8, hnsw + pq and ivf + rabitq, which alone take refine(fp16), ask for a server of "
        "2.6, diskann for one that has it, cagra for one with a GPU; another refuses, or builds nothing for ten "
        "minutes, and the index there was stays",
        "like": "other patterns than 'text%': the rows are read, and the search gets the ids that match",
    },
)
LITE = replace(
    SERVER,
    many_processes=False,
    index_families=("flat", "hnsw", "hnsw + sq8", "ivf", "ivf + sq8"),
    optional_families=(),
    refines=(),
    binary_families=("flat", "hnsw", "ivf"),
    emulated={
        **SERVER.emulated,
        "binary": "Lite stores bits as floats of 1 and -1, whose inner product orders exactly as the Hamming distance, "
        "and distances are given in bits; a server stores the bits, in flat and ivf indexes",
    },
)
