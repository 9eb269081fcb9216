"""A page with recall against queries a second of several indexes: SVG, so that it asks nothing of a network."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from embedkit.errors import ConfigError
from embedkit_cli.render import size

if TYPE_CHECKING:
    from embedkit import IndexAdvice, Point, SpecAdvice

__all__ = ["front", "write"]

_COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#e09f3e", "#7b4fa3", "#00838f", "#8d6e63", "#c2185b", "#5c6bc0", "#777")
_WIDTH, _HEIGHT = 860, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 100, 20, 20, 50


def front(points: Sequence[Point]) -> list[Point]:
    """The points that none beats in both recall and queries a second, by recall."""
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (-one.qps, -one.recall)):
        if not best or point.recall > best[-1].recall:
            best.append(point)
    return best


def write(path: Path, advice: IndexAdvice, collection: str) -> None:
    """Write the page. Raises ConfigError if it cannot be written."""
    drawn = [one for one in advice.specs if one.points]
    template = Template(files("embedkit_cli").joinpath("templates/chart.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=html.escape(f"Indexes for {collection!r}"),
        told=html.escape(
            f"{advice.measured:,} of {advice.n:,} vectors of {advice.dim} floats, {advice.queries:,} queries at once, "
            f"the {advice.k} nearest; wanted: recall {advice.recall:g}"
        ),
        chart=_svg(drawn, advice.recall),
        rows="\n".join(_row(one, _colour(place)) for place, one in enumerate(drawn)),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The page {str(path)!r} cannot be written: {error.strerror or error}") from error


def _colour(place: int) -> str:
    return _COLOURS[place % len(_COLOURS)]


def _svg(drawn: Sequence[SpecAdvice], wanted: float) -> str:
    every = [point for one in drawn for point in front(one.points)]
    low = max(0.0, math.floor(10 * min([wanted, *(p.recall for p in every)])) / 10)
    decades = [math.log10(point.qps) for point in every] or [0.0]
    bottom, top = math.floor(min(decades)), math.ceil(max(decades) + 1e-9)

    def place(recall: float, power: float) -> tuple[float, float]:
        x = _LEFT + (recall - low) / (1 - low or 1) * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - (power - bottom) / max(1, top - bottom) * (_HEIGHT - _TOP - _BOTTOM)
        return round(x, 1), round(y, 1)

    parts = []
    for step in range(11):
        recall = low + (1 - low) * step / 10
        x, y = place(recall, bottom)
        parts.append(f'<line class="grid" x1="{x}" y1="{_TOP}" x2="{x}" y2="{y}"/>')
        parts.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{recall:.2f}</text>')
    for power in range(bottom, top + 1):
        x, y = place(low, power)
        parts.append(f'<line class="grid" x1="{x}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}"/>')
        parts.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{10**power:,}</text>')
    x, y = place(wanted, bottom)
    parts.append(f'<line class="wanted" x1="{x}" y1="{_TOP}" x2="{x}" y2="{y}"/>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 8}" text-anchor="middle">recall</text>')
    parts.append(f'<text x="14" y="{_HEIGHT / 2}" transform="rotate(-90 14 {_HEIGHT / 2})">queries a second</text>')
    for number, one in enumerate(drawn):
        spots = [(point, *place(point.recall, math.log10(point.qps))) for point in front(one.points)]
        line = " ".join(f"{x},{y}" for _, x, y in spots)
        parts.append(f'<polyline fill="none" stroke="{_colour(number)}" stroke-width="2" points="{line}"/>')
        parts += [_spot(one, point, x, y, _colour(number)) for point, x, y in spots]
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'


def _spot(one: SpecAdvice, point: Point, x: float, y: float, colour: str) -> str:
    told = html.escape(f"{one.spec}: {_settings(point.params)}; recall {point.recall:.3f}, {point.qps:,.0f} queries/s")
    return f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"><title>{told}</title></circle>'


def _settings(params: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items()) or "exact"


def _row(one: SpecAdvice, colour: str) -> str:
    why = f"no: {one.misses}" if one.misses else one.why
    cells = [
        html.escape(one.spec),
        html.escape(_settings(one.params)),
        size(one.bytes),
        f"{one.recall:.3f}",
        f"{one.qps:,.0f}",
        f"{one.qps_at_n:,.0f}",
        f"{one.build_seconds:.1f}",
        html.escape(why),
    ]
    return f'<tr><td><i style="background:{colour}"></i></td>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
