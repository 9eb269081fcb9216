"""From the portable filter to a Milvus expression over typed names.

Milvus and Milvus Lite disagree about JSON: whether true equals 1, what a missing value does under
``not``. So every row has dynamic fields beside its columns, where a name says what its value is:
``{"price": 12, "brand": "acme", "sizes": {"eu": 42}}`` becomes
``{"n:price": 12.0, "t:brand": "acme", "x:sizes": 1.0, "n:sizes>eu": 42.0}``.
Then a comparison meets one type only, and ``exists`` says the rest. They are dynamic fields, and flat, because
Lite evaluates those by column, where the path into a JSON field costs it a walk of the expression for every row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedkit.filters import MAX_INT, And, Compare, Filter, In, IsNull, Like, Not, Or, Path, Value

__all__ = ["Pushed", "push", "typed"]

_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_TAGS = ("n", "t", "b", "x")
_PLAIN_NAME = re.compile(r"[\w .:/-]+")
_STEP = ">"  # no plain name holds it
_BEYOND = float(MAX_INT) + 2.0


def typed(columns: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The dynamic fields that filters are evaluated on. Names that no expression can hold are left out.

    >>> typed({"a": 1, "b": None, "c": {"d": True}})
    {'n:a': 1.0, 'x:c': 1.0, 'b:c>d': 1.0}
    """
    out: dict[str, Any] = {}
    for name, value in columns.items():
        if value is None or not _PLAIN_NAME.fullmatch(name):
            continue
        path = above + name
        if isinstance(value, bool):
            out[f"b:{path}"] = float(value)
        elif isinstance(value, int | float):
            out[f"n:{path}"] = _number(value)
        elif isinstance(value, str):
            out[f"t:{path}"] = value
        else:
            out[f"x:{path}"] = 1.0
            if isinstance(value, Mapping):
                out.update(typed(value, f"{path}{_STEP}"))
    return out


def _number(value: float) -> float:
    """As a float; integers that a float cannot tell apart stay beyond every literal of a filter."""
    if isinstance(value, int) and abs(value) > MAX_INT:
        far = max(min(abs(value), 10**300), _BEYOND)
        return float(far if value > 0 else -far)
    return float(value)


@dataclass(frozen=True, slots=True)
class Pushed:
    """An expression that admits at least the rows of the filter, and exactly them if `exact`. '' admits all."""

    text: str
    exact: bool


_EVERYTHING = Pushed("", False)
_NOTHING = Pushed("id < -9223372036854775807 and id > 0", True)


def push(node: Filter, *, negated: bool = False) -> Pushed:
    """Compile; `not` is moved down to the comparisons, where it is plain."""
    if isinstance(node, Not):
        return push(node.part, negated=not negated)
    if isinstance(node, And | Or):
        parts = [push(part, negated=negated) for part in node.parts]
        return _all_of(parts) if isinstance(node, And) != negated else _any_of(parts)
    if not all(_PLAIN_NAME.fullmatch(step) for step in node.path):
        return _EVERYTHING
    if isinstance(node, IsNull):
        return _any_of([_exists(node.path, tag, negated=False) for tag in _TAGS]) if negated else _absent(node.path)
    if isinstance(node, In):
        parts = [_compare(node.path, "==", value, negated=negated) for value in node.values]
        if negated:
            return _all_of(parts)
        return _any_of(parts) if parts else _NOTHING
    if isinstance(node, Like):
        return _like(node, negated=negated)
    return (
        _not_equal(node, negated=negated)
        if node.op == "!="
        else _compare(node.path, node.op, node.value, negated=negated)
    )


def _all_of(parts: list[Pushed]) -> Pushed:
    texts = [part.text for part in parts if part.text]
    return Pushed(" and ".join(f"({text})" for text in texts), all(part.exact for part in parts))


def _any_of(parts: list[Pushed]) -> Pushed:
    exact = all(part.exact for part in parts)
    if any(not part.text for part in parts):
        return Pushed("", exact)
    return Pushed(" or ".join(f"({part.text})" for part in parts), exact)


def _name(path: Path, tag: str) -> str:
    return f'$meta["{tag}:{_STEP.join(path)}"]'


def _exists(path: Path, tag: str, *, negated: bool) -> Pushed:
    return Pushed(f"{'not ' if negated else ''}(exists {_name(path, tag)})", True)


def _absent(path: Path) -> Pushed:
    return _all_of([_exists(path, tag, negated=True) for tag in _TAGS])


def _literal(value: Value) -> tuple[str, str] | None:
    """The type's tag and the text of a literal; None where quoting is not safe on every Milvus."""
    if isinstance(value, bool):
        return "b", "1.0" if value else "0.0"
    if isinstance(value, str):
        safe = value.isprintable() and not set(value) & set("\\\"'")
        return ("t", json.dumps(value, ensure_ascii=False)) if safe else None
    digits, mark, exponent = f"{float(value):.17g}".partition("e")
    return "n", f"{digits if '.' in digits else digits + '.0'}{mark}{exponent}"


def _compare(path: Path, op: str, value: Value, *, negated: bool) -> Pushed:
    literal = _literal(value)
    if literal is None:
        return _EVERYTHING
    tag, text = literal
    name = _name(path, tag)
    if not negated:
        return Pushed(f"{name} {op} {text}", True)
    return Pushed(f"(not (exists {name})) or ({name} {_OPPOSITE[op]} {text})", True)


def _not_equal(node: Compare, *, negated: bool) -> Pushed:
    """``a != v``: present, and not ``a == v``."""
    if negated:
        return _any_of([_absent(node.path), _compare(node.path, "==", node.value, negated=False)])
    there = _any_of([_exists(node.path, tag, negated=False) for tag in _TAGS])
    return _all_of([there, _compare(node.path, "==", node.value, negated=True)])


def _like(node: Like, *, negated: bool) -> Pushed:
    """Only ``text%`` is pushed down: the one form that every Milvus understands alike."""
    prefix = node.pattern.removesuffix("%")
    literal = _literal(node.pattern)
    if literal is None or prefix == node.pattern or not prefix or set(prefix) & set("%_"):
        return _EVERYTHING
    name = _name(node.path, "t")
    if negated:
        return Pushed(f"(not (exists {name})) or (not ({name} like {literal[1]}))", True)
    return Pushed(f"{name} like {literal[1]}", True)
