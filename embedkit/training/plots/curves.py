"""The course of a run: loss, learning rate and what the validations found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit.training.plots.figure import BLUE, COLOURS, GREY, INK, new_figure, save, say_nothing_there, tidy

if TYPE_CHECKING:
    Values: TypeAlias = npt.NDArray[np.float64]

__all__ = ["Course", "course_of", "draw_curves", "smoothed"]

_SHOWN = 6  # curves that are told apart
_WIDE = 40  # the smoothing reaches over a fortieth of the run
_OUTLIERS = 0.995  # the share of losses that are shown at their height


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """`steps`, `losses`, `rates`: (n,) of the training steps; `checks`: the steps of validations, `metrics` by name.

    A value that a line has not, or that is no number, is NaN. `epochs` and `seconds`: where the run ended.
    """

    steps: Values
    losses: Values
    rates: Values
    checks: Values
    metrics: Mapping[str, Values]
    epochs: float
    seconds: float


def course_of(history: Sequence[Mapping[str, Any]]) -> Course:
    """The lines of a history in the order of their steps. Of a step that a resumed run made again, the later counts."""
    lines = {(int(line["step"]), "metrics" in line): line for line in history}
    ordered = [lines[key] for key in sorted(lines)]
    steps = [line for line in ordered if "metrics" not in line]
    checks = [line for line in ordered if "metrics" in line]
    names = {name: None for line in checks for name in line["metrics"]}
    return Course(
        _column(steps, "step"),
        _column(steps, "loss"),
        _column(steps, "rate"),
        _column(checks, "step"),
        {name: _column([line["metrics"] for line in checks], name) for name in _worth_showing(list(names))},
        max((_number(line.get("epoch")) for line in ordered), default=0.0),
        max((_number(line.get("seconds")) for line in ordered), default=0.0),
    )


def _column(lines: Sequence[Mapping[str, Any]], name: str) -> Values:
    return np.array([_number(line.get(name), math.nan) for line in lines], np.float64)


def _number(value: Any, otherwise: float = 0.0) -> float:
    known = isinstance(value, (int, float)) and math.isfinite(value)
    return float(value) if known else otherwise


def _worth_showing(names: Sequence[str]) -> list[str]:
    """Recall@k by k; where a protocol has none, the first few of its figures."""
    recalls = [name for name in names if name.startswith("recall@") and name[7:].isdigit()]
    return sorted(recalls, key=lambda name: int(name[7:]))[:_SHOWN] or list(names)[:_SHOWN]


def smoothed(values: Values) -> Values:
    """The mean of the numbers around each place, over a fortieth of the run; what is no number is passed over."""
    reach = len(values) // (2 * _WIDE)
    known = np.isfinite(values)
    totals = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    places = np.arange(len(values))
    low, high = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    found = counts[high] - counts[low]
    return np.where(found > 0, (totals[high] - totals[low]) / np.maximum(found, 1), np.nan)


def draw_curves(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Loss above, learning rate in a strip below it, then the figures of the validations; all over steps."""
    course = course_of(history)
    figure = new_figure(9.6, 7.4)
    loss, rate, found = figure.subplots(3, 1, sharex=True, height_ratios=(3.2, 0.8, 3.2))
    _draw_loss(loss, course)
    _draw_rate(rate, course)
    _draw_found(found, course)
    found.set_xlabel(_length(course), fontsize=10, color="#4b5260")
    save(figure, path)


def _draw_loss(axes: Any, course: Course) -> None:
    finite = course.losses[np.isfinite(course.losses)]
    if not len(finite):
        tidy(axes, "Loss")
        say_nothing_there(axes, "no training step yet")
        return
    low, high = np.quantile(finite, (0.0, _OUTLIERS))
    mean = smoothed(np.minimum(course.losses, high))  # one step gone astray should not bend the curve
    tidy(axes, f"Loss: {mean[np.isfinite(mean)][-1]:.4g} at the end (smoothed)")
    few = len(finite) < 3  # a line of one point would be nothing
    axes.plot(course.steps, course.losses, color=BLUE, alpha=0.28, linewidth=0.7, marker="o" if few else None)
    axes.plot(course.steps, mean, color=BLUE, linewidth=1.9)
    if high > low:
        axes.set_ylim(low - 0.04 * (high - low), high + 0.06 * (high - low))


def _draw_rate(axes: Any, course: Course) -> None:
    tidy(axes)
    axes.set_ylabel("rate", fontsize=9, color="#4b5260")
    if np.isfinite(course.rates).any():
        axes.plot(course.steps, course.rates, color=GREY, linewidth=1.4, marker="o" if len(course.rates) < 3 else None)
        axes.fill_between(course.steps, 0, course.rates, color=GREY, alpha=0.12, linewidth=0)
        axes.set_ylim(0, max(1e-12, float(np.nanmax(course.rates)) * 1.12))
    axes.locator_params(axis="y", nbins=3)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.yaxis.get_offset_text().set(fontsize=8, color="#4b5260")


def _draw_found(axes: Any, course: Course) -> None:
    shown = {name: values for name, values in course.metrics.items() if np.isfinite(values).any()}
    if not shown:
        tidy(axes, "Validation")
        say_nothing_there(axes, "no validation yet")
        return
    for place, (name, values) in enumerate(shown.items()):
        colour = COLOURS[place]
        last = values[np.isfinite(values)][-1]
        width, size = (2.2, 5.0) if place == 0 else (1.4, 3.2)
        axes.plot(
            course.checks, values, color=colour, linewidth=width, marker="o", markersize=size,
            label=f"{_title(name)}  {last:.3f}",
        )  # fmt: skip
    first, values = next(iter(shown.items()))
    best = int(np.nanargmax(values))
    tidy(
        axes,
        f"Validation: {_title(first)} {_change(values)}, best {values[best]:.3f} at step {course.checks[best]:,.0f}",
    )
    if len(values) > 1 and np.isfinite(values[0]):
        axes.axhline(values[0], color=COLOURS[0], linewidth=0.9, linestyle=(0, (4, 4)), alpha=0.7)
    axes.plot(course.checks[best], values[best], marker="o", markersize=11, color=COLOURS[0], fillstyle="none")
    axes.legend(
        frameon=False, fontsize=9, labelcolor=INK, loc="upper left", bbox_to_anchor=(1.0, 1.02), reverse=len(shown) > 1
    )


def _change(values: Values) -> str:
    known = values[np.isfinite(values)]
    return f"{known[0]:.3f} → {known[-1]:.3f}" if len(known) > 1 else f"{known[0]:.3f}"


def _title(name: str) -> str:
    return name[:1].upper() + name[1:]


def _length(course: Course) -> str:
    if not course.seconds and not course.epochs:
        return "step"
    minutes = course.seconds / 60
    time = (
        f"{course.seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    )
    return f"step  ({course.epochs:,.1f} epochs in {time})"
