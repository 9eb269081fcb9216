"""How binary codes find: precision over recall by Hamming radius, and precision over the first ranks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedkit.training.plots.figure import BLUE, INK, ORANGE, new_figure, save, tidy

if TYPE_CHECKING:
    from embedkit.training.evaluation.hashing import HashCurves

__all__ = ["draw_codes"]

_RADIUS = 2


def draw_codes(path: Path, curves: HashCurves) -> None:
    """Both curves side by side; of the first the point of Hamming radius 2 is marked."""
    figure = new_figure(11.0, 4.6)
    left, right = figure.subplots(1, 2)
    radius = min(_RADIUS, len(curves.recall) - 1)
    tidy(
        left, f"Within Hamming distance 2: precision {curves.precision[radius]:.3f}, recall {curves.recall[radius]:.3f}"
    )
    left.plot(curves.recall, curves.precision, color=BLUE, linewidth=1.9, marker="o", markersize=3)
    left.plot(curves.recall[radius], curves.precision[radius], marker="o", markersize=9, color=ORANGE)
    left.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    left.set_xlabel("recall, as the radius grows", fontsize=10, color=INK)
    left.set_ylabel("precision", fontsize=10, color=INK)
    ranks = np.arange(1, len(curves.precision_at) + 1)
    tidy(right, f"The nearest: precision {curves.precision_at[0]:.3f} at rank 1")
    right.plot(ranks, curves.precision_at, color=BLUE, linewidth=1.9, marker="o" if len(ranks) < 3 else None)
    right.set_xscale("log")
    right.set_ylim(-0.02, 1.02)
    right.set_xlabel("ranks that are looked at", fontsize=10, color=INK)
    save(figure, path)
