"""The meaning of a filter, in plain Python: the reference that every backend is held to."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from embedkit.filters import And, Compare, Filter, In, IsNull, Like, Not, Or, Path, Value, like_to_regex

__all__ = ["compile_like", "matches", "value_at"]

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def value_at(attributes: Mapping[str, Any], path: Path) -> Any:
    """The attribute at a path, None where a step is missing or no object.

    >>> value_at({"sizes": {"eu": 42}}, ("sizes", "eu"))
    42
    """
    value: Any = attributes
    for step in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(step)
    return value


def matches(node: Filter, attributes: Mapping[str, Any]) -> bool:
    """Whether a filter admits a row; the rules stand at the top of `embedkit.filters`."""
    if isinstance(node, And):
        return all(matches(part, attributes) for part in node.parts)
    if isinstance(node, Or):
        return any(matches(part, attributes) for part in node.parts)
    if isinstance(node, Not):
        return not matches(node.part, attributes)
    found = value_at(attributes, node.path)
    if isinstance(node, IsNull):
        return found is None
    if isinstance(node, Like):
        return isinstance(found, str) and compile_like(node.pattern).fullmatch(found) is not None
    if isinstance(node, In):
        return any(_equal(found, value) for value in node.values)
    return _compare(node, found)


def _compare(node: Compare, found: Any) -> bool:
    if node.op == "==":
        return _equal(found, node.value)
    if node.op == "!=":
        return found is not None and not _equal(found, node.value)
    return _kind(found) == _kind(node.value) in ("number", "text") and _ORDER[node.op](found, node.value)


def _equal(found: Any, value: Value) -> bool:
    return _kind(found) == _kind(value) and bool(found == value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "other"


@lru_cache(256)
def compile_like(pattern: str) -> re.Pattern[str]:
    """The compiled form of a ``like`` pattern, for `fullmatch`."""
    return re.compile(like_to_regex(pattern), re.DOTALL)
