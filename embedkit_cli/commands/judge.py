"""``datasets`` and ``evaluate``: what an encoder is judged by, and how good it is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedkit_cli import render
from embedkit_cli.options import AsJson

if TYPE_CHECKING:
    from embedkit import DataSetCheck, EvaluationReport

__all__ = ["register"]

FAILED = 3
Name = Annotated[
    str | None,
    typer.Option("--name", help="Which data set it is, if its files do not tell.", metavar="NAME", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="List the data sets that are known, or check one.", no_args_is_help=True)
    group.command("list")(list_all)
    group.command()(check)
    app.add_typer(group, name="datasets")
    app.command()(evaluate)


def list_all(json_only: AsJson = False) -> None:
    """List the data sets that are read with their official splits, and where their owners publish them."""
    import embedkit

    every = embedkit.list_datasets()
    if json_only:
        names = ("name", "summary", "protocol", "owner", "obtain", "needs", "official")
        render.as_json({"datasets": [{name: asdict(one)[name] for name in names} for one in every]})
        return
    render.table(
        ["data set", "what it is", "protocol", "published at"],
        [(one.name, one.summary, one.protocol, one.owner or "your own") for one in every],
    )


def check(
    path: Annotated[str, typer.Argument(help="Folder of the data set, or a table.")],
    name: Name = None,
    json_only: AsJson = False,
) -> None:
    """Show what of a data set is there, against the official numbers, and what is missing. Downloads nothing.

    Exit code 1 if it is not whole.
    """
    import embedkit

    found = embedkit.check_dataset(path, name=name)
    if json_only:
        render.as_json(found.as_dict())
    else:
        _show(found)
    if not found.complete:
        raise typer.Exit(1)


def _show(found: DataSetCheck) -> None:
    render.fields([("data set", found.name), ("folder", found.root), ("protocol", found.protocol)])
    if found.splits:
        rows = [
            (s.name, f"{s.images:,}", _official(s.official_images), f"{s.classes:,}", _official(s.official_classes))
            for s in found.splits
        ]
        render.table(["split", "pictures", "officially", "classes", "officially"], rows)
    if captions := [f"{split.captions:,} in {split.name}" for split in found.splits if split.captions]:
        render.note(f"captions: {', '.join(captions)}")
    if found.without_caption:
        render.note(f"left out for want of a caption: {render.counted(found.without_caption, 'picture')}")
    for absent in found.absent:
        render.note(f"missing: {absent.replace('|', ' or ')}")
    if found.missing:
        first = "".join(f"\n  {path}" for path in found.missing_first)
        render.note(f"missing: {found.missing:,} pictures that its lists name; the first are{first}")
    for problem in found.problems:
        render.note(f"problem: {problem}")
    if found.complete:
        render.note("It is whole.")
    elif found.owner:
        render.note(f"Its owners publish it at {found.owner}" + (f"\n{found.obtain}" if found.obtain else ""))


def _official(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def evaluate(
    model: Annotated[str, typer.Argument(help="Encoder, such as effnet-lite0, or a model folder.")],
    data: Annotated[
        str, typer.Option("--data", help="Folder of a data set, or a table with path and label.", metavar="DATA")
    ],
    name: Name = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=2, help="Take about so many queries, for a quick look.", show_default=False),
    ] = None,
    clusters: Annotated[bool, typer.Option("--clusters/--no-clusters", help="NMI and F1 of k-means too.")] = True,
    curves: Annotated[
        Path | None,
        typer.Option("--curves", help="Draw precision and recall of binary codes.", metavar="PNG", show_default=False),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=0, help="Threads; 0 for one a core.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of k-means and of random galleries.")] = 0,
    json_only: AsJson = False,
) -> None:
    """Judge an encoder by the test split and the protocol of a data set.

    Exit code 3: some pictures could not be read and were left out.
    """
    import embedkit

    with render.progress_bar("evaluate", quiet=json_only) as progress:
        report = embedkit.evaluate_encoder(
            model,
            data,
            name=name,
            limit=limit,
            clusters=clusters,
            curves=curves,
            threads=threads,
            seed=seed,
            progress=progress,
        )
    if json_only:
        render.as_json(report.as_dict())
    else:
        _figures(report)
    if report.failed:
        raise typer.Exit(FAILED)


def _figures(report: EvaluationReport) -> None:
    title = f"{report.model} on {report.data} ({report.protocol})"
    rows = [(f"{name} *" if name == report.primary else name, f"{v:.4f}") for name, v in report.metrics.items()]
    render.table(["figure", "value"], rows, title=title)
    render.note(f"{report.queries:,} queries, {report.pictures:,} pictures, {report.seconds:.1f} s; * decides")
    for count, what in (
        (report.unmatched, "queries have nothing to be found and are left out"),
        (report.failed, "pictures could not be read and are left out"),
        (report.missing, "pictures that the lists name are not there; see: embedkit datasets check"),
    ):
        if count:
            render.note(f"{count:,} {what}")
