"""What the backend can do, as data."""

from __future__ import annotations

from embedkit.backends.contract import Capabilities
from embedkit.backends.indexes import CODES

__all__ = ["CAPABILITIES"]

_LISTED = tuple(codes for codes in CODES if codes != "polysemous")
_ROTATED = ("opq + pq", "opq + pq4fs", *(f"opq + {by} + {codes}" for by in ("ivf", "imi") for codes in ("pq", "pq4fs")))

CAPABILITIES = Capabilities(
    name="faiss",
    metrics=("cosine", "ip", "l2", "hamming"),
    vector_kinds=("float", "binary"),
    index_families=(
        "flat",
        *("hnsw", "hnsw + sq8", "hnsw + fp16", "hnsw + pq", "nsg"),
        *("ivf", *(f"ivf + {codes}" for codes in _LISTED)),
        *("imi", "imi + sq8", "imi + fp16", "imi + pq", "imi + pq4fs"),
        *CODES,
        *_ROTATED,
    ),
    binary_families=("flat", "hnsw", "ivf", "multihash"),
    refines=("flat",),
    rescores=True,
    ties_by_id=True,
    alias_switch=True,
    many_processes=True,
    emulated={
        "delete": "a tombstone at once, the space back by compaction in the background",
        "filter": "columns kept in typed arrays beside the vectors, evaluated before the search",
        "filter on hnsw, ivf and imi": "where few rows are admitted, all of them are compared; else the index looks "
        "farther by as much as it leaves out, and a question that still gets too few is put to all",
        "filter on an ivf of codes, nsg, pq, rq, lsq, prq, polysemous": "up to a quarter of the rows are scanned; "
        "else more hits are asked for and tested",
        "imi, nsg and polysemous by cosine": "built by Euclidean distance of unit vectors, which orders alike",
    },
)
