"""What a spec string says about codes that are made of floats: ``effnet-lite0(bits=64, hash=itq)``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from embedkit.encoders.codes import check_bits
from embedkit.encoders.projections import METHODS
from embedkit.errors import ConfigError
from embedkit.specs import SpecText, parse_spec

__all__ = ["Hashing", "hashing_of"]

_OPTIONS = re.compile(r"(?P<head>.*)\((?P<inner>[^()]*)\)\s*")


@dataclass(frozen=True, slots=True)
class Hashing:
    """`encoder`: the spec string of the float encoder; `bits` of its codes, and the `method` that makes them."""

    encoder: str
    bits: int
    method: str


def hashing_of(text: str) -> Hashing | None:
    """What the options ``bits`` and ``hash`` of a spec string, or behind the path of a model folder, ask for.

    Raises ConfigError for one without the other, or for a method or a number of bits that there is not.

    >>> hashing_of("effnet-lite0(size=96, bits=64, hash=itq)")
    Hashing(encoder='effnet-lite0(size=96)', bits=64, method='itq')
    """
    match = _OPTIONS.fullmatch(text)
    if match is None or not re.search(r"\b(bits|hash)\s*=", match["inner"]):
        return None
    options = dict(parse_spec(f"x({match['inner']})").options)
    if "bits" not in options or "hash" not in options:
        raise ConfigError(f"{text!r} needs both bits and hash, as in bits=64, hash=itq")
    asked = SpecText(match["head"].strip(), "", options)
    bits, method = asked.whole_number("bits", 0, 0, 10**6), asked.choice("hash", "", METHODS)
    rest = {name: value for name, value in options.items() if name not in ("bits", "hash")}
    return Hashing(SpecText(asked.name, "", rest).text, check_bits(bits), method)
