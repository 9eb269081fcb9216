"""``bench``: indexes measured on the data sets of the field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from embedkit_cli import render
from embedkit_cli.options import AsJson, Config, kit_of

if TYPE_CHECKING:
    from embedkit import AnnReport, AnnRow, BenchProgress
    from embedkit.types import Metric

__all__ = ["page_as_it_comes", "register"]

SOME_FAILED = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    group = typer.Typer(help="Measure indexes and backends on a data set.", no_args_is_help=True)
    group.command()(ann)
    group.callback()(_group)
    app.add_typer(group, name="bench")


def _group() -> None:
    """Measure indexes and backends on a data set."""


def ann(
    dataset: Annotated[
        Path,
        typer.Argument(help="An ann-benchmarks .hdf5, a folder (sift_base.fvecs, …) or a file of vectors."),
    ],
    spec: Annotated[
        list[str] | None,
        typer.Option("--spec", help="Index to measure, again for more; one of every family if not given."),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", help="Backend URL, again for more; FAISS in --out if not given.", metavar="URL"),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option("--queries", help="File of the queries, if the set has none.", show_default=False)
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", help="File of their true neighbours; computed if nobody tells.", show_default=False),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="l2, ip or cosine.", show_default="that of the HDF5 file, else l2"),
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", min=1, help="Only so many of the first vectors.", show_default=False)
    ] = None,
    most_queries: Annotated[int, typer.Option("--most-queries", min=1, help="At most so many queries.")] = 1_000,
    k: Annotated[
        list[int] | None, typer.Option("-k", min=1, help="Nearest to find, again for more.  [default: 1, 10, 100]")
    ] = None,
    recall: Annotated[float, typer.Option("--recall", help="By which the table compares.")] = 0.95,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the results; bench/NAME if not given.", show_default=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="The page; report.html in --out if not given.", show_default=False)
    ] = None,
    config: Config = None,
    json_only: AsJson = False,
) -> None:
    """Measure recall, queries a second, build time and memory of indexes, and write a page with charts.

    Every index is kept as it comes, and the page with it; the same command goes on after a kill. Nothing is downloaded.
    Exit code 3 if some of the indexes could not be built, 1 if none could.
    """
    if metric not in (None, "l2", "ip", "cosine"):
        raise typer.BadParameter(f"{metric!r} is no metric; known: l2, ip, cosine", param_hint="--metric")
    with kit_of(config, None) as kit, render.progress_bar("indexes", quiet=json_only) as progress:
        found = kit.bench_ann(
            dataset,
            out=out,
            backends=backend or (),
            specs=spec or (),
            queries=queries,
            truth=truth,
            metric=cast("Metric | None", metric),
            size=size,
            most_queries=most_queries,
            ks=k or (1, 10, 100),
            recall=recall,
            progress=page_as_it_comes(out, html, progress),
        )
    page = _written(found, out, html)
    if json_only:
        render.as_json(found.as_dict())
    else:
        _show(found)
        render.note(f"Page: {page}")
    if refused := [row for row in found.rows if row.refused]:
        raise typer.Exit(1 if len(refused) == len(found.rows) else SOME_FAILED)


def page_as_it_comes(
    out: Path | None, html: Path | None, shown: Callable[[BenchProgress], None] | None
) -> Callable[[BenchProgress], None]:
    """Progress that writes the page whenever one more index is measured, and is shown as before."""
    written = 0

    def heard(now: BenchProgress) -> None:
        nonlocal written
        if len(now.report.rows) > written:
            written = len(now.report.rows)
            _written(now.report, out, html)
        if shown is not None:
            shown(now)

    return heard


def _written(found: AnnReport, out: Path | None, html: Path | None) -> Path:
    from embedkit_cli.chart import write_bench

    page = html or (out or Path("bench") / found.name) / "report.html"
    write_bench(page, found)
    return page


def _show(found: AnnReport) -> None:
    urls = ["backend"] if len(found.filled) > 1 else []
    render.table(
        [
            "index",
            *urls,
            "search with",
            *(f"recall@{k}" for k in found.ks),
            "queries/s",
            "p50, ms",
            "built, s",
            "memory",
        ],
        [_row(row, found, urls=bool(urls)) for row in found.rows if row.points],
        title=f"{found.name}: {found.vectors:,} vectors of {found.dim}, {found.metric}; "
        f"the cheapest setting for recall@{found.k} of {found.recall:g}",
    )
    for row in found.rows:
        if row.refused:
            render.note(f"not built: {row.spec}, {row.backend}: {row.refused}")


def _row(row: AnnRow, found: AnnReport, *, urls: bool) -> list[object]:
    best = row.cheapest(found.recall, found.k) or max(row.points, key=lambda point: point.recalls[found.k])
    settings = ", ".join(f"{name}={value}" for name, value in best.params.items())
    return [
        row.spec,
        *([row.backend] if urls else []),
        settings,
        *(f"{best.recalls[k]:.3f}" for k in found.ks),
        f"{best.qps[found.k]:,.0f}",
        f"{best.p50:.2f}",
        f"{row.build_seconds:.1f}",
        render.size(row.bytes) if row.bytes is not None else None,
    ]
