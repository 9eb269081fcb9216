"""Every loss on emoji-zs with one and the same recipe, budget and seed: a table and a bar chart.

The budget is the clock of the training alone (data, steps, class vectors), or a number of batches, which other work on
the machine does not change; neither starting nor judging counts. Every loss is judged by the 3,797 pictures of emoji
that it has not seen. Results are kept as they come, and a second run goes on with what is missing; `--again` measures a
row anew.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import tempfile
from pathlib import Path

from table_of_losses import Row, bars, budget_of, judged, markdown, measure, options_of, recipe_of, trained

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
SHOWN = {"recall@1": "R@1", "recall@5": "R@5", "recall@10": "R@10", "map@r": "MAP@R"}


def measured(loss: str, options: argparse.Namespace, home: Path) -> Row:
    """Train and judge one loss, or judge the network as it is before training."""
    out = home / "run"
    shutil.rmtree(out, ignore_errors=True)
    if loss == START:
        still = ("--set", "rate=0", "--set", "head_rate=0")
        trained(out, options, "--loss", "nt-xent", *still, budget=("--steps", "1"))
        run = {}
    else:
        found = trained(out, options, "--loss", loss)
        run = {key: found[key] for key in ("steps", "epochs", "images_per_second", "seconds")}
    figures = judged(out, options)
    return {**{key: figures[key] for key in SHOWN}, **run}


def main() -> None:
    """Measure what is missing; write table, chart and figures."""
    parser = options_of(__doc__, name="metric_learning", recipe="emoji-npair", minutes=4.0)
    parser.add_argument("--losses", nargs="*", default=[START, *LOSSES])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as home:
        rows = measure(options, options.losses, lambda loss: measured(loss, options, Path(home)))
    recipe = recipe_of(options)
    title = f"emoji-zs, {recipe.encoder}, {recipe.dim}-d, {recipe.batch} pictures a batch, {budget_of(options)}"
    shown = [{"steps": 0, **row} for row in rows]
    table = markdown(shown, {**SHOWN, "steps": "batches"}, by="recall@1")
    text = f"# {title}\n\n`python benchmarks/metric_learning.py`, {platform.machine()}.\n\n"
    (options.out / f"{options.name}.md").write_text(text + table + "\n")
    start = next((row["recall@1"] for row in rows if row["loss"] == START), None)
    others = [row for row in rows if row["loss"] != START]
    path = options.out / f"{options.name}.png"
    bars(others, title, path, by="recall@1", label="Recall@1 on emoji never seen", start=start)
    print(table)


if __name__ == "__main__":
    main()
