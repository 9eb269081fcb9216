"""Filters over typed arrays: one cache a collection, one entry an attribute path, aligned with positions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from embedkit.filters import MAX_INT, And, Compare, Filter, In, IsNull, Like, Not, Or, Path, Value, filter_paths
from embedkit.matching import compile_like, value_at

__all__ = ["ColumnCache"]

Mask: TypeAlias = npt.NDArray[np.bool_]

_NULL, _NUMBER, _TEXT, _TRUE, _FALSE, _OTHER = range(6)
_BEYOND = float(np.nextafter(float(MAX_INT), np.inf))


class _Column:
    """`kinds` by position; `numbers` where the kind is number; `codes` into `texts` where it is text."""

    def __init__(self) -> None:
        self.kinds = np.zeros(0, np.uint8)
        self.numbers = np.zeros(0, np.float64)
        self.codes = np.zeros(0, np.int32)
        self.texts: dict[str, int] = {}

    def grow(self, size: int) -> None:
        if size > len(self.kinds):
            room = max(size, 2 * len(self.kinds), 1024)
            self.kinds = np.concatenate([self.kinds, np.zeros(room - len(self.kinds), np.uint8)])
            self.numbers = np.concatenate([self.numbers, np.zeros(room - len(self.numbers))])
            self.codes = np.concatenate([self.codes, np.zeros(room - len(self.codes), np.int32)])

    def put(self, position: int, value: Any) -> None:
        if value is None:
            self.kinds[position] = _NULL
        elif isinstance(value, bool):
            self.kinds[position] = _TRUE if value else _FALSE
        elif isinstance(value, int | float):
            self.kinds[position] = _NUMBER
            self.numbers[position] = _as_float(value)
        elif isinstance(value, str):
            self.kinds[position] = _TEXT
            self.codes[position] = self.texts.setdefault(value, len(self.texts))
        else:
            self.kinds[position] = _OTHER

    def texts_where(self, test: Any, size: int) -> Mask:
        """Rows whose text passes a test; the test runs once for each distinct text."""
        return self.texts_in(np.fromiter((test(text) for text in self.texts), np.bool_, len(self.texts)), size)

    def texts_in(self, passed: Mask, size: int) -> Mask:
        """Rows whose text is one of those that `passed` admits, by their codes."""
        mask: Mask = self.kinds[:size] == _TEXT
        return mask & passed[self.codes[:size]] if len(passed) else np.zeros(size, np.bool_)


def _as_float(value: float) -> float:
    """Integers too long for a float stay beyond every literal that a filter may hold."""
    if isinstance(value, int) and abs(value) > MAX_INT:
        try:
            far = max(abs(float(value)), _BEYOND)
        except OverflowError:
            far = float("inf")
        return far if value > 0 else -far
    return float(value)


def _all(masks: list[Mask]) -> Mask:
    return cast("Mask", np.logical_and.reduce(masks))


def _any(masks: list[Mask]) -> Mask:
    return cast("Mask", np.logical_or.reduce(masks))


class ColumnCache:
    """Values of the attribute paths that filters have asked for."""

    def __init__(self) -> None:
        self._columns: dict[Path, _Column] = {}
        self._seen: dict[Path, int] = {}

    def clear(self) -> None:
        self._columns.clear()
        self._seen.clear()

    def missing(self, node: Filter, size: int) -> int | None:
        """The first position whose values are not here yet, None if all are."""
        start = min(self._seen.get(path, -1) for path in filter_paths(node))
        return max(0, start) if start < size else None

    def load(self, node: Filter, rows: Iterable[tuple[int, dict[str, Any]]], size: int) -> None:
        """Take in the rows from `missing` on; afterwards `size` positions are known."""
        paths = filter_paths(node)
        columns = {path: self._columns.setdefault(path, _Column()) for path in paths}
        for column in columns.values():
            column.grow(size)
        for position, attributes in rows:
            if position < size:
                for path, column in columns.items():
                    column.put(position, value_at(attributes, path))
        self._seen.update(dict.fromkeys(paths, size))

    def put(self, rows: Iterable[tuple[int, dict[str, Any]]]) -> None:
        """Take in new columns of positions that are here already."""
        for position, attributes in rows:
            for path, column in self._columns.items():
                if position < self._seen[path]:
                    column.put(position, value_at(attributes, path))

    def mask(self, node: Filter, size: int) -> Mask:
        """The positions below `size` that a filter admits; means what `embedkit.matching.matches` means."""
        if isinstance(node, And):
            return _all([self.mask(part, size) for part in node.parts])
        if isinstance(node, Or):
            return _any([self.mask(part, size) for part in node.parts])
        if isinstance(node, Not):
            return ~self.mask(node.part, size)
        column = self._columns[node.path]
        if isinstance(node, IsNull):
            return column.kinds[:size] == _NULL
        if isinstance(node, Like):
            return column.texts_where(lambda text: compile_like(node.pattern).fullmatch(text) is not None, size)
        if isinstance(node, In):
            return _among(column, node.values, size)
        return _compare(column, node, size)


def _equal(column: _Column, value: Value, size: int) -> Mask:
    if isinstance(value, bool):
        return column.kinds[:size] == (_TRUE if value else _FALSE)
    if isinstance(value, str):
        code = column.texts.get(value)
        if code is None:
            return np.zeros(size, np.bool_)
        return (column.kinds[:size] == _TEXT) & (column.codes[:size] == code)
    return (column.kinds[:size] == _NUMBER) & (column.numbers[:size] == float(value))


def _among(column: _Column, values: Sequence[Value], size: int) -> Mask:
    """Rows whose value is one of these, texts and numbers each by one pass however many there are."""
    masks = [_equal(column, value, size) for value in {value for value in values if isinstance(value, bool)}]
    codes = [column.texts[value] for value in values if isinstance(value, str) and value in column.texts]
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if codes:
        passed = np.zeros(len(column.texts), np.bool_)
        passed[codes] = True
        masks.append(column.texts_in(passed, size))
    if numbers:
        masks.append((column.kinds[:size] == _NUMBER) & np.isin(column.numbers[:size], numbers))
    return _any(masks) if masks else np.zeros(size, np.bool_)


def _compare(column: _Column, node: Compare, size: int) -> Mask:
    if node.op == "==":
        return _equal(column, node.value, size)
    if node.op == "!=":
        return (column.kinds[:size] != _NULL) & ~_equal(column, node.value, size)
    if isinstance(node.value, str):
        text = node.value
        tests = {
            "<": lambda t: t < text,
            "<=": lambda t: t <= text,
            ">": lambda t: t > text,
            ">=": lambda t: t >= text,
        }
        return column.texts_where(tests[node.op], size)
    compare = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}[node.op]
    return (column.kinds[:size] == _NUMBER) & compare(column.numbers[:size], float(node.value))
