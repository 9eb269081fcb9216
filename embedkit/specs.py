"""The text that names an encoder, a loss, a miner or a part of an index.

``name``, ``name:argument``, ``name:argument(option=value)``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from embedkit.errors import ConfigError

__all__ = ["SpecText", "parse_spec"]

_SPEC = re.compile(
    r"\s*(?P<name>[A-Za-z][\w.+-]*)\s*(?::\s*(?P<argument>[^()\s](?:[^()]*[^()\s])?))?\s*(?:\((?P<options>[^()]*)\))?\s*"
)
_EXAMPLES = {
    "encoder": "'effnet-lite0' or 'torchvision:resnet50(pooling=gem)'",
    "loss": "'npair' or 'margin(beta=1.2, alpha=0.2)'",
    "miner": "'semi-hard' or 'distance-weighted(cutoff=0.5)'",
    "index": "'flat', 'hnsw(m=32)' or 'ivf(nlist=auto) + pq(m=16) + refine(flat)'",
}


@dataclass(frozen=True, slots=True)
class SpecText:
    """A spec string taken apart. `text` is its canonical form; `kind` is what messages call it."""

    name: str
    argument: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    kind: str = "encoder"

    @property
    def text(self) -> str:
        inner = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return self.name + (f":{self.argument}" if self.argument else "") + (f"({inner})" if inner else "")

    def only(self, *known: str) -> SpecText:
        """Raise ConfigError unless every option is a known one."""
        for option in self.options:
            if option not in known:
                near = difflib.get_close_matches(option, known, n=2)
                hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"
                raise ConfigError(f"The {self.kind} {self.text!r} has no option {option!r}; {hint}")
        return self

    def choice(self, option: str, default: str, known: tuple[str, ...]) -> str:
        """An option out of a few. Raises ConfigError naming them."""
        value = self.options.get(option, default)
        if value not in known:
            raise self._bad(option, value, f"one of {', '.join(known)}")
        return value

    def whole_number(self, option: str, default: int, low: int, high: int) -> int:
        """A whole number within a range. Raises ConfigError."""
        value = self.options.get(option, str(default))
        if not value.isdecimal() or not low <= int(value) <= high:
            raise self._bad(option, value, f"a whole number of {low} to {high}")
        return int(value)

    def number(self, option: str, default: float, low: float, high: float) -> float:
        """A number within a range. Raises ConfigError.

        >>> parse_spec("margin(beta=1.1)", kind="loss").number("beta", 1.2, 0, 2)
        1.1
        """
        value = self.options.get(option, str(default))
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:  # which NaN is not either
            raise self._bad(option, value, f"a number of {low:g} to {high:g}")
        return number

    def _bad(self, option: str, value: str, wanted: str) -> ConfigError:
        return ConfigError(f"{option}={value} in the {self.kind} {self.text!r} is not {wanted}")


def parse_spec(text: str, *, kind: str = "encoder") -> SpecText:
    """Raises ConfigError when the text is no spec.

    >>> parse_spec("torchvision:resnet50(pooling=gem, size=224)").options
    {'pooling': 'gem', 'size': '224'}
    """
    match = _SPEC.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is no {kind}; write for example {_EXAMPLES[kind]}")
    options: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in (match["options"] or "").split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise ConfigError(f"{part!r} in the {kind} {text!r} is not option=value")
        if name in options:
            raise ConfigError(f"The option {name!r} occurs twice in the {kind} {text!r}")
        options[name] = value
    return SpecText(match["name"], match["argument"] or "", options, kind)
