"""What an evaluator hands back: figures by name, and which of them decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Scores"]


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures of one evaluation, shares between 0 and 1 unless their name says otherwise.

    `primary`: the name of the figure that decides which of two models is better; `greater_is_better`: how.
    `queries`: how many took part; `unmatched`: those left out, since nothing in the gallery belongs to them.
    """

    values: Mapping[str, float]
    primary: str
    queries: int
    unmatched: int = 0
    greater_is_better: bool = True
