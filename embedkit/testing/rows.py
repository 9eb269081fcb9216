"""Rows that the contract of a backend writes: ids far apart, and columns of every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from embedkit.types import IdArray

__all__ = ["columns_of", "ids_of"]

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
