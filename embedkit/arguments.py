"""Arguments of the public face that are of a wrong kind: a sentence at once, and no TypeError from deep inside."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType

from embedkit.errors import BadInput

__all__ = ["check_kind", "check_texts"]


def check_kind(value: object, kind: type | UnionType, meant: str) -> None:
    """Raise BadInput unless the value is of a kind. `meant`: what it should be, as the start of a sentence.

    >>> check_kind("p1", str, "A product's key is a text")
    """
    if not isinstance(value, kind):
        raise BadInput(f"{meant}, not {type(value).__name__}")


def check_texts(value: object, meant: str) -> None:
    """Raise BadInput unless the value is a mapping of texts to texts, or None. `meant`: as in `check_kind`.

    >>> check_texts({"image": "effnet-lite0"}, "encoder is a mapping of views to encoders")
    """
    check_kind(value, Mapping | None, meant)
    for name, text in value.items() if isinstance(value, Mapping) else ():
        if not (isinstance(name, str) and isinstance(text, str)):
            raise BadInput(f"{meant}, not {{{name!r}: {text!r}}}")
