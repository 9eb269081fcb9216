"""From the portable filter to conditions on hashed tokens.

A space of Vearch has fixed fields, and attributes have none. So every row has a field of texts, where each attribute
leaves two tokens: that it is there, and what it is. ``{"price": 12, "sizes": {"eu": 42}}`` leaves tokens for *price is
there*, *price is the number 12*, *sizes is there*, *sizes.eu is there*, *sizes.eu is the number 42*. They are hashed,
72 bits each, since an indexed text holds 1,024 bytes. A row with more than fit has a mark instead (`PARTIAL`).

What conditions joined by AND cannot say is left out of them, and every hit is checked against its columns. So a
condition need only admit all that the filter admits; ``exact`` says that it admits little else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from embedkit.backends.vearch.client import Condition
from embedkit.filters import And, Compare, Filter, In, IsNull, Like, Not, Or, Path, Value

__all__ = ["PARTIAL", "TOKENS", "Pushed", "push", "tokens"]

TOKENS = "tokens"
PARTIAL = "~"
_ROOM = 1_000
_HASH = 9  # bytes
_KEPT, _SHORT = 16_384, 64  # tokens that are remembered; characters of a text whose token is


def tokens(columns: Mapping[str, Any], own: list[str]) -> list[str]:
    """The tokens of a row: `own`, and those of its attributes, or PARTIAL where these do not fit.

    >>> len(tokens({"price": 12, "sizes": {"eu": 42}}, ["#7"]))
    6
    """
    room = _ROOM - sum(len(token) + 1 for token in own)
    every = own.copy()
    for token in _of(columns, ()):
        room -= len(token) + 1
        if room < 0:
            return [*own, PARTIAL]
        every.append(token)
    return every


def _of(columns: Mapping[str, Any], above: Path) -> Iterator[str]:
    for name, value in columns.items():
        if value is None:
            continue
        path = (*above, name)
        yield _there(path)
        if isinstance(value, bool | int | float | str):
            yield _is(path, value)
        elif isinstance(value, Mapping):
            yield from _of(value, path)


def _hashed(*what: object) -> str:
    digest = hashlib.blake2b(json.dumps(what).encode(), digest_size=_HASH).digest()
    return base64.urlsafe_b64encode(digest).decode()


_kept = lru_cache(_KEPT)(_hashed)  # what a catalog says again and again


def _there(path: Path) -> str:
    return _kept(path)


def _is(path: Path, value: Value) -> str:
    if isinstance(value, bool):
        return _hashed(path, "b", value)
    if isinstance(value, str):
        return _kept(path, "t", value) if len(value) <= _SHORT else _hashed(path, "t", value)
    return _kept(path, "n", _number(value))


def _number(value: float) -> str:
    """One text for equal numbers, another for a whole number that no float equals."""
    try:
        return repr(float(value) + 0.0) if float(value) == value else str(value)
    except OverflowError:
        return str(value)


@dataclass(frozen=True, slots=True)
class Pushed:
    """One token of each set of `among`, and none of `without`. `nothing`: no row passes."""

    among: tuple[frozenset[str], ...] = ()
    without: frozenset[str] = frozenset()
    exact: bool = True
    nothing: bool = False

    def conditions(self) -> list[Condition]:
        """For a request; rows whose tokens are not all there pass every set."""
        every = [Condition(TOKENS, "IN", [*sorted(some), PARTIAL]) for some in self.among]
        return [*every, Condition(TOKENS, "NOT IN", sorted(self.without))] if self.without else every


_EVERYTHING = Pushed(exact=False)
_NOTHING = Pushed(nothing=True)


def push(node: Filter, *, negated: bool = False) -> Pushed:
    """Compile; `not` is moved down to the comparisons."""
    if isinstance(node, Not):
        return push(node.part, negated=not negated)
    if isinstance(node, And | Or):
        parts = [push(part, negated=negated) for part in node.parts]
        return _all_of(parts) if isinstance(node, And) != negated else _any_of(parts)
    if isinstance(node, IsNull):
        there = frozenset({_there(node.path)})
        return Pushed(among=(there,)) if negated else Pushed(without=there)
    if isinstance(node, In):
        values = frozenset(_is(node.path, value) for value in node.values)
        if negated:
            return Pushed(without=values)
        return Pushed(among=(values,)) if values else _NOTHING
    return _compared(node, negated)


def _compared(node: Compare | Like, negated: bool) -> Pushed:
    there = frozenset({_there(node.path)})
    if isinstance(node, Compare) and node.op in ("==", "!="):
        value = frozenset({_is(node.path, node.value)})
        if node.op == "!=":  # present, and another
            return _EVERYTHING if negated else Pushed(among=(there,), without=value)
        return Pushed(without=value) if negated else Pushed(among=(value,))
    return _EVERYTHING if negated else Pushed(among=(there,), exact=False)


def _all_of(parts: list[Pushed]) -> Pushed:
    if any(part.nothing for part in parts):
        return _NOTHING
    return Pushed(
        among=tuple(some for part in parts for some in part.among),
        without=frozenset().union(*(part.without for part in parts)),
        exact=all(part.exact for part in parts),
    )


def _any_of(parts: list[Pushed]) -> Pushed:
    """One condition says *any of these tokens*; other alternatives cannot be said."""
    parts = [part for part in parts if not part.nothing]
    if not parts:
        return _NOTHING
    if len(parts) == 1:
        return parts[0]
    if any(len(part.among) != 1 or part.without for part in parts):
        return _EVERYTHING
    return Pushed(
        among=(frozenset().union(*(part.among[0] for part in parts)),), exact=all(part.exact for part in parts)
    )
