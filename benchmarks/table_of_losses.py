"""What the tables of losses on emoji-zs share: a command for each row, results kept as they come, table and chart."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import embedkit

Row = dict[str, Any]


def embedkit_command(*arguments: str) -> dict[str, Any]:
    """Run the command line in a process of its own; what it prints as JSON."""
    code = "from embedkit_cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def options_of(description: str | None, *, name: str, recipe: str, minutes: float) -> argparse.ArgumentParser:
    """The options that both tables have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="emoji-zs")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--name", default=name, help="of the files in --out")
    parser.add_argument("--recipe", default=recipe)
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--steps", type=int, default=0, help="batches instead of minutes, for a machine that is busy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="of a training; 0 for one a core")
    parser.add_argument("--set", nargs="*", default=[], help="settings of the recipe, as in embedkit train --set")
    parser.add_argument("--again", action="store_true", help="measure rows that are there already")
    return parser


def trained(out: Path, options: argparse.Namespace, *arguments: str, budget: Iterable[str] = ()) -> dict[str, Any]:
    """Train by the recipe; what `embedkit train` reports."""
    plain = ["--steps", str(options.steps)] if options.steps else ["--minutes", str(options.minutes)]
    settings = [part for text in options.set for part in ("--set", text)]
    return embedkit_command(
        *("train", "--recipe", options.recipe, "--data", options.data, "--out", str(out)),
        *("--seed", str(options.seed), "--set", "validate=0", "--no-plots", "--json"),
        *("--threads", str(options.threads)),
        *(budget or plain),
        *settings,
        *arguments,
    )


def judged(model: str | Path, options: argparse.Namespace, *arguments: str) -> dict[str, Any]:
    """What `embedkit evaluate` reports of the emoji that were not trained."""
    return embedkit_command(
        *("evaluate", str(model), "--data", options.data, "--no-clusters", "--json"),
        *("--threads", str(options.threads)),
        *arguments,
    )


def measure(options: argparse.Namespace, names: Iterable[str], measured: Callable[[str], Row]) -> list[Row]:
    """The rows there are, with those that were missing; each is written down as soon as it is known."""
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / f"{options.name}.json"
    rows: dict[str, Row] = {row["loss"]: row for row in json.loads(kept.read_text())} if kept.is_file() else {}
    for name in names:
        if name in rows and not options.again:
            continue
        rows[name] = {"loss": name, **measured(name)}
        kept.write_text(json.dumps(list(rows.values()), indent=1) + "\n")
        print(f"{name}: {rows[name]}", flush=True)
    return list(rows.values())


def recipe_of(options: argparse.Namespace) -> embedkit.TrainingRecipe:
    """The recipe with the settings that the command line changes."""
    return embedkit.read_recipe(options.recipe).changed(dict(text.split("=", 1) for text in options.set))


def budget_of(options: argparse.Namespace) -> str:
    """In words."""
    return f"{options.steps:,} batches" if options.steps else f"{options.minutes:g} min on {os.cpu_count()} cores"


def markdown(rows: list[Row], columns: dict[str, str], *, by: str) -> str:
    """A table of the columns (key: heading), best first; figures that a row lacks are left empty."""
    lines = [f"| loss | {' | '.join(columns.values())} |", "|---" * (len(columns) + 1) + "|"]
    best = sorted(rows, key=lambda one: -one[by])
    lines += [f"| {row['loss']} | {' | '.join(_cell(row.get(key)) for key in columns)} |" for row in best]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) and value <= 1 else f"{value:,.0f}"


def bars(rows: list[Row], title: str, path: Path, *, by: str, label: str, start: float | None = None) -> None:
    """Bars of a figure, and a line where the network was before training."""
    from matplotlib.figure import Figure

    rows = sorted(rows, key=lambda one: one[by])
    figure = Figure(figsize=(8, 0.32 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh([row["loss"] for row in rows], [row[by] for row in rows], color="#4c72b0")
    axes.bar_label(drawn, [f"{row[by]:.3f}" for row in rows], padding=3, fontsize=8)
    if start is not None:
        axes.axvline(start, color="#c44e52", linestyle="--", label=f"before training: {start:.3f}")
        axes.legend(loc="lower right")
    figure.suptitle(title, fontsize=10)
    axes.set(xlabel=label, xlim=(0, 1))
    axes.margins(y=0.01)
    figure.savefig(path, dpi=130)
