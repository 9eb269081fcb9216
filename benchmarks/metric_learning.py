"""Every loss on emoji-zs with one and the same recipe, budget and seed: a table and a bar chart.

The budget is the clock of the training alone (data, steps, class vectors), or a number of batches, which other work on
the machine does not change; neither starting nor judging counts. Every loss is judged by the 3,797 pictures of emoji
that it has not seen. Results are kept as they come, and a second run goes on with what is missing; `--again` measures a
row anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import embedkit

LOSSES = (
    "npair",
    "margin",
    "batch-hard",
    "semi-hard",
    "nt-xent",
    "proxy-anchor",
    "multi-similarity",
    "supcon",
    "circle",
    "recall-at-k",
    "arcface",
    "soft-triple",
    "triplet",
    "contrastive",
    "lifted",
    "angular",
    "cosface",
    "sphereface",
    "subcentre-arcface",
    "deepid2",
    "daml(base=npair)",
    "batch-hard(margin=0.2)",
    "daml(base=triplet)",
    "daml(base=contrastive)",
    "daml(base=lifted)",
    "npair(kind=ovo)",
)
START = "(before training)"
SHOWN = ("recall@1", "recall@5", "recall@10", "map@r")


def embedkit_command(*arguments: str) -> dict[str, Any]:
    """Run the command line in a process of its own; what it prints as JSON."""
    code = "from embedkit_cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(loss: str, options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Train and judge one loss, or judge the network as it is before training."""
    out = home / "run"
    shutil.rmtree(out, ignore_errors=True)
    budget = ["--steps", str(options.steps)] if options.steps else ["--minutes", str(options.minutes)]
    if loss == START:
        budget = ["--steps", "1", "--set", "rate=0", "--set", "head_rate=0"]
    name = "nt-xent" if loss == START else loss
    settings = [part for text in options.set for part in ("--set", text)]
    trained = embedkit_command(
        *("train", "--recipe", options.recipe, "--data", options.data, "--loss", name, "--out", str(out)),
        *("--seed", str(options.seed), "--set", "validate=0", "--no-plots", "--json"),
        *("--threads", str(options.threads)),
        *budget,
        *settings,
    )
    judged = embedkit_command(
        *("evaluate", str(out), "--data", options.data, "--no-clusters", "--json", "--threads", str(options.threads))
    )
    speed = {} if loss == START else {key: trained[key] for key in ("steps", "epochs", "images_per_second", "seconds")}
    return {"loss": loss, **{key: judged[key] for key in SHOWN}, **speed}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, best first."""
    lines = ["| loss | R@1 | R@5 | R@10 | MAP@R | batches |", "|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda one: -one["recall@1"]):
        figures = " | ".join(f"{row[name]:.3f}" for name in SHOWN)
        lines.append(f"| {row['loss']} | {figures} | {row.get('steps', 0):,} |")
    return "\n".join(lines)


def chart(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Bars of Recall@1, and a line where the network was before training."""
    from matplotlib.figure import Figure

    start = next((row["recall@1"] for row in rows if row["loss"] == START), None)
    rows = sorted((row for row in rows if row["loss"] != START), key=lambda one: one["recall@1"])
    figure = Figure(figsize=(8, 0.32 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([row["loss"] for row in rows], [row["recall@1"] for row in rows], color="#4c72b0")
    axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    if start is not None:
        axes.axvline(start, color="#c44e52", linestyle="--", label=f"before training: {start:.3f}")
        axes.legend(loc="lower right")
    axes.set(title=title, xlabel="Recall@1 on emoji never seen", xlim=(0, 1))
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure what is missing; write table, chart and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="emoji-zs")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--name", default="metric_learning", help="of the files in --out")
    parser.add_argument("--recipe", default="emoji-npair")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=0, help="batches instead of minutes, for a machine that is busy")
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
    budget = f"{options.steps:,} batches" if options.steps else f"{options.minutes:g} min on {os.cpu_count()} cores"
    title = f"emoji-zs, {recipe.encoder}, {recipe.dim}-d, {recipe.batch} pictures a batch, {budget}"
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as home:
        for loss in options.losses:
            if loss in rows and not options.again:
                continue
            rows[loss] = measured(loss, options, Path(home))
            kept.write_text(json.dumps(list(rows.values()), indent=1) + "\n")
            print(f"{loss}: {rows[loss]}", flush=True)
    text = f"# {title}\n\n`python benchmarks/metric_learning.py`, {platform.machine()}.\n\n"
    (options.out / f"{options.name}.md").write_text(text + table(list(rows.values())) + "\n")
    chart(list(rows.values()), title, options.out / f"{options.name}.png")
    print(table(list(rows.values())))


if __name__ == "__main__":
    main()
