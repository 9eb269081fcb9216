r"""The portable filter: one small tree, a text form and a Python form.

Text form::

    price < 80 and brand in ['acme', 'zeta'] and not (sizes.eu is null)
    title like '%canvas%' or `odd name`.x == true

Python form::

    (F("price") < 80) & F("brand").isin(["acme", "zeta"]) & ~F("sizes", "eu").is_null()

Meaning, the same on every backend (two-valued, so that ``not`` is a plain complement):

* A comparison holds only if the attribute is present, is not null and has the literal's
  type. ``price < 80`` is false for a missing price and for the text ``"12"``.
* ``a != v`` means: present, not null, and not ``a == v``; so another type counts as different.
* Types are number, text and boolean; ``true`` is not ``1``. ``<``, ``<=``, ``>``, ``>=``
  compare numbers with numbers and texts with texts (by code point), never booleans.
* ``a in [..]`` is ``a == v`` for any of them. ``like``: ``%`` is any run of characters,
  ``_`` is any one, ``\\`` makes the next one plain; upper and lower case differ.
* ``a is null``: the attribute is missing, or null. ``is not null`` is its complement.
* ``key`` and ``title`` are the product's own; every other name is an attribute, and a
  dotted name reaches into nested objects.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from embedkit.errors import FilterError

__all__ = [
    "And",
    "Compare",
    "CompareOp",
    "F",
    "Filter",
    "In",
    "IsNull",
    "Like",
    "Not",
    "Or",
    "Path",
    "Value",
    "as_filter",
    "filter_paths",
    "like_to_regex",
    "parse_filter",
    "to_text",
]

Value: TypeAlias = str | int | float | bool
Path: TypeAlias = tuple[str, ...]
CompareOp = Literal["==", "!=", "<", "<=", ">", ">="]

MAX_DEPTH = 100
MAX_INT = 2**53  # integers beyond this lose digits in JSON readers, and in some backends


class _Logic:
    """Gives every node ``&``, ``|`` and ``~``. A chain of one of them is one node, as in the text form."""

    def __and__(self: Filter, other: Filter) -> Filter:  # type: ignore[misc]
        return And((*_parts(self, And), *_parts(other, And)))

    def __or__(self: Filter, other: Filter) -> Filter:  # type: ignore[misc]
        return Or((*_parts(self, Or), *_parts(other, Or)))

    def __invert__(self: Filter) -> Filter:  # type: ignore[misc]
        return Not(self)

    def __bool__(self) -> bool:
        raise TypeError("combine filters with & | ~ (with brackets around each part), not with and/or/not")


@dataclass(frozen=True)
class Compare(_Logic):
    """``path op value``."""

    path: Path
    op: CompareOp
    value: Value


@dataclass(frozen=True)
class In(_Logic):
    """``path in [values]``."""

    path: Path
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Like(_Logic):
    """``path like pattern``."""

    path: Path
    pattern: str


@dataclass(frozen=True)
class IsNull(_Logic):
    """``path is null``."""

    path: Path


@dataclass(frozen=True)
class And(_Logic):
    """All parts hold."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Or(_Logic):
    """At least one part holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Not(_Logic):
    """The part does not hold."""

    part: Filter


def _parts(node: Filter, kind: type[And | Or]) -> tuple[Filter, ...]:
    return node.parts if isinstance(node, kind) else (node,)


Filter: TypeAlias = Compare | In | Like | IsNull | And | Or | Not


class F:
    """A field of the Python form: ``F("price") < 80``, ``F("sizes", "eu").is_null()``.

    A single dotted name is split at its dots, as in the text form; pass the steps one
    by one for a name that holds a dot. Raises FilterError for what no filter can hold.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str, *steps: str) -> None:
        self.path: Path = tuple(name.split(".")) if isinstance(name, str) and not steps else (name, *steps)
        if not all(isinstance(step, str) and step for step in self.path):
            raise FilterError(f"{name!r} is not a field name")

    def _compare(self, op: CompareOp, value: object) -> Filter:
        return Compare(self.path, op, _checked(value, ordered=op not in ("==", "!=")))

    def __eq__(self, value: object) -> Filter:  # type: ignore[override]
        return self._compare("==", value)

    def __ne__(self, value: object) -> Filter:  # type: ignore[override]
        return self._compare("!=", value)

    def __lt__(self, value: object) -> Filter:
        return self._compare("<", value)

    def __le__(self, value: object) -> Filter:
        return self._compare("<=", value)

    def __gt__(self, value: object) -> Filter:
        return self._compare(">", value)

    def __ge__(self, value: object) -> Filter:
        return self._compare(">=", value)

    def isin(self, values: Iterable[Value]) -> Filter:
        if isinstance(values, str | bytes) or not isinstance(values, Iterable):
            raise FilterError(f"isin takes a list such as isin(['acme', 'zeta']), not {type(values).__name__}")
        return In(self.path, tuple(_checked(value) for value in values))

    def like(self, pattern: str) -> Filter:
        if not isinstance(pattern, str):
            raise FilterError(f"like takes a text such as like('red%'), not {type(pattern).__name__}")
        return Like(self.path, pattern)

    def is_null(self) -> Filter:
        return IsNull(self.path)


def _checked(value: object, *, ordered: bool = False) -> Value:
    if isinstance(value, bool):
        if ordered:
            raise FilterError("true and false have no order; use == or !=")
        return value
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_INT:
            raise FilterError(f"the number {value} is beyond ±2^53 and would lose digits; store such ids as text")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise FilterError(f"{value} cannot be compared with; use 'is null' for missing numbers")
        return value
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():  # a number of NumPy
        return _checked(item(), ordered=ordered)
    raise FilterError(f"a filter compares text, numbers and booleans, not {type(value).__name__}")


_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>-?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)(?![\w.])
    | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<op>==|!=|<=|>=|<>|<|>|=)
    | (?P<mark>[()\[\],.])
    | (?P<quoted>`[^`]+`)
    | (?P<word>[^\W\d]\w*)
    )""",
    re.VERBOSE | re.DOTALL,
)
_NO_PARTS = "an 'and' or 'or' needs at least one part"
_KEYWORDS = {"and", "or", "not", "in", "like", "is", "null", "true", "false", "none"}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    column: int


class _Parser:
    """Recursive descent: or_ > and_ > not_ > comparison."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._tokens())
        self.at = 0
        self.depth = 0

    def _tokens(self) -> Iterator[_Token]:
        position, end = 0, len(self.text.rstrip())
        while position < end:
            match = _TOKEN.match(self.text, position)
            if match is None:
                column = end - len(self.text[position:end].lstrip()) + 1
                found = self.text[column - 1]
                reason = (
                    "the text that starts here has no closing quote" if found in "'\"`" else f"unexpected {found!r}"
                )
                raise FilterError(reason, text=self.text, column=column)
            kind = str(match.lastgroup)
            token = match.group(kind)
            if kind == "word" and token.lower() in _KEYWORDS:
                kind, token = "keyword", token.lower()
            yield _Token(kind, token, match.start(str(match.lastgroup)) + 1)
            position = match.end()
        yield _Token("end", "", end + 1)

    def fail(self, reason: str, token: _Token | None = None) -> FilterError:
        token = token or self.tokens[self.at]
        return FilterError(reason, text=self.text, column=token.column)

    def peek(self, *texts: str) -> bool:
        token = self.tokens[self.at]
        return token.kind in ("keyword", "mark", "op") and token.text in texts

    def take(self) -> _Token:
        token = self.tokens[self.at]
        self.at += token.kind != "end"
        return token

    def accept(self, *texts: str) -> bool:
        if self.peek(*texts):
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            found = self.tokens[self.at].text
            raise self.fail(f"expected {text!r}" + (f", found {found!r}" if found else ", but the filter ends here"))

    def parse(self) -> Filter:
        if self.tokens[0].kind == "end":
            raise self.fail("it is empty")
        node = self.or_()
        if self.tokens[self.at].kind != "end":
            raise self.fail(f"expected 'and', 'or' or the end, found {self.tokens[self.at].text!r}")
        return node

    def or_(self) -> Filter:
        parts = [self.and_()]
        while self.accept("or"):
            parts.append(self.and_())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def and_(self) -> Filter:
        parts = [self.not_()]
        while self.accept("and"):
            parts.append(self.not_())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def not_(self) -> Filter:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.fail(f"it is nested more than {MAX_DEPTH} deep")
        try:
            if self.accept("not"):
                return Not(self.not_())
            if self.accept("("):
                node = self.or_()
                self.expect(")")
                return node
            return self.comparison()
        finally:
            self.depth -= 1

    def comparison(self) -> Filter:
        path = self.path()
        if self.accept("is"):
            negated = self.accept("not")
            if not self.accept("null", "none"):
                raise self.fail("expected 'null'")
            return Not(IsNull(path)) if negated else IsNull(path)
        if self.peek("not"):
            self.take()
            if not self.peek("in", "like"):
                raise self.fail("expected 'in' or 'like' after 'not'")
            return Not(self.membership(path))
        if self.peek("in", "like"):
            return self.membership(path)
        token = self.take()
        if token.kind != "op":
            raise self.fail(f"expected a comparison such as '==' or 'in' after {'.'.join(path)!r}", token)
        op: CompareOp = {"=": "==", "<>": "!="}.get(token.text, token.text)  # type: ignore[assignment]
        return Compare(path, op, self.value(ordered=op not in ("==", "!=")))

    def membership(self, path: Path) -> Filter:
        if self.take().text == "like":
            token = self.tokens[self.at]
            pattern = self.value()
            if not isinstance(pattern, str):
                raise self.fail("'like' needs a text in quotes", token)
            return Like(path, pattern)
        closing = ")" if self.accept("(") else "]"
        if closing == "]":
            self.expect("[")
        values: list[Value] = []
        while not self.peek(closing):
            values.append(self.value())
            if not self.accept(","):
                break
        self.expect(closing)
        return In(path, tuple(values))

    def path(self) -> Path:
        steps = [self.name()]
        while self.accept("."):
            steps.append(self.name())
        return tuple(steps)

    def name(self) -> str:
        token = self.take()
        if token.kind == "quoted":
            return token.text[1:-1]
        if token.kind != "word":
            found = f", found {token.text!r}" if token.text else ", but the filter ends here"
            raise self.fail(f"expected a field name{found}", token)
        return token.text

    def value(self, *, ordered: bool = False) -> Value:
        token = self.take()
        raw: object
        if token.kind == "text":
            raw = _ESCAPE.sub(lambda m: _ESCAPES.get(m[1], m[1] if m[1] in "'\"\\" else m[0]), token.text[1:-1])
        elif token.kind == "number":
            raw = float(token.text) if re.search(r"[.eE]", token.text) else int(token.text)
        elif token.text in ("true", "false"):
            raw = token.text == "true"
        elif token.text in ("null", "none"):
            raise self.fail("write 'is null' or 'is not null'", token)
        elif token.kind == "word":
            raise self.fail(f"expected a value; put the text {token.text} in quotes", token)
        else:
            found = f", found {token.text!r}" if token.text else ", but the filter ends here"
            raise self.fail(f"expected a value{found}", token)
        try:
            return _checked(raw, ordered=ordered)
        except FilterError as error:
            raise self.fail(error.reason, token) from None


@lru_cache(256)
def parse_filter(text: str) -> Filter:
    """Parse the text form.

    >>> parse_filter("price < 80 and brand in ['acme']")
    And(parts=(Compare(path=('price',), op='<', value=80), In(path=('brand',), values=('acme',))))

    Raises FilterError, whose `column` points at the first character that does not fit.
    """
    return _Parser(text).parse()


def as_filter(where: Filter | str | None) -> Filter | None:
    """Take either form; None means no filter. Raises FilterError."""
    if isinstance(where, str):
        return parse_filter(where)
    if isinstance(where, Filter):
        _check_tree(where)
    if where is None or isinstance(where, Filter):
        return where
    raise FilterError(f"it is a {type(where).__name__}; write a text such as \"price < 80\", or F('price') < 80")


def _check_tree(node: Filter) -> None:
    """Raise FilterError for a tree that no text gives: too deep, or with parts that are missing or no filters."""
    level: list[object] = [node]
    for _ in range(2 * MAX_DEPTH):  # in the text form a bracket may hold an 'or' of 'and's
        below: list[object] = []
        for one in level:
            if isinstance(one, And | Or):
                if not one.parts:
                    raise FilterError(_NO_PARTS)
                below.extend(one.parts)
            elif isinstance(one, Not):
                below.append(one.part)
            elif not isinstance(one, Filter):
                raise FilterError(
                    f"one of its parts is a {type(one).__name__}; join comparisons such as F('price') < 80"
                )
        if not below:
            return
        level = below
    raise FilterError(f"it is nested more than {2 * MAX_DEPTH} deep; join many values with isin, or parts in one Or")


def filter_paths(node: Filter) -> set[Path]:
    """Every attribute path that the filter reads."""
    if isinstance(node, And | Or):
        return {path for part in node.parts for path in filter_paths(part)}
    if isinstance(node, Not):
        return filter_paths(node.part)
    return {node.path}


def like_to_regex(pattern: str) -> str:
    """The regular expression, to be matched with `re.fullmatch` and `re.DOTALL`, of a `like` pattern.

    >>> like_to_regex("a%_")
    'a.*.'
    """
    out, escaped = [], False
    for char in pattern:
        if escaped or char not in "%_\\":
            out.append(re.escape(char))
            escaped = False
        elif char == "\\":
            escaped = True
        else:
            out.append(".*" if char == "%" else ".")
    return "".join(out) + (re.escape("\\") if escaped else "")


def to_text(node: Filter) -> str:
    """The canonical text form: ``parse_filter(to_text(f))`` means the same as ``f``."""
    if isinstance(node, And | Or):
        if not node.parts:
            raise FilterError(_NO_PARTS)
        word = " and " if isinstance(node, And) else " or "
        return word.join(f"({to_text(part)})" for part in node.parts)
    if isinstance(node, Not):
        return f"not ({to_text(node.part)})"
    name = ".".join(f"`{step}`" for step in node.path)
    if isinstance(node, Compare):
        return f"{name} {node.op} {_literal(node.value)}"
    if isinstance(node, In):
        return f"{name} in [{', '.join(map(_literal, node.values))}]"
    if isinstance(node, Like):
        return f"{name} like {_literal(node.pattern)}"
    return f"{name} is null"


def _literal(value: Value) -> str:
    if isinstance(value, str):
        body = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{body}'"
    return json.dumps(value)
