"""``train`` and ``recipes``: an embedding space for one's own catalog."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedkit_cli import render
from embedkit_cli.options import AsJson, pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedkit import TrainingProgress, TrainingReport

__all__ = ["register"]

FAILED = 3
_SHOWN = (
    "t2i-recall@1",
    "t2i-recall@10",
    "i2t-recall@1",
    "i2t-recall@10",
    "recall@1",
    "recall@10",
    "map@r",
    "map@1000",
    "precision@h2",
    "nmi",
    "rank-1",
    "map",
    "accuracy",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(train)
    app.command()(recipes)


def recipes(json_only: AsJson = False) -> None:
    """List the training recipes that come along, and the figure of its paper that each aims at."""
    import embedkit

    found = [(name, embedkit.read_recipe(name)) for name in embedkit.list_recipes()]
    if json_only:
        render.as_json({"recipes": [{"name": name, **recipe.as_dict()} for name, recipe in found]})
        return
    render.table(
        ["recipe", "what it is", "data set", "loss", "aims at"],
        [(name, one.title, one.data_name, one.loss, one.figure) for name, one in found],
    )


def _option(help_text: str, metavar: str) -> Any:
    return typer.Option(help=help_text, metavar=metavar, show_default=False)


def train(
    out: Annotated[Path, typer.Option("--out", help="Folder of the run; it becomes a model folder.")],
    data: Annotated[str | None, _option("Folder of a data set, or a table with path and label.", "DATA")] = None,
    name: Annotated[str | None, _option("Which data set it is, if its files do not tell.", "NAME")] = None,
    recipe: Annotated[str | None, _option("Recipe to start from: a name (see recipes), or a file.", "RECIPE")] = None,
    task: Annotated[str | None, _option("metric-learning or image-text.", "TASK")] = None,
    encoder: Annotated[str | None, _option("Encoder to start from, such as effnet-lite0(size=96).", "SPEC")] = None,
    loss: Annotated[str | None, _option("Loss, such as npair or margin(beta=1.2).", "SPEC")] = None,
    miner: Annotated[str | None, _option("Miner, such as distance-weighted.", "SPEC")] = None,
    dim: Annotated[int | None, _option("Floats of a vector.", "N")] = None,
    bits: Annotated[int | None, _option("Bits of a binary code, instead of floats.", "N")] = None,
    batch: Annotated[int | None, _option("Pictures of a batch.", "N")] = None,
    per_class: Annotated[int | None, _option("Pictures of a class in a batch.", "N")] = None,
    minutes: Annotated[float | None, _option("Train so long, by the clock.", "N")] = None,
    epochs: Annotated[float | None, _option("Train so many epochs.", "N")] = None,
    steps: Annotated[int | None, _option("Train so many batches.", "N")] = None,
    rate: Annotated[float | None, _option("Learning rate of the network.", "RATE")] = None,
    head_rate: Annotated[float | None, _option("Learning rate of the embedding layer.", "RATE")] = None,
    precision: Annotated[str | None, _option("fp32, bf16 or fp16.", "KIND")] = None,
    seed: Annotated[int | None, _option("Of everything random.", "N")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting of a recipe.", metavar="NAME=VALUE")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the network by torch.compile.")] = False,
    wandb: Annotated[bool, typer.Option("--wandb", help="Log to Weights & Biases too.")] = False,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw curves, map, distances, mistakes.")] = True,
    checkpoint_seconds: Annotated[
        float, typer.Option("--checkpoint-seconds", min=0, help="Seconds between checkpoints.")
    ] = 60.0,
    threads: Annotated[int, typer.Option("--threads", min=0, help="Threads; 0 for one a core.")] = 0,
    json_only: AsJson = False,
) -> None:
    """Train an encoder on pictures with classes, or with captions, and judge it by what it has not seen.

    Ctrl-C stops after the batch; --resume goes on. Exit code 3: some pictures could not be read and were left out.
    """
    import embedkit

    given: dict[str, Any] = {
        "data": data,
        "data_name": name,
        "task": task,
        "encoder": encoder,
        "loss": loss,
        "miner": miner,
        "dim": dim,
        "bits": bits,
        "batch": batch,
        "per_class": per_class,
        "minutes": minutes,
        "epochs": epochs,
        "steps": steps,
        "rate": rate,
        "head_rate": head_rate,
        "precision": precision,
        "compile": True if compiled else None,
        "seed": seed,
        **pairs(settings, "--set", empty=True),
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if resume and (changes or recipe):
        raise typer.BadParameter("a run that goes on keeps its recipe; leave out every setting", param_hint="--resume")
    asked = None
    if not resume:
        asked = (embedkit.read_recipe(recipe) if recipe else embedkit.TrainingRecipe()).changed(changes)
    with render.progress_bar("train", quiet=json_only or os.environ.get("RANK", "0") != "0") as bar:
        report = embedkit.train_encoder(
            asked,
            out,
            resume=resume,
            plots=plots,
            wandb=wandb,
            checkpoint_seconds=checkpoint_seconds,
            threads=threads,
            progress=_with_epochs(bar),
        )
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes the first one speaks
    if json_only:
        render.as_json(report.as_dict())
    else:
        _figures(report)
    if report.failed:
        raise typer.Exit(FAILED)


def _with_epochs(bar: Callable[[Any], None] | None) -> Callable[[TrainingProgress], None] | None:
    """The bar, and a line after every epoch."""
    if bar is None:
        return None

    def show(now: TrainingProgress) -> None:
        if now.epoch is None:
            bar(now)
            return
        one = now.epoch
        figure = f", {one.name} {one.value:.3f}" if one.value is not None else ""
        render.note(
            f"epoch {one.epoch}, batch {one.step}: loss {one.loss:.4f}{figure}, {one.images_per_second:.0f} pictures/s"
        )

    return show


def _figures(report: TrainingReport) -> None:
    names = [name for name in report.end if name in _SHOWN or name == report.primary]
    rows = [
        (name, f"{report.start[name]:.3f}" if name in report.start else "", f"{report.end[name]:.3f}") for name in names
    ]
    if rows:
        render.table(["figure", "before", "after"], rows, title=f"{report.folder} on {report.data}")
    early = "; stopped early" if report.stopped_early else ""
    render.note(
        f"{report.steps:,} batches, {report.epochs:.1f} epochs, {report.seconds:.0f} s of training, "
        f"{report.images_per_second:.0f} pictures/s{early}"
    )
    if report.failed:
        path, reason = report.failures[0]
        render.note(f"Left out, unreadable: {render.counted(report.failed, 'picture')}; the first is {path}: {reason}")
    render.note(f"Use it with: embedkit ingest CATALOG --collection NAME --encoder image={report.folder}")
    if report.plots:
        render.note(f"Look at: {', '.join(report.plots)}")
