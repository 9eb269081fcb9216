"""Figures of matplotlib without its global state: a canvas of their own, and one look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedkit import plugins

__all__ = ["BLUE", "COLOURS", "GREY", "INK", "ORANGE", "font_file", "new_figure", "save", "say_nothing_there", "tidy"]

BLUE, ORANGE, GREY, INK = "#2563eb", "#ea7317", "#8a919c", "#20242b"
COLOURS = (BLUE, "#0d9488", "#7c3aed", "#db2777", "#ca8a04", "#475569")
_DPI = 120
_NEEDED_FOR = "Drawing the plots of a run"


def new_figure(width: float, height: float) -> Any:
    """An empty figure, in inches, with its own canvas."""
    figures = plugins.require("matplotlib.figure", "train", needed_for=_NEEDED_FOR)
    agg = plugins.require("matplotlib.backends.backend_agg", "train", needed_for=_NEEDED_FOR)
    figure = figures.Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
    agg.FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    return figure


def font_file(*, bold: bool = False) -> Path:
    """The font that matplotlib brings along, which knows most alphabets."""
    matplotlib = plugins.require("matplotlib", "train", needed_for=_NEEDED_FOR)
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVuSans{'-Bold' if bold else ''}.ttf"


def tidy(axes: Any, title: str = "", *, hide: Sequence[str] = ("top", "right")) -> None:
    """No frame, a light grid, a title at the left."""
    axes.spines[list(hide)].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c4c9d1")
    axes.tick_params(colors="#4b5260", labelsize=9, length=3)
    axes.grid(True, color="#eceef1", linewidth=0.8)
    axes.set_axisbelow(True)
    if title:
        axes.set_title(title, loc="left", fontsize=11.5, color=INK, pad=9, parse_math=False)


def say_nothing_there(axes: Any, text: str) -> None:
    """Words in the middle of axes that have nothing to show."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=11)


def save(figure: Any, path: Path) -> None:
    """As PNG; the same figure gives the same bytes."""
    figure.savefig(path, format="png", metadata={"Software": None})
