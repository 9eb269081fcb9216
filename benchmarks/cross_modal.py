"""Every loss of pictures and texts on emoji-captions with one recipe, budget and seed: a table and a bar chart.

The unseen half is judged: each caption of its 956 emoji searches all their 3,797 pictures, and has found something if
a drawing of its emoji, by whichever vendor, is among the first k. Chance is 0.01 at 10. Results are kept as they come,
and a second run goes on with what is missing; `--again` measures a row anew.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import tempfile
from pathlib import Path

from table_of_losses import Row, bars, budget_of, judged, markdown, measure, options_of, recipe_of, trained

LOSSES = ("clip", "siglip", "vse++", "vse++(warmup=200)", "instance", "instance(ranking=1)")
START = "(before training)"
REGRESSION = "(regression alone)"
SHOWN = {
    "t2i-recall@1": "t→i R@1",
    "t2i-recall@5": "t→i R@5",
    "t2i-recall@10": "t→i R@10",
    "t2i-median-rank": "t→i median rank",
    "i2t-recall@1": "i→t R@1",
    "i2t-recall@5": "i→t R@5",
    "i2t-recall@10": "i→t R@10",
    "i2t-median-rank": "i→t median rank",
}
DECIDES = "t2i-recall@10"


def measured(loss: str, options: argparse.Namespace, home: Path) -> Row:
    """Train and judge one loss, or judge the layers as they start, at random or by regression."""
    out = home / "run"
    shutil.rmtree(out, ignore_errors=True)
    if loss in (START, REGRESSION):
        still = ("--set", "rate=0", "--set", "head_rate=0", "--set", f"start={'ridge' if loss == REGRESSION else ''}")
        trained(out, options, "--loss", "clip", *still, budget=("--steps", "1"))
        run = {}
    else:
        found = trained(out, options, "--loss", loss)
        run = {key: found[key] for key in ("steps", "epochs", "seconds")}
    figures = judged(out, options, "--name", "emoji-captions")
    return {**{key: figures[key] for key in SHOWN}, **run}


def main() -> None:
    """Measure what is missing; write table, chart and figures."""
    parser = options_of(__doc__, name="cross_modal", recipe="emoji-captions", minutes=0.0)
    parser.add_argument("--losses", nargs="*", default=[START, REGRESSION, *LOSSES])
    options = parser.parse_args()
    recipe = recipe_of(options)
    if not (options.steps or options.minutes):
        options.steps = recipe.steps
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as home:
        rows = measure(options, options.losses, lambda loss: measured(loss, options, Path(home)))
    title = f"emoji-captions, {recipe.encoder} + {recipe.texts}, {recipe.dim}-d, {budget_of(options)}"
    shown = [{"steps": 0, **row} for row in rows]
    table = markdown(shown, {**SHOWN, "steps": "batches"}, by=DECIDES)
    text = f"# {title}\n\n`python benchmarks/cross_modal.py`, {platform.machine()}.\n\n"
    (options.out / f"{options.name}.md").write_text(text + table + "\n")
    path = options.out / f"{options.name}.png"
    bars(rows, title, path, by=DECIDES, label="Recall@10 of names that ask for emoji never seen")
    print(table)


if __name__ == "__main__":
    main()
