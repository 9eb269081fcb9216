"""Reading the engine's answer, a flatbuffer: where its own readers take half a millisecond for a hit."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TypeAlias

_U16, _I32, _U32, _F64 = struct.Struct("<H"), struct.Struct("<i"), struct.Struct("<I"), struct.Struct("<d")
_RESULTS = 0  # slots of the tables, in the order of the engine's schema
_ITEMS = 3
_SCORE, _ATTRIBUTES = 0, 1
_NAME, _VALUE = 0, 1

Hit: TypeAlias = tuple[float, dict[str, bytes]]


def hits_of(raw: bytes) -> list[list[Hit]]:
    """For each query the score and the fields of every hit."""
    (root,) = _U32.unpack_from(raw)
    return [[_hit(raw, item) for item in _tables(raw, result, _ITEMS)] for result in _tables(raw, root, _RESULTS)]


def _hit(raw: bytes, item: int) -> Hit:
    at = _slot(raw, item, _SCORE)
    score = _F64.unpack_from(raw, at)[0] if at else 0.0
    attributes = _tables(raw, item, _ATTRIBUTES)
    return score, {_bytes(raw, one, _NAME).decode(): _bytes(raw, one, _VALUE) for one in attributes}


def _slot(raw: bytes, table: int, number: int) -> int:
    """Where a table keeps a field; 0 where it has none."""
    offsets = table - _I32.unpack_from(raw, table)[0]
    place = 4 + 2 * number
    if place >= _U16.unpack_from(raw, offsets)[0]:
        return 0
    (offset,) = _U16.unpack_from(raw, offsets + place)
    return table + int(offset) if offset else 0


def _vector(raw: bytes, table: int, number: int) -> tuple[int, int]:
    """Where a vector begins, and its length."""
    at = _slot(raw, table, number)
    if not at:
        return 0, 0
    start = at + _U32.unpack_from(raw, at)[0]
    return start + 4, _U32.unpack_from(raw, start)[0]


def _tables(raw: bytes, table: int, number: int) -> Iterator[int]:
    start, length = _vector(raw, table, number)
    for at in range(start, start + 4 * length, 4):
        yield at + _U32.unpack_from(raw, at)[0]


def _bytes(raw: bytes, table: int, number: int) -> bytes:
    start, length = _vector(raw, table, number)
    return raw[start : start + length]
