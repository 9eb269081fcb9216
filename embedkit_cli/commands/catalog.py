"""``ingest``, ``status``, ``failures``, ``verify``: a catalog on its way in, and how it went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from embedkit.types import STAGES
from embedkit_cli import render
from embedkit_cli.options import AsJson, Backend, CollectionName, Config, collection_of, pairs

if TYPE_CHECKING:
    from embedkit import IngestReport

__all__ = ["register"]

FAILED, INTERRUPTED = 3, 130
_WORDS = {"duplicates": "same picture"}  # not the failures of the stage `duplicate`, which are keys


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(ingest)
    app.command()(status)
    app.command()(failures)
    app.command()(verify)


def ingest(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A folder of pictures, a .zip or .tar archive, a .csv, .tsv, .jsonl or .parquet table (each a path or "
            "a URL: https, s3 and whatever fsspec knows), or a database URL with --query.",
            show_default=False,
        ),
    ] = None,
    collection: CollectionName = "products",
    config: Config = None,
    backend: Backend = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map", help="Which column is what: key=, image=, title=, attributes=a,b.", metavar="FIELD=COLUMN"
        ),
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option("--encoder", help="Encoder of a view, for a new collection.", metavar="VIEW=ENCODER"),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="Kind of the source, if its name does not tell.", show_default=False)
    ] = None,
    query: Annotated[
        str | None, typer.Option("--query", help="SQL to read from a database URL.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Read only so many records.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and decode, but write nothing; with --prune, count.")
    ] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Delete products that the catalog no longer holds.")] = False,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Read every picture, also where its file or host calls it unchanged.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try the failures of earlier runs again.")
    ] = False,
    json_only: AsJson = False,
) -> None:
    """Bring a collection in line with a catalog; what has not changed is skipped.

    A key takes at most 1,024 bytes of UTF-8. A row with a longer one, with characters that are no text, or of which the
    encoder makes no vector, fails alone: see embedkit failures.

    The last line of the output is JSON: seen, encoded, updated, skipped, failed, deleted, duplicates (products of
    this run with the same picture as another one), seconds, images_per_second. Exit code 3: some records failed;
    130: stopped by Ctrl-C or SIGTERM, and the next run goes on.
    """
    if retry_failed == (source is not None):
        raise typer.BadParameter("give either a SOURCE or --retry-failed")
    with (
        collection_of(config, backend, collection) as there,
        render.progress_bar("ingest", quiet=json_only) as progress,
    ):
        report = there.ingest(
            source,
            map=pairs(mapping, "--map"),
            encoder=pairs(encoder, "--encoder") or None,
            kind=kind,
            query=query,
            limit=limit,
            dry_run=dry_run,
            prune=prune,
            checksum=checksum,
            retry_failed=retry_failed,
            progress=progress,
        )
    finish(report, collection, json_only=json_only)


def finish(report: IngestReport, collection: str, *, json_only: bool) -> None:
    """Show a report and exit with its code, unless all went well."""
    if not json_only:
        for warning in report.warnings:
            render.note(f"warning: {warning}")
        if report.failed and report.dry_run:
            render.note(f"{render.counted(report.failed, 'record')} would fail, for the reasons above.")
        elif report.failed:
            render.note(
                f"{render.counted(report.failed, 'record')} failed; see why with: embedkit failures -c {collection}"
            )
        if report.duplicates:
            render.note(f"{report.duplicates:,} with the same picture as another product; they are kept.")
        if report.interrupted:
            render.note("Stopped. What was done is kept; the same command goes on from here.")
    render.as_json(report.as_dict())
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)
    if report.failed:
        raise typer.Exit(FAILED)


def status(
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-c", help="Name of a collection; all of them without.", show_default=False),
    ] = None,
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Show the collections of the backend, or one of them in full."""
    from embedkit_cli.options import kit_of

    with kit_of(config, backend) as kit:
        if collection is None:
            every = kit.collections()
            if json_only:
                render.as_json(
                    {
                        "collections": [
                            {"name": c.name, "backend": c.backend, "products": c.products, "views": c.views}
                            for c in every
                        ]
                    }
                )
            elif every:
                rows = [
                    (c.name, f"{c.products:,}", ", ".join(f"{v}={e}" for v, e in c.views.items()), c.backend)
                    for c in every
                ]
                render.table(["collection", "products", "views", "backend"], rows)
            else:
                render.note("There is no collection yet; make one with: embedkit ingest CATALOG")
            return
        state = kit.collection(collection).status().as_dict()
    if json_only:
        render.as_json(state)
        return
    run = state.pop("last_run")
    render.fields(
        (
            _WORDS.get(name, name),
            ", ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value,
        )
        for name, value in state.items()
    )
    if isinstance(run, dict):
        render.fields([("last run", f"{run['state']}, {run['source']}, started {run['started_at']}")])


def failures(
    collection: CollectionName = "products",
    stage: Annotated[
        str | None,
        typer.Option(
            "--stage",
            help=f"{', '.join(STAGES[:-1])} or {STAGES[-1]}; duplicate: a key that came again.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show at most so many.")] = 100,
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """List the records that could not be ingested, and why."""
    with collection_of(config, backend, collection) as there:
        rows = there.failures(stage=stage, limit=limit)
    if json_only:
        names = ("key", "locator", "stage", "error", "attempts", "first_seen", "last_seen")
        render.as_json({"failures": [{name: getattr(row, name) for name in names} for row in rows]})
        return
    if not rows:
        render.note("No failures.")
        return
    render.table(["key", "where", "stage", "why"], [(row.key, row.locator, row.stage, row.error) for row in rows])
    render.note(f"Try them again, once mended, with: embedkit ingest --retry-failed -c {collection}")


def verify(
    collection: CollectionName = "products",
    repair: Annotated[bool, typer.Option("--repair", help="Mend what differs.")] = False,
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Compare the metadata store with the backend, id by id. Exit code 1 if they differ and nothing was mended."""
    with collection_of(config, backend, collection) as there, render.waiting("comparing", quiet=json_only):
        report = there.verify(repair=repair)
    if json_only:
        render.as_json(report.as_dict())
    else:
        rows = [(name, c.count, c.missing, c.orphaned, c.duplicate, c.pending) for name, c in report.views.items()]
        render.table(["view", "vectors", "missing", "orphaned", "duplicate", "pending"], rows)
        if report.ok:
            render.note("Store and backend agree.")
        elif report.repaired:
            render.note("Mended. Vectors that were missing come back with the next ingest.")
        else:
            render.note(f"They differ; mend it with: embedkit verify --repair -c {collection}")
    if not (report.ok or report.repaired):
        raise typer.Exit(1)
