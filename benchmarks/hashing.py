"""Every loss of binary codes at 16, 32 and 64 bits on emoji-zs, with one recipe, budget and seed: a table and a chart.

Judged by the 3,797 pictures of emoji that it has not seen, by Hamming distance. Beside the losses stand codes without
training (random directions and ITQ of the network's own floats), and floats of as many dimensions as bits that were
trained for the same budget. All are judged as their loss leaves them; "finished" is the same run with its last layer
set at the discriminants of its classes (``finish = "lda"``); "asked by numbers" are the same codes, whose nearest 100
are put in order by what the question's bits are the signs of (``rerank="code"``): no more is stored than bits. The
last rows of each length are searches in two stages: the best finished codes scan, and those floats, finished too, put
the nearest 100 in order; or, with one network, the floats that the codes themselves are made of (``floats:``). Results
are kept as they come; a second run goes on with what is missing.
"""

from __future__ import annotations

import argparse
import csv
import platform
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from table_of_losses import (
    Row,
    budget_of,
    embedkit_command,
    judged,
    markdown,
    measure,
    options_of,
    recipe_of,
    trained,
)

from embedkit.encoders.load import FLOATS as FLOAT_PREFIX
from embedkit.encoders.load import load_encoder
from embedkit.training.datasets.open import open_dataset
from embedkit.training.evaluation.encode import encode_split

LOSSES = (
    "hashnet",
    "dch",
    "dsh",
    "dpsh",
    "dnnh",
    "csq",
    "dpn",
    "orthohash",
    "cnnh",
    "dlbhc",
    "greedyhash",
    "subic",
    "nt-xent",
)
LSH, ITQ, FLOATS = "(untrained, lsh)", "(untrained, itq)", "(floats, nt-xent)"
TWO_STAGES, ONE_NETWORK, CANDIDATES = "(two stages)", "(two stages, one network)", 100
FIGURES = {
    "map@1000": "mAP@1000",
    "recall@1": "R@1",
    "finished": "R@1, finished",
    "numbers": "R@1, finished, asked by numbers",
    "recall@10": "R@10",
    "precision@h2": "P@H≤2",
    "map@r": "MAP@R",
    "steps": "batches",
}


def measured(name: str, options: argparse.Namespace, home: Path) -> Row:
    """One row: a loss, or one of the rows beside them, at so many bits."""
    loss, _, bits = name.rpartition(" ")
    out = home / name
    shutil.rmtree(out, ignore_errors=True)
    run: Row = {}
    if loss in (LSH, ITQ):
        _exported(out, options, home, bits=int(bits), method="lsh" if loss == LSH else "itq")
    else:
        shape = ("--bits", "0", "--dim", bits) if loss == FLOATS else ("--bits", bits)
        given = ("--loss", "nt-xent" if loss == FLOATS else loss, *shape)
        found = trained(out, options, *given, "--set", "finish=")
        run = {"steps": found["steps"], "seconds": found["seconds"]}
        finished(out, options, home / _finished(name), *given)
        run["finished"] = judged(home / _finished(name), options)["recall@1"]
        if loss != FLOATS:
            run["numbers"] = asked_by_numbers(home / _finished(name), options)
    figures = judged(out, options)
    return {"bits": int(bits), **{key: figures[key] for key in FIGURES if key in figures}, **run}


def _finished(name: str) -> str:
    return f"{name}, finished"


def finished(run: Path, options: argparse.Namespace, out: Path, *given: str) -> None:
    """The model of a run with a finish and nothing else: one batch at a rate of 0."""
    shutil.rmtree(out, ignore_errors=True)
    still = [f"encoder={run}", "start=", "rate=0", "head_rate=0", "frozen=1", "finish=lda"]
    settings = [part for text in still for part in ("--set", text)]
    trained(out, options, *given, *settings, budget=("--steps", "1"))


def _exported(out: Path, options: argparse.Namespace, home: Path, *, bits: int, method: str) -> None:
    """The recipe's encoder with codes made of its floats, fitted to the pictures that training sees."""
    encoder = recipe_of(options).encoder
    head, _, inner = encoder.rstrip(")").partition("(")
    spec = f"{head}({inner + ', ' if inner else ''}bits={bits}, hash={method})"
    table = home / "train.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["key", "image"])
        paths = open_dataset(options.data).train.paths
        rows.writerows((str(number), str(Path(path).resolve())) for number, path in enumerate(paths))
    embedkit_command("export", spec, str(out), "--fit", str(table), "--json")


def in_two_stages(best: str, options: argparse.Namespace, home: Path, name: str) -> Row:
    """The nearest 100 by the codes of the run `best`, in the order of floats: trained beside it, or its own."""
    loss, _, bits = name.rpartition(" ")
    own = f"{FLOAT_PREFIX}{home / best}"
    floats = _vectors(own if loss == ONE_NETWORK else str(home / _finished(f"{FLOATS} {bits}")), options)
    codes = _vectors(str(home / best), options)
    first, tenth = _in_order(codes, floats, floats, options)
    return {"bits": int(bits), "by": best, "recall@1": first, "recall@10": tenth}


def asked_by_numbers(run: Path, options: argparse.Namespace) -> float:
    """R@1 of codes whose nearest 100 are put in order by the question's numbers."""
    numbers = _vectors(str(run), options, numbers=True)
    codes = np.where(numbers > 0, np.float32(1), np.float32(-1))
    return _in_order(codes, codes, numbers, options)[0]


def _in_order(
    codes: np.ndarray, stored: np.ndarray, asking: np.ndarray, options: argparse.Namespace
) -> tuple[float, float]:
    """R@1 and R@10 of the nearest 100 by `codes`, put in order by the products of `asking` with what is `stored`."""
    labels = open_dataset(options.data).query.labels
    first, tenth = [], []
    for row in range(len(codes)):
        near = codes @ codes[row]
        near[row] = -np.inf
        found = np.argsort(-near, kind="stable")[:CANDIDATES]
        found = found[np.argsort(-(stored[found] @ asking[row]), kind="stable")]
        right = labels[found] == labels[row]
        first.append(right[0])
        tenth.append(right[:10].any())
    return float(np.mean(first)), float(np.mean(tenth))


def _vectors(spec: str, options: argparse.Namespace, *, numbers: bool = False) -> np.ndarray:
    encoder = load_encoder(spec)
    try:
        split = open_dataset(options.data).query
        return encode_split(encoder, split, threads=options.threads, numbers=numbers).vectors
    finally:
        encoder.close()


def chart(rows: list[Row], title: str, path: Path) -> None:
    """A panel for each length, the losses in one order: bars of codes as they leave them, marks of what is added."""
    from matplotlib.figure import Figure

    lengths = sorted({row["bits"] for row in rows}, reverse=True)
    of = {(_loss_of(row), row["bits"]): row for row in rows}
    best = {loss: max(_reached(of[at]) for at in of if at[0] == loss) for loss, _ in of}
    order = sorted(best, key=lambda loss: best[loss])
    figure = Figure(figsize=(4 * len(lengths), 0.3 * len(order) + 1.6), layout="constrained")
    panels = figure.subplots(1, len(lengths), sharex=True, sharey=True, squeeze=False)[0]
    for axes, bits in zip(panels, lengths, strict=True):
        shown = [(place, of[loss, bits]) for place, loss in enumerate(order) if (loss, bits) in of]
        axes.barh(
            [place for place, _ in shown],
            [row["recall@1"] for _, row in shown],
            color="#a9bede",
            label="as the loss leaves it",
        )
        for key, mark, label in (("finished", "D", "with a finish"), ("numbers", "o", "and asked by numbers")):
            found = [(row[key], place) for place, row in shown if key in row]
            axes.plot([reached for reached, _ in found], [place for _, place in found], mark, markersize=4, label=label)
        for place, row in shown:
            axes.text(_reached(row) + 0.015, place, f"{_reached(row):.3f}", va="center", fontsize=8)
        axes.set(title=f"{bits} bits", xlim=(0, 0.75), yticks=range(len(order)), yticklabels=order)
        axes.margins(y=0.01)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle(f"{title}\nRecall@1 on emoji never seen; the number is the best of its row", fontsize=10)
    figure.savefig(path, dpi=130)


def _loss_of(row: Row) -> str:
    return str(row["loss"]).rpartition(" ")[0]


def _reached(row: Row) -> float:
    return max(float(row.get(key, 0.0)) for key in ("recall@1", "finished", "numbers"))


def main() -> None:
    """Measure what is missing; write table, chart and figures."""
    parser = options_of(__doc__, name="hashing", recipe="emoji-hashnet", minutes=2.0)
    parser.add_argument("--bits", nargs="*", type=int, default=[64, 32, 16])
    parser.add_argument("--losses", nargs="*", default=[LSH, ITQ, FLOATS, *LOSSES])
    parser.add_argument("--runs", type=Path, help="keep the run folders there; else they go when it ends")
    options = parser.parse_args()
    names = [f"{loss} {bits}" for bits in options.bits for loss in options.losses]
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as temporary:
        home = options.runs or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        rows = measure(options, names, lambda name: measured(name, options, home))
        for bits in options.bits:
            codes = [row for row in rows if row["bits"] == bits and not row["loss"].startswith("(")]
            best = _finished(max(codes, key=lambda row: row.get("finished", 0.0))["loss"]) if codes else ""
            if not (best and (home / best).is_dir()):
                continue
            ways = [ONE_NETWORK, *([TWO_STAGES] if (home / _finished(f"{FLOATS} {bits}")).is_dir() else [])]
            rows = measure(options, [f"{way} {bits}" for way in ways], partial(in_two_stages, best, options, home))
    recipe = recipe_of(options)
    title = f"Codes on emoji-zs, {recipe.encoder}, {recipe.batch} pictures a batch, {budget_of(options)}"
    text = f"# {title}\n\n`python benchmarks/hashing.py`, {platform.machine()}. Floats have as many numbers as bits.\n"
    tables = []
    for bits in sorted({row["bits"] for row in rows}, reverse=True):
        part = [row for row in rows if row["bits"] == bits]
        tables.append(f"\n## {bits} bits\n\n{markdown(part, FIGURES, by='recall@1')}\n")
    (options.out / f"{options.name}.md").write_text(text + "".join(tables))
    chart(rows, title, options.out / f"{options.name}.png")
    print(text + "".join(tables))


if __name__ == "__main__":
    main()
