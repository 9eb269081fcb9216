"""``dedup`` and ``cluster``: products that are alike, compared with each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedkit_cli import render
from embedkit_cli.commands.search import write_sheet
from embedkit_cli.options import AsJson, Backend, Config, Where, collection_of

if TYPE_CHECKING:
    from embedkit import ClusterReport, DuplicateReport

__all__ = ["register"]

_SHOWN = 20  # lines of a table
_ON_PAGE = 200  # groups of a page
_OF_CLUSTER = 24  # products of a cluster on a page

Name = Annotated[str, typer.Argument(help="Name of the collection.")]
View = Annotated[
    str | None, typer.Option("--view", help="Which view to compare; the first one if not given.", show_default=False)
]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write a table of all products in groups.", show_default=False)]
Html = Annotated[Path | None, typer.Option("--html", help="Write a page with their pictures.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(dedup)
    app.command()(cluster)


def dedup(
    collection: Name = "products",
    threshold: Annotated[
        float, typer.Option("--threshold", "-t", help="Cosine similarity from which on two are the same.")
    ] = 0.95,
    view: View = None,
    where: Where = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete all but the one to keep of each group.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    csv: Csv = None,
    html: Html = None,
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Find near-duplicates by their vectors, and say which of each group to keep.

    Nothing is deleted without --delete, which asks first. It spares those that hang together with the one to keep
    by others only, and are less alike themselves.
    """
    if delete and json_only and not yes:
        raise typer.BadParameter("--json asks nothing; give --yes to delete", param_hint="--delete")
    with collection_of(config, backend, collection) as there:
        with render.progress_bar("comparing", quiet=json_only) as bar:
            found = there.dedup(threshold=threshold, view=view, where=where, progress=bar)
        if csv is not None:
            render.csv_file(csv, ["group", "key", "title", "similarity", "keep"], _rows_of_groups(found))
        if html is not None:
            answers = [
                (f"{number}: keep {group.keep.key}", None, [group.keep, *group.others])
                for number, group in enumerate(found.groups[:_ON_PAGE], 1)
            ]
            write_sheet(html, there, answers)
        if not json_only:
            _tell_groups(found)
        deleted = 0
        if delete and found.removable:
            if not yes:
                render.confirm(f"Delete {render.counted(len(found.removable), 'product')} of {collection!r}?")
            deleted = there.delete(found.removable)
    if json_only:
        render.as_json({**found.as_dict(), "deleted": deleted})
    elif delete:
        render.note(f"Deleted {render.counted(deleted, 'product')}.")
    _written(csv, html, len(found.groups), quiet=json_only)


def _rows_of_groups(found: DuplicateReport) -> list[list[object]]:
    return [
        [number, hit.key, hit.product.title or "", f"{hit.score:.6f}", "yes" if hit is group.keep else "no"]
        for number, group in enumerate(found.groups, 1)
        for hit in (group.keep, *group.others)
    ]


def _tell_groups(found: DuplicateReport) -> None:
    if found.groups:
        rows = [
            (number, group.keep.key, ", ".join(hit.key for hit in group.others), f"{group.others[-1].score:.3f}")
            for number, group in enumerate(found.groups[:_SHOWN], 1)
        ]
        render.table(["#", "keep", "near-duplicates", "least alike"], rows)
    more = len(found.groups) - _SHOWN
    many = sum(len(group.others) for group in found.groups)
    render.note(
        (f"… and {more:,} groups more; --csv writes all.\n" if more > 0 else "")
        + f"{len(found.groups):,} groups; {many:,} of {found.compared:,} products are near-duplicates of another one, "
        f"and {len(found.removable):,} could go (similarity of {found.threshold:g} or more to the one to keep)."
    )


def cluster(
    collection: Name = "products",
    k: Annotated[int, typer.Option("-k", min=1, help="How many clusters.")] = 10,
    view: View = None,
    where: Where = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", help="Attribute that the clusters are compared with (NMI).", metavar="PATH", show_default=False
        ),
    ] = None,
    csv: Csv = None,
    html: Html = None,
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Put products into clusters by k-means on their vectors."""
    with collection_of(config, backend, collection) as there, render.waiting("clustering", quiet=json_only):
        found = there.cluster(k, view=view, where=where, labels=labels)
        if csv is not None:
            render.csv_file(
                csv,
                ["cluster", "key", "title", "closeness"],
                [
                    [one.number, hit.key, hit.product.title or "", f"{hit.score:.6f}"]
                    for one in found.clusters
                    for hit in one.members
                ],
            )
        if html is not None:
            answers = [
                (_headline(one.number, len(one.members)), None, list(one.members[:_OF_CLUSTER]))
                for one in found.clusters[:_ON_PAGE]
            ]
            write_sheet(html, there, answers)
    if json_only:
        render.as_json(found.as_dict())
    else:
        _tell_clusters(found)
    _written(csv, html, len(found.clusters), quiet=json_only)


def _headline(number: int, size: int) -> str:
    nearest = f", the {_OF_CLUSTER} nearest to the mean" if size > _OF_CLUSTER else ""
    return f"{number}: {size:,} products{nearest}"


def _tell_clusters(found: ClusterReport) -> None:
    rows = [
        (one.number, len(one.members), ", ".join(hit.product.title or hit.key for hit in one.members[:3]))
        for one in found.clusters
    ]
    render.table(["cluster", "products", "nearest to its mean"], rows)
    if found.nmi is not None:
        render.note(f"NMI {found.nmi:.3f} with {found.labels!r}, which {found.labelled:,} products have.")


def _written(csv: Path | None, html: Path | None, count: int, *, quiet: bool) -> None:
    pictures = f"Pictures of the first {_ON_PAGE}" if count > _ON_PAGE else "Pictures"
    for label, path in (("Table", csv), (pictures, html)):
        if path is not None and not quiet:
            render.note(f"{label}: {path}")
