"""Every loss of pictures and texts on emoji-captions with one recipe, budget and seed: a table and a bar chart.

Only names of the unseen half ask: each caption of those 956 emoji searches all their 3,797 pictures, and has found
something if a drawing of its emoji, by whichever vendor, is among the first k. Results are kept as they come, and a
second run goes on with what is missing; `--again` measures a row anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

from metric_learning import embedkit_command

import embedkit

LOSSES = ("clip", "siglip", "vse++", "vse++(warmup=200)", "instance", "instance(ranking=1)")
START = "(before training)"
SHOWN = {
    "t2i-recall@1": "t→i R@1",
    "t2i-recall@5": "R@5",
    "t2i-recall@10": "R@10",
    "t2i-median-rank": "median",
    "i2t-recall@1": "i→t R@1",
    "i2t-recall@5": "R@5",
    "i2t-recall@10": "R@10",
    "i2t-median-rank": "median",
}
DECIDES = "t2i-recall@10"


def measured(loss: str, options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Train and judge one loss, or judge the layers as they are before training."""
    out = home / "run"
    shutil.rmtree(out, ignore_errors=True)
    budget = ["--minutes", str(options.minutes)] if options.minutes else ["--steps", str(options.steps)]
    if loss == START:
        budget = ["--steps", "1", "--set", "rate=0", "--set", "head_rate=0"]
    settings = [part for text in options.set for part in ("--set", text)]
    threads = ("--threads", str(options.threads))
    trained = embedkit_command(
        *("train", "--recipe", options.recipe, "--data", options.data, "--out", str(out)),
        *("--loss", "clip" if loss == START else loss, "--seed", str(options.seed), "--no-plots", "--json"),
        *threads,
        *budget,
        *settings,
    )
    judged = embedkit_command(
        "evaluate", str(out), "--data", options.data, "--name", "emoji-captions", "--json", *threads
    )
    speed = {} if loss == START else {key: trained[key] for key in ("steps", "epochs", "seconds")}
    return {"loss": loss, **{key: judged[key] for key in SHOWN}, **speed}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, best first."""
    lines = [f"| loss | {' | '.join(SHOWN.values())} | batches |", "|---" * (len(SHOWN) + 2) + "|"]
    for row in sorted(rows, key=lambda one: -one[DECIDES]):
        figures = " | ".join(f"{row[name]:.{0 if 'rank' in name else 3}f}" for name in SHOWN)
        lines.append(f"| {row['loss']} | {figures} | {row.get('steps', 0):,} |")
    return "\n".join(lines)


def chart(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Bars of Recall@10 of words that ask for pictures."""
    from matplotlib.figure import Figure

    rows = sorted(rows, key=lambda one: one[DECIDES])
    figure = Figure(figsize=(8, 0.32 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([row["loss"] for row in rows], [row[DECIDES] for row in rows], color="#4c72b0")
    axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    axes.set(title=title, xlabel="Recall@10 of names that ask for emoji never seen", xlim=(0, 1))
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure what is missing; write table, chart and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="emoji-zs")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--name", default="cross_modal", help="of the files in --out")
    parser.add_argument("--recipe", default="emoji-captions")
    parser.add_argument("--minutes", type=float, default=0.0, help="instead of batches")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="of a training; 0 for one a core")
    parser.add_argument("--losses", nargs="*", default=[START, *LOSSES])
    parser.add_argument("--set", nargs="*", default=[], help="settings of the recipe, as in embedkit train --set")
    parser.add_argument("--again", action="store_true", help="measure rows that are there already")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / f"{options.name}.json"
    rows: dict[str, dict[str, Any]] = (
        {row["loss"]: row for row in json.loads(kept.read_text())} if kept.is_file() else {}
    )
    recipe = embedkit.read_recipe(options.recipe)
    budget = f"{options.minutes:g} min on {os.cpu_count()} cores" if options.minutes else f"{options.steps:,} batches"
    title = f"emoji-captions, {recipe.encoder} + {recipe.texts}, {recipe.dim}-d, {recipe.batch} a batch, {budget}"
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as home:
        for loss in options.losses:
            if loss in rows and not options.again:
                continue
            rows[loss] = measured(loss, options, Path(home))
            kept.write_text(json.dumps(list(rows.values()), indent=1) + "\n")
            print(f"{loss}: {rows[loss]}", flush=True)
    text = f"# {title}\n\n`python benchmarks/cross_modal.py`, {platform.machine()}. Chance: 0.01 at 10.\n\n"
    (options.out / f"{options.name}.md").write_text(text + table(list(rows.values())) + "\n")
    chart(list(rows.values()), title, options.out / f"{options.name}.png")
    print(table(list(rows.values())))


if __name__ == "__main__":
    main()
