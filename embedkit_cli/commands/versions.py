"""``reindex`` and ``gc``: a new version of a collection beside the old, the switch, and the way back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedkit_cli import render
from embedkit_cli.options import AsJson, Backend, Config, collection_of, kit_of, pairs

if TYPE_CHECKING:
    from embedkit import Collection, Hit, Product, ReindexReport, Switched

__all__ = ["register"]

FAILED = 3
_SHOWN = 5  # failures and moved products that are named
_PAGED = 10  # moved products of a view on the page


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(reindex)
    app.command()(gc)


def reindex(
    collection: Annotated[str, typer.Argument(help="Name of the collection.")],
    encoder: Annotated[
        list[str] | None,
        typer.Option("--encoder", help="New encoder of a view; pictures are read again.", metavar="VIEW=ENCODER"),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option("--index", help="New index, such as 'hnsw(m=32)'; vectors are copied.", show_default=False),
    ] = None,
    no_switch: Annotated[
        bool, typer.Option("--no-switch", help="Build and compare; let the old one serve on.")
    ] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Let the version serve that did so before.")] = False,
    max_failed: Annotated[
        float, typer.Option("--max-failed", help="Share of products that may fail before the switch is refused.")
    ] = 0.01,
    k: Annotated[int, typer.Option("-k", min=1, help="Nearest products that are compared.")] = 10,
    queries: Annotated[int, typer.Option("--queries", min=1, help="Products that ask both versions.")] = 200,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page of what moved most, with pictures.", show_default=False)
    ] = None,
    nice: Annotated[
        int,
        typer.Option(
            "--nice", min=0, max=19, help="How far it gives way to other processes, such as those that search."
        ),
    ] = 10,
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Give a collection a new encoder or index: built beside the old one, compared with it, switched in one step.

    The old version serves all the while, and writes go into both. Killed at any point, the same command goes on;
    without --encoder and --index it goes on with what was begun. Exit code 3: some products failed.
    """
    if rollback and (encoder or index or no_switch or html):
        raise typer.BadParameter("--rollback takes none of the other options")
    with collection_of(config, backend, collection) as there:
        if rollback:
            back = there.rollback()
        else:
            _give_way(nice)
            with render.progress_bar("reindex", quiet=json_only) as progress:
                report = there.reindex(
                    encoder=pairs(encoder, "--encoder"),
                    index=index,
                    switch=not no_switch,
                    max_failed=max_failed,
                    k=k,
                    queries=queries,
                    progress=progress,
                )
            if html is not None:
                _page(html, there, report)
    if rollback:
        if json_only:
            render.as_json(back.as_dict())
        else:
            _tell_switch(back, collection)
        return
    if json_only:
        render.as_json(report.as_dict())
    else:
        _tell(report, html)
    if report.failed:
        raise typer.Exit(FAILED)


def _give_way(nice: int) -> None:
    """Take what other processes leave of the processor, from here to its own end; Windows knows no such rank."""
    if hasattr(os, "nice"):
        os.nice(max(0, nice - os.nice(0)))


def _tell(report: ReindexReport, html: Path | None) -> None:
    render.fields(
        [
            ("version", report.version),
            ("products", f"{report.seen:,}"),
            ("encoded", f"{report.encoded:,}"),
            ("copied", f"{report.copied:,}"),
            ("there already", f"{report.skipped:,}"),
            ("failed", f"{report.failed:,}"),
            ("seconds", f"{report.seconds:.1f}"),
        ]
    )
    for key, reason in report.lost[:_SHOWN]:
        render.note(f"failed: {key}: {reason}")
    if report.changed:
        render.note(f"Encoded anew, for their pictures are no longer those that were ingested: {report.changed:,}")
    if report.comparison:
        render.table(
            ["view", "before", "after", f"overlap@{report.comparison[0].k}", "same first", "score", "shift"],
            [
                (
                    one.view,
                    one.before,
                    one.after,
                    f"{one.overlap:.3f}",
                    f"{one.same_first:.3f}",
                    f"{one.score_after:.3f}",
                    f"{one.score_shift:+.3f}",
                )
                for one in report.comparison
            ],
            title=f"{report.comparison[0].queries:,} products asked both versions",
        )
        moved = sorted((one for view in report.comparison for one in view.moved), key=lambda one: one.overlap)
        if moved:
            render.note("Moved most: " + ", ".join(f"{one.key} ({one.overlap:.2f})" for one in moved[:_SHOWN]))
    if html is not None:
        render.note(f"Pictures: {html}")
    if report.refused:
        render.note(report.refused + ".")
    elif report.switched is None:
        render.note(
            f"Version {report.serving} serves on. To let the new one serve: embedkit reindex {report.collection}"
        )
    else:
        _tell_switch(report.switched, report.collection)


def _tell_switch(switched: Switched, collection: str) -> None:
    made = ", ".join(f"{view}={encoder}" for view, encoder in switched.encoders.items())
    render.note(f"Version {switched.after} serves now ({made}).")
    for view, count in switched.lacking.items():
        render.note(f"It has {count:,} vectors of {view!r} fewer than version {switched.before}.")
    render.note(f"Back again: embedkit reindex {collection} --rollback")
    render.note(f"When it has proved itself: embedkit gc -c {collection}")


def _page(path: Path, collection: Collection, report: ReindexReport) -> None:
    """A page of the products that moved most: what each found before, and after."""
    from embedkit import Hit
    from embedkit_cli.commands.search import write_sheet

    answers: list[tuple[str, str | None, list[Hit]]] = []
    products: dict[str, Product] = {}
    for view in report.comparison:
        for one in view.moved[:_PAGED]:
            for key in (one.key, *(key for key, _ in (*one.before, *one.after))):
                if key not in products:
                    products[key] = _product(collection, key)
            uri = products[one.key].uri
            asked = uri if uri is not None and Path(uri).is_file() else None
            for label, encoder, found in (("before", view.before, one.before), ("after", view.after, one.after)):
                question = f"{one.key} by {view.view}, {label} ({encoder}): {one.overlap:.0%} of {view.k} stayed"
                hits = [Hit(products[key], score, score, -1, view.view) for key, score in found]
                answers.append((question, asked, hits))
    write_sheet(path, collection, answers)


def _product(collection: Collection, key: str) -> Product:
    """A product; one that was deleted meanwhile is its key alone."""
    from embedkit import Product, Terminal

    try:
        return collection.get(key)
    except Terminal:
        return Product(key, None, None, {})


def gc(
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-c", help="Name of a collection; all of them without.", show_default=False),
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Drop also versions that were begun and never served.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and drop nothing.")] = False,
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Drop the versions of collections that have served and no longer do. There is no rollback to them any more."""
    with kit_of(config, backend) as kit:
        names = [collection] if collection is not None else [info.name for info in kit.collections()]
        reports = [kit.collection(name).gc(unfinished=unfinished, dry_run=dry_run) for name in names]
    if json_only:
        render.as_json({"collections": [report.as_dict() for report in reports]})
        return
    rows = [
        (report.collection, one.version, ", ".join(f"{v}={e}" for v, e in one.encoders.items()), f"{one.vectors:,}")
        for report in reports
        for one in report.dropped
    ]
    if not rows:
        render.note("Every version serves; there is nothing to drop.")
        return
    render.table(["collection", "version", "encoders", "vectors"], rows, title="Would drop" if dry_run else "Dropped")
