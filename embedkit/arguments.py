"""Arguments of the public face that are of a wrong kind: a sentence at once, and no TypeError from deep inside."""

from __future__ import annotations

from types import UnionType

from embedkit.errors import BadInput

__all__ = ["check_kind"]


def check_kind(value: object, kind: type | UnionType, meant: str) -> None:
    """Raise BadInput unless the value is of a kind. `meant`: what it should be, as the start of a sentence.

    >>> check_kind("p1", str, "A product's key is a text")
    """
    if not isinstance(value, kind):
        raise BadInput(f"{meant}, not {type(value).__name__}")
