"""What an answer shall be: how many hits, from where on, which are left out, and how parts are joined."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

import numpy as np

from embedkit.arguments import check_kind
from embedkit.errors import BadInput, UnknownName
from embedkit.filters import F, Filter, Path, as_filter
from embedkit.types import Hit

__all__ = ["Fusion", "Wanted", "checked_weights", "wanted", "whole"]

Fusion = Literal["weighted", "rrf"]

_FUSIONS = get_args(Fusion)
_PARTS = ("image", "keywords", "product", "sketch", "text", "vector")
_MIN_POOL = 100
_POOL = 10  # candidates per wanted hit that each part of a question hands in


@dataclass(frozen=True, slots=True)
class Wanted:
    """A checked wish; `wanted` makes it. `diversity` 0 leaves the order as it is."""

    k: int = 10
    offset: int = 0
    where: Filter | None = None
    group_by: Path | None = None
    diversity: float = 0.0
    min_score: float | None = None
    max_distance: float | None = None
    fusion: Fusion = "weighted"
    candidates: int | None = None

    @property
    def reach(self) -> int:
        """The place of the last hit that is asked for."""
        return self.offset + self.k

    @property
    def pool(self) -> int:
        """How many each part hands in where parts are joined, or hits chosen among many.

        It follows from `k` and not from `offset`: every page of an answer is cut from the same candidates.
        """
        return max(_MIN_POOL, _POOL * self.k) if self.candidates is None else self.candidates

    def admits(self, hit: Hit) -> bool:
        """Whether a hit is near enough."""
        return (self.min_score is None or hit.score >= self.min_score) and (
            self.max_distance is None or hit.distance <= self.max_distance
        )


def wanted(
    *,
    k: int,
    offset: int = 0,
    where: Filter | str | None = None,
    group_by: str | None = None,
    diversity: float | None = None,
    min_score: float | None = None,
    max_distance: float | None = None,
    fusion: str = "weighted",
    candidates: int | None = None,
) -> Wanted:
    """Check a wish. Raises BadInput, FilterError, UnknownName."""
    for name, value in (("diversity", diversity), ("min_score", min_score), ("max_distance", max_distance)):
        if value is None:
            continue
        check_kind(value, Real, f"{name} is a number")
        if not np.isfinite(value):
            raise BadInput(f"{name}={value} is not a number; give one, or leave it out")
    if diversity is not None and not 0 <= diversity <= 1:
        raise BadInput(f"diversity={diversity} is outside 0 (the nearest alone) to 1 (as unlike as can be)")
    if group_by is not None:
        check_kind(group_by, str, "group_by is an attribute such as 'seller'")
    if fusion not in _FUSIONS:
        raise UnknownName("fusion", str(fusion), _FUSIONS)
    return Wanted(
        whole("k", k, "hits"),
        whole("offset", offset, "hits to leave out", least=0),
        as_filter(where),
        F(group_by).path if group_by is not None else None,
        float(diversity or 0.0),
        min_score,
        max_distance,
        fusion,  # type: ignore[arg-type]  # it is one of them, as was checked
        None if candidates is None else whole("candidates", candidates, "products"),
    )


def whole(name: str, value: int, what: str, *, least: int = 1) -> int:
    """A number of `least` or more. Raises BadInput."""
    try:
        value = operator.index(value)  # NumPy's whole numbers too, which FAISS itself would refuse
    except TypeError:
        raise BadInput(f"{name}={value!r} is not a number of {what}; give {least} or more") from None
    if value < least:
        raise BadInput(f"{name}={value} is not a number of {what}; give {least} or more")
    return value


def checked_weights(weights: Mapping[str, float] | None, asked: Collection[str] = _PARTS) -> Mapping[str, float]:
    """The share of each part of a query, which is `asked` by these. Raises BadInput."""
    if weights is None:
        return {}
    check_kind(weights, Mapping, 'Weights are a mapping such as {"image": 0.7, "text": 0.3}')
    for name, value in weights.items():
        if name not in _PARTS:
            raise BadInput(f"There is no weight {name!r}; known: {', '.join(_PARTS)}")
        check_kind(value, Real, f"The weight {name!r} is a number of 0 or more")
        if not np.isfinite(value) or value < 0:
            raise BadInput(f"The weight {name}={value} is not a number of 0 or more")
        if asked and name not in asked:
            raise BadInput(
                f"The weight {name}={value} has nothing to weigh: {name} is not asked by, "
                f"only {', '.join(sorted(asked))}; ask by it too, or leave the weight out"
            )
    if asked and all(weights.get(name, 1) == 0 for name in asked):
        raise BadInput(f"The weight of all that is asked by is 0 ({', '.join(sorted(asked))}); give one of them more")
    return weights
