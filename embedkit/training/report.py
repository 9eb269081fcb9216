"""What a training tells while it runs and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

__all__ = ["EpochResult", "TrainingProgress", "TrainingProgressCallback", "TrainingReport"]


@dataclass(frozen=True, slots=True)
class EpochResult:
    """The end of an epoch. `value` of the figure `name` on the pictures that are shown, None if none are."""

    epoch: int
    step: int
    loss: float
    name: str
    value: float | None
    images_per_second: float


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """A moment of a training: batches in all and learned from, or seconds, if the budget is time.

    `failed`: pictures that could not be read. `epoch`: at the end of one.
    """

    total: int | None
    seen: int
    failed: int
    note: str = ""
    epoch: EpochResult | None = None


TrainingProgressCallback: TypeAlias = Callable[[TrainingProgress], None]


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """How a training ended.

    `start` and `end`: the figures on the test split before and after, empty if the recipe judges nothing; `primary`
    decides. `seconds` of training alone: no judging, no writing. `failures`: (path, reason) of pictures that could
    not be read; `failed` counts them. `stopped_early`: the figure that was watched no longer grew.
    """

    folder: str
    data: str
    loss: str
    steps: int
    epochs: float
    seconds: float
    images_per_second: float
    start: Mapping[str, float]
    end: Mapping[str, float]
    primary: str
    failed: int
    failures: tuple[tuple[str, str], ...] = ()
    stopped_early: bool = False
    plots: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        for name in ("start", "end"):
            values[name] = {key: round(value, 6) for key, value in values[name].items()}
        for name, digits in (("epochs", 3), ("seconds", 3), ("images_per_second", 2)):
            values[name] = round(values[name], digits)
        values["failures"] = [{"path": path, "error": error} for path, error in self.failures]
        values["plots"] = list(self.plots)
        return values
