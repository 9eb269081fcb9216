"""``index``: build another index over a collection, look at it, tune how it is searched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from embedkit_cli import render
from embedkit_cli.options import AsJson, Backend, Config, collection_of

if TYPE_CHECKING:
    from embedkit import IndexState, Tuning

__all__ = ["register"]

Name = Annotated[str, typer.Argument(help="Name of the collection.", metavar="COLLECTION")]
View = Annotated[str | None, typer.Option("--view", help="Which view; the first one if not given.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Build, show or tune the index of a collection.", no_args_is_help=True)
    group.command()(build)
    group.command()(show)
    group.command()(tune)
    app.add_typer(group, name="index")


def build(
    collection: Name,
    spec: Annotated[
        str,
        typer.Argument(help="Such as flat, 'hnsw(m=32)' or 'ivf(nlist=auto) + pq(m=16) + refine(flat)'."),
    ],
    view: Annotated[
        str | None,
        typer.Option("--view", help="Which view; every one of the first's kind if not given.", show_default=False),
    ] = None,
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Build another index over the vectors that are there. Searches and writes go on meanwhile.

    Vectors that come later are scanned exactly beside it; when they are many they are added to it by themselves.
    """
    with collection_of(config, backend, collection) as there, render.waiting(f"building {spec}", quiet=json_only):
        state = there.build_index(spec, view=view)
    _show(state, json_only=json_only)


def show(
    collection: Name, view: View = None, config: Config = None, backend: Backend = None, json_only: AsJson = False
) -> None:
    """Show the index of a view: how far it has come, what it takes, what a search of it asks with."""
    with collection_of(config, backend, collection) as there:
        state = there.index(view=view)
    _show(state, json_only=json_only)


def _show(state: IndexState, *, json_only: bool) -> None:
    if json_only:
        render.as_json(state.as_dict())
        return
    rows: list[tuple[str, object]] = [
        ("view", f"{state.view} ({state.dim} {'bits' if state.kind == 'binary' else 'floats'})"),
        ("index", state.spec),
        ("vectors", f"{state.vectors:,}"),
        ("in the index", f"{state.covered:,}" if state.heeds else "all, scanned exactly"),
        ("memory of the index", render.size(state.bytes) if state.bytes is not None else None),
        ("search parameters", ", ".join(state.heeds) or "none"),
        ("tuned to", ", ".join(f"{name}={value}" for name, value in state.asks_with.items()) or None),
    ]
    render.fields(rows)


def tune(
    collection: Name,
    recall: Annotated[float, typer.Option("--recall", help="Share of the nearest that is to be found.")] = 0.95,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits a search gives.")] = 10,
    queries: Annotated[int, typer.Option("--queries", min=1, help="How many of them ask.")] = 500,
    questions: Annotated[
        str | None,
        typer.Option(
            "--questions",
            help="Catalog of pictures or titles, as customers ask by.",
            metavar="CATALOG",
            show_default="the collection's own vectors",
        ),
    ] = None,
    view: View = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure, but leave searches as they are.")] = False,
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Find the cheapest search parameters that reach a recall, and search with them from now on.

    Measured against an exact scan of the whole view. Exit code 1 if none of them reaches it; nothing is changed then.
    """
    with collection_of(config, backend, collection) as there, render.waiting("measuring", quiet=json_only):
        found = there.tune(recall=recall, k=k, queries=queries, questions=questions, view=view, keep=not dry_run)
    if json_only:
        render.as_json(found.as_dict())
    else:
        _show_tuning(found, kept=not dry_run)
    if found.chosen is None:
        raise typer.Exit(1)


def _show_tuning(found: Tuning, *, kept: bool) -> None:
    points = sorted(found.points, key=lambda point: (point.recall, point.qps))
    rows = [
        (
            ", ".join(f"{name}={value}" for name, value in point.params.items()),
            f"{point.recall:.3f}",
            f"{point.qps:,.0f}",
            "chosen" if point is found.chosen else "",
        )
        for point in points
    ]
    render.table(["search with", "recall", "queries/s", ""], rows, title=f"{found.index} over the view {found.view!r}")
    if found.chosen is None:
        best = max((point.recall for point in points), default=0.0)
        render.note(f"None of them finds {found.recall:g} of the {found.k} nearest; the best finds {best:.3f}.")
    elif kept:
        render.note("Searches ask with it from now on, unless they are told otherwise.")
