"""Rows that the contract of a backend writes: ids far apart, and columns of every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from embedkit.types import IdArray

__all__ = ["columns_of", "ids_of", "small_index"]

_SMALL = {
    "hnsw": "hnsw(m=24)",
    "nsg": "nsg(m=16)",
    "ivf": "ivf(nlist=8)",
    "imi": "imi(bits=2)",
    "pq": "pq(m=4, bits=5)",
    "pq4fs": "pq4fs(m=8)",
    "rq": "rq(m=3, bits=4)",
    "lsq": "lsq(m=3, bits=4)",
    "prq": "prq(splits=2, m=2, bits=4)",
    "opq": "opq(m=4)",
    "polysemous": "polysemous(m=4)",
}
_COLUMNS: tuple[dict[str, Any], ...] = (
    {"price": 12, "brand": "acme", "flag": True, "title": "acme shoes", "sizes": {"eu": 42}},
    {"price": 2.5, "brand": "zeta", "flag": False, "title": None, "sizes": {"eu": "42"}},
    {"price": None, "brand": "größe", "title": "50%", "sizes": [1, 2], "mixed": True},
    {"price": 80, "brand": "", "title": "", "sizes": {}, "mixed": 1, "odd name": 1},
    {"price": -7.25, "brand": "A", "title": "a", "mixed": "1", "flag": True},
    {"price": 1_000_000, "brand": "東京", "title": "quo'te", "mixed": {"eu": 1}, "odd name": 0},
    {"price": 1e-9, "brand": "under_score", "title": 'dou"ble', "mixed": ["a", None]},
    {"price": 0, "brand": "back\\slash", "title": "acme", "mixed": 2.5, "sizes": None},
    {"price": 1, "brand": "a", "title": "12", "mixed": False, "sizes": {"eu": None}},
    {},
)


def ids_of(count: int) -> IdArray:
    """Ascending but for the third and fourth, which lie beyond 2**53."""
    return np.concatenate([np.array([0, 1, 2**53 + 1, 2**62 + 3]), 1_000 + 7 * np.arange(count - 4)]).astype(np.int64)


def columns_of(count: int) -> list[dict[str, Any]]:
    """Ten different ones in turn."""
    return [dict(_COLUMNS[row % len(_COLUMNS)]) for row in range(count)]


def small_index(shape: str, *, refine: bool = False) -> str:
    """The text of an index of that shape that a few hundred rows of 16 dimensions are enough for."""
    parts = [_SMALL.get(name, name) for name in shape.split(" + ")]
    return " + ".join([*parts, *(["refine(flat)"] if refine else [])])
