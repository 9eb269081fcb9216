"""What the spec of a text tower that learns may say, read without torch: ``gru(words=300, hidden=1024, least=4)``."""

from __future__ import annotations

from dataclasses import dataclass

from embedkit.specs import parse_spec

__all__ = ["GruOptions"]

_NAME = "gru"
_MOST = 8192


@dataclass(frozen=True, slots=True)
class GruOptions:
    """Numbers of a word's vector and of the GRU's state, and how often captions must say a word to know it.

    The first two are those of Faghri 2018, section 4; the third is that of the code beside the paper.
    """

    words: int = 300
    hidden: int = 1024
    least: int = 4

    @classmethod
    def of(cls, text: str) -> GruOptions | None:
        """None where a text names another encoder. Raises ConfigError for an option that cannot be.

        >>> GruOptions.of("gru(hidden=512)")
        GruOptions(words=300, hidden=512, least=4)
        """
        if text.partition("(")[0].strip() != _NAME:
            return None
        spec = parse_spec(text).only("words", "hidden", "least")
        return cls(
            spec.whole_number("words", cls().words, 1, _MOST),
            spec.whole_number("hidden", cls().hidden, 1, _MOST),
            spec.whole_number("least", cls().least, 1, 10**9),
        )
