"""What the backend can do, as data."""

from __future__ import annotations

from embedkit.backends.contract import Capabilities

__all__ = ["CAPABILITIES"]

CAPABILITIES = Capabilities(
    name="vearch",
    metrics=("cosine", "ip", "l2", "hamming"),
    vector_kinds=("float", "binary"),
    index_families=("flat", "hnsw", "ivf", "ivf + pq", "ivf + rabitq"),
    binary_families=("flat", "hnsw", "ivf"),
    optional_families=("ivf + rabitq",),
    rescores=True,
    max_k=10_000,
    max_columns_bytes=65_000,  # a text that is not indexed holds 65,535 bytes
    alias_switch=True,
    many_processes=True,
    build_copies=True,
    emulated={
        "update_columns": "the vectors are fetched and written again with the new columns",
        "cosine": "the inner product of vectors of length 1",
        "filter": "values are compared by hashed tokens beside the columns, since a space has fixed fields; every hit "
        "is checked against its columns, more are asked for while some fail, and where few rows pass, the rows are "
        "read and the search gets the ids that match",
        "filter on an index": "it looks four times as far; where it gives too few, up to 1,000 rows are read and "
        "compared here, and more by a scan there",
        "range and like": "Vearch sees only that the value is there, and the hits are checked as above",
        "binary": "flat and hnsw hold bits as floats of 1 and -1, whose inner product orders exactly as the Hamming "
        "distance, and distances are given in bits; ivf is BINARYIVF over the bits",
        "build_index": "a space keeps its index: the rows are written into a new space, to which an alias of the "
        "collection's name then leads, unless the space has that very index already and few rows in it are dead",
        "ivf before it is trained": "the rows are read and compared here, exactly",
    },
)
