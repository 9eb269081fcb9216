"""How long a training goes on, and the learning rate on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

from embedkit.training.recipe import TrainingRecipe

__all__ = ["Budget", "rate_at"]


@dataclass(frozen=True, slots=True)
class Budget:
    """Batches, or seconds of training (data, steps; neither validation nor writing). One of the two is 0."""

    steps: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, recipe: TrainingRecipe, *, epoch: int) -> Budget:
        """`epoch`: the batches of one."""
        if recipe.minutes:
            return cls(seconds=60 * recipe.minutes)
        return cls(steps=recipe.steps or max(1, round(recipe.epochs * epoch)))

    def progress(self, steps: float, seconds: float) -> float:
        """The share that is used up, 0 to 1."""
        return min(1.0, steps / self.steps if self.steps else seconds / self.seconds)

    def learning(self, steps: float, seconds: float, *, prepared: float) -> float:
        """The share that is used up of what the first batch had before it; `prepared`: the seconds before that.

        >>> Budget(seconds=100).learning(1, 55.0, prepared=10.0)
        0.5
        """
        if self.steps:
            return self.progress(steps, seconds)
        return min(1.0, (seconds - prepared) / max(self.seconds - prepared, 1e-9))


def rate_at(progress: float, *, warmup: float) -> float:
    """What rates are multiplied by: a straight line up to 1, then half a cosine (Loshchilov & Hutter 2017, eq. 5).

    >>> [round(rate_at(p, warmup=0.5), 2) for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if progress < warmup:
        return progress / warmup
    if warmup >= 1:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
