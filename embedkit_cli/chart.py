"""Pages with recall against queries a second of several indexes: SVG, so that they ask nothing of a network."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from embedkit.errors import ConfigError
from embedkit_cli.render import size

if TYPE_CHECKING:
    from embedkit import AnnReport, AnnRow, IndexAdvice, SpecAdvice

__all__ = ["Spot", "front", "write_advice", "write_bench"]

_COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#e09f3e", "#7b4fa3", "#00838f", "#8d6e63", "#c2185b", "#5c6bc0", "#777")
_WIDTH, _HEIGHT = 860, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 100, 20, 20, 50
_MARKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 1.0)
_NEAREST = 5e-4  # of misses: fewer are drawn where recall is 1


@dataclass(frozen=True, slots=True)
class Spot:
    """A point of a curve, and the words that appear over it."""

    recall: float
    qps: float
    told: str


def front(points: Sequence[Spot]) -> list[Spot]:
    """The points that none beats in both recall and queries a second, by recall."""
    best: list[Spot] = []
    for point in sorted(points, key=lambda one: (-one.qps, -one.recall)):
        if not best or point.recall > best[-1].recall:
            best.append(point)
    return best


def write_advice(path: Path, advice: IndexAdvice, collection: str) -> None:
    """Write the page of measured advice. Raises ConfigError if it cannot be written."""
    drawn = [one for one in advice.specs if one.points]
    curves = [[_spot(one.spec, p.params, p.recall, p.qps) for p in one.points] for one in drawn]
    _write(
        path,
        title=f"Indexes for {collection!r}",
        told=f"{advice.measured:,} of {advice.n:,} vectors of {advice.dim} floats, {advice.queries:,} queries at once, "
        f"the {advice.k} nearest; wanted: recall {advice.recall:g}",
        body=_svg(curves, advice.recall)
        + _table(
            ["index", "search with", "memory", "recall", "queries/s", "at n", "built, s", "why"],
            [_advised(one) for one in drawn],
        ),
    )


def write_bench(path: Path, report: AnnReport) -> None:
    """Write the page of a benchmark: for each k a chart and a table. Raises ConfigError if it cannot be written."""
    rows = [row for row in report.rows if row.points]
    names = [row.spec if len(report.filled) == 1 else f"{row.spec}, {row.backend}" for row in rows]
    parts = []
    for k in sorted(report.ks, key=lambda k: (k != report.k, k)):
        curves = [
            [_spot(name, p.params, p.recalls[k], p.qps[k]) for p in row.points]
            for name, row in zip(names, rows, strict=True)
        ]
        cells = [_measured(name, row, report, k) for name, row in zip(names, rows, strict=True)]
        head = ["index", f"search with, for {report.recall:g}", f"recall@{k}", "queries/s"]
        head += ["p50, ms", "p99, ms"] if k == report.k else []
        parts += [
            f"<h2>The {k} nearest</h2>",
            _svg(curves, report.recall),
            _table([*head, "built, s", "memory"], cells),
        ]
    refused = [
        f"<li>{html.escape(f'{row.spec}, {row.backend}: {row.refused}')}</li>" for row in report.rows if row.refused
    ]
    parts += ["<h2>Not built</h2><ul>", *refused, "</ul>"] if refused else []
    filled = "; ".join(f"{url} took them in {seconds:,.1f} s" for url, seconds in report.filled.items())
    _write(
        path,
        title=f"Indexes on {report.name}",
        told=f"{report.vectors:,} vectors of {report.dim} numbers, {report.metric}, {report.queries:,} queries at "
        f"once; p50 and p99 of queries that ask alone. {filled}. {report.machine}.",
        body="".join(parts),
    )


def _write(path: Path, *, title: str, told: str, body: str) -> None:
    template = Template(files("embedkit_cli").joinpath("templates/chart.html").read_text(encoding="utf-8"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        page = template.substitute(title=html.escape(title), told=html.escape(told), body=body)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The page {str(path)!r} cannot be written: {error.strerror or error}") from error


def _spot(name: str, params: Mapping[str, int], recall: float, qps: float) -> Spot:
    return Spot(recall, qps, f"{name}: {_settings(params)}; recall {recall:.3f}, {qps:,.0f} queries/s")


def _colour(place: int) -> str:
    return _COLOURS[place % len(_COLOURS)]


def _dashes(place: int) -> str:
    """A second round of the colours is dashed, a third dotted."""
    return ("", ' stroke-dasharray="7 4"', ' stroke-dasharray="2 4"')[place // len(_COLOURS) % 3]


def _stretched(recall: float) -> float:
    """How far to the right a recall is drawn: as far from 0.9 to 0.99 as from 0 to 0.9, since misses count."""
    return -math.log10(max(1 - recall, _NEAREST))


def _svg(curves: Sequence[Sequence[Spot]], wanted: float) -> str:
    fronts = [front(points) for points in curves]
    every = [point for points in fronts for point in points]
    low = max(mark for mark in _MARKS[:-1] if mark <= min([wanted, *(p.recall for p in every)]))
    decades = [math.log10(point.qps) for point in every] or [0.0]
    bottom, top = math.floor(min(decades)), math.ceil(max(decades) + 1e-9)

    def place(recall: float, power: float) -> tuple[float, float]:
        share = (_stretched(recall) - _stretched(low)) / (_stretched(1.0) - _stretched(low))
        x = _LEFT + share * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - (power - bottom) / max(1, top - bottom) * (_HEIGHT - _TOP - _BOTTOM)
        return round(x, 1), round(y, 1)

    parts = []
    for recall in (mark for mark in _MARKS if mark >= low):
        x, y = place(recall, bottom)
        parts.append(f'<line class="grid" x1="{x}" y1="{_TOP}" x2="{x}" y2="{y}"/>')
        parts.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{recall:g}</text>')
    for power in range(bottom, top + 1):
        x, y = place(low, power)
        parts.append(f'<line class="grid" x1="{x}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}"/>')
        parts.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{10**power:,}</text>')
    x, y = place(wanted, bottom)
    parts.append(f'<line class="wanted" x1="{x}" y1="{_TOP}" x2="{x}" y2="{y}"/>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 8}" text-anchor="middle">recall</text>')
    parts.append(f'<text x="14" y="{_HEIGHT / 2}" transform="rotate(-90 14 {_HEIGHT / 2})">queries a second</text>')
    for number, points in enumerate(fronts):
        spots = [(point, *place(point.recall, math.log10(point.qps))) for point in points]
        line, colour = " ".join(f"{x},{y}" for _, x, y in spots), _colour(number)
        parts.append(f'<polyline fill="none" stroke="{colour}"{_dashes(number)} stroke-width="2" points="{line}"/>')
        parts += [
            f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"><title>{html.escape(point.told)}</title></circle>'
            for point, x, y in spots
        ]
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'


def _settings(params: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items()) or "exact"


def _advised(one: SpecAdvice) -> list[str]:
    why = f"no: {one.misses}" if one.misses else one.why
    figures = [f"{one.recall:.3f}", f"{one.qps:,.0f}", f"{one.qps_at_n:,.0f}", f"{one.build_seconds:.1f}"]
    return [one.spec, _settings(one.params), size(one.bytes), *figures, why]


def _measured(name: str, row: AnnRow, report: AnnReport, k: int) -> list[str]:
    """The cheapest setting that reaches the wanted recall, else the one with the highest."""
    best = row.cheapest(report.recall, k) or max(row.points, key=lambda point: point.recalls[k])
    alone = [f"{best.p50:.2f}", f"{best.p99:.2f}"] if k == report.k else []
    figures = [f"{best.recalls[k]:.3f}", f"{best.qps[k]:,.0f}", *alone, f"{row.build_seconds:.1f}"]
    return [name, _settings(best.params), *figures, size(row.bytes) if row.bytes is not None else "–"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A row for each curve, with its colour."""
    titles = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = [
        f'<tr><td><i style="{_mark(place)}"></i></td>{"".join(f"<td>{html.escape(cell)}</td>" for cell in row)}</tr>'
        for place, row in enumerate(rows)
    ]
    return f"<table><thead><tr><th></th>{titles}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _mark(place: int) -> str:
    style = ("solid", "dashed", "dotted")[place // len(_COLOURS) % 3]
    return f"border-top: 3px {style} {_colour(place)}"
