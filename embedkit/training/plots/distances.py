"""How far apart pairs of the same class are, and pairs of two classes, and how much the two overlap."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.training.plots.figure import BLUE, INK, ORANGE, new_figure, save, say_nothing_there, tidy

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray

__all__ = ["Distances", "draw_distances", "pair_distances"]

_PAIRS = 100_000  # of a kind; from there on they are drawn
_BINS = 80
_CELLS = 2**24  # numbers that are held at once


@dataclass(frozen=True, slots=True, eq=False)
class Distances:
    """Euclidean distances, (p,) float32, of pairs of the same class and of two; how many pairs of each there are."""

    positive: FloatArray
    negative: FloatArray
    positives: int
    negatives: int

    @property
    def edges(self) -> FloatArray:
        """The borders of the bins, the same for both."""
        both = np.concatenate([self.positive, self.negative])
        low, high = (float(both.min()), float(both.max())) if len(both) else (0.0, 2.0)
        return np.linspace(low, max(high, low + 1e-3), _BINS + 1, dtype=np.float32)

    @property
    def overlap(self) -> float:
        """The area that both densities have in common, ∫ min(p, q), 0 to 1; NaN without pairs of both kinds."""
        if not len(self.positive) or not len(self.negative):
            return float("nan")
        edges = self.edges
        shares = [np.histogram(part, edges)[0] / len(part) for part in (self.positive, self.negative)]
        return float(np.minimum(*shares).sum())


def pair_distances(vectors: FloatArray, labels: IdArray, *, seed: int = 0, most: int = _PAIRS) -> Distances:
    """All pairs of each kind, or `most` drawn with equal chances where there are more; never an n × n matrix."""
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    sizes = [int(count) for count in counts]
    positives = sum(size * (size - 1) // 2 for size in sizes)
    pairs = len(labels) * (len(labels) - 1) // 2
    place = np.repeat(np.arange(len(counts)), counts)
    start, size = starts[place], counts[place]  # of the class of each row, in the order of classes
    random = np.random.default_rng(seed)
    if positives <= most:
        same = _all_within(starts, counts)
    else:
        first = _drawn(random, size - 1, most)
        other = random.integers(0, size[first] - 1)
        same = first, start[first] + other + (start[first] + other >= first)
    if pairs <= most:
        one, two = np.triu_indices(len(labels), 1)
        differ = place[one] != place[two]
        apart = one[differ], two[differ]
    elif pairs == positives:
        apart = np.empty(0, np.int64), np.empty(0, np.int64)
    else:
        first = _drawn(random, len(labels) - size, most)
        other = random.integers(0, len(labels) - size[first])
        apart = first, other + np.where(other >= start[first], size[first], 0)
    return Distances(
        _between(vectors, order[same[0]], order[same[1]]),
        _between(vectors, order[apart[0]], order[apart[1]]),
        positives,
        pairs - positives,
    )


def _all_within(starts: IdArray, counts: IdArray) -> tuple[IdArray, IdArray]:
    """Every pair of two rows of one class."""
    ones, twos = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start, count in zip(starts, counts, strict=True):
        one, two = np.triu_indices(count, 1)
        ones.append(start + one)
        twos.append(start + two)
    return np.concatenate(ones), np.concatenate(twos)


def _drawn(random: np.random.Generator, weights: IdArray, count: int) -> IdArray:
    """Rows, each as often as it has partners."""
    upto = np.cumsum(weights)
    return np.searchsorted(upto, random.integers(0, upto[-1], count), side="right").astype(np.int64)


def _between(vectors: FloatArray, first: IdArray, second: IdArray) -> FloatArray:
    found = np.empty(len(first), np.float32)
    step = max(1, _CELLS // max(1, vectors.shape[1]))
    for at in range(0, len(first), step):
        found[at : at + step] = np.linalg.norm(vectors[first[at : at + step]] - vectors[second[at : at + step]], axis=1)
    return found


def draw_distances(path: Path, vectors: FloatArray, labels: IdArray, *, seed: int = 0) -> None:
    """The two densities over each other."""
    found = pair_distances(vectors, labels, seed=seed)
    figure = new_figure(9.6, 4.8)
    axes = figure.subplots()
    if np.isnan(found.overlap):
        title = "Distances of pairs"
    else:
        title = f"Distances of pairs: {found.overlap:.1%} of the two densities overlap"
    tidy(axes, title, hide=("top", "right", "left"))
    axes.set_yticks([])
    axes.set_xlabel("Euclidean distance of vectors of length 1", fontsize=10, color="#4b5260")
    if not len(found.positive) and not len(found.negative):
        say_nothing_there(axes, "no two pictures")
    for values, count, words, colour in (
        (found.negative, found.negatives, "two classes", ORANGE),
        (found.positive, found.positives, "same class", BLUE),
    ):
        if len(values):
            _draw_kind(axes, values, found.edges, colour, _label(words, len(values), count, float(np.median(values))))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9.5, labelcolor=INK, loc="upper left", reverse=True)
        axes.margins(x=0.02)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
    save(figure, path)


def _draw_kind(axes: Any, values: FloatArray, edges: FloatArray, colour: str, label: str) -> None:
    density, _ = np.histogram(values, edges, density=True)
    axes.stairs(density, edges, fill=True, color=colour, alpha=0.32, label=label)
    axes.stairs(density, edges, color=colour, linewidth=1.5)
    axes.axvline(float(np.median(values)), color=colour, linewidth=1.1, linestyle=(0, (4, 3)), ymax=0.8)


def _label(words: str, shown: int, count: int, median: float) -> str:
    pairs = f"{count:,} pairs" if shown == count else f"{shown:,} drawn of {count:,} pairs"
    return f"{words}: {pairs}, median {median:.3f}"
