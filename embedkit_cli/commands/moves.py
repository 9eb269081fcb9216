"""``copy``, ``backup``, ``restore``, ``import``: a collection at another place, as files, of vectors there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedkit_cli import render
from embedkit_cli.options import AsJson, Backend, Config, collection_of, kit_of, pairs

if TYPE_CHECKING:
    from embedkit.types import Metric

__all__ = ["register"]

_Name = Annotated[str, typer.Argument(help="Name of the collection.")]
_Index = Annotated[
    str | None, typer.Option("--index", help="Another index than it has, such as flat.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(copy)
    app.command()(backup)
    app.command()(restore)
    app.command("import")(import_vectors)


def copy(
    collection: _Name,
    url: Annotated[str, typer.Argument(help="Backend to copy it to, such as faiss:///dir or milvus://host:19530.")],
    index: _Index = None,
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Copy a collection to another backend, without encoding anything; both sides are counted and compared.

    The same command goes on after a kill, and copies what has changed when it is run again.
    """
    with (
        collection_of(config, backend, collection) as there,
        render.progress_bar("copy", quiet=json_only) as progress,
    ):
        report = there.copy_to(url, index=index, progress=progress)
    if json_only:
        render.as_json(report.as_dict())
        return
    products = render.counted(report.products, "product")
    render.table(
        ["view", "vectors", "checksum here", "checksum there"],
        [(one.view, f"{one.vectors:,}", one.checksum, one.checksum_there) for one in report.views],
        title=f"{products}: {report.copied:,} copied, {report.skipped:,} there already",
    )
    render.note(
        f"It is a collection of {report.backend} now: embedkit search -c {collection} --backend {report.backend}"
    )


def backup(
    collection: _Name,
    folder: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Write a collection into a folder: Parquet of keys, attributes and vectors, and a manifest with checksums."""
    with (
        collection_of(config, backend, collection) as there,
        render.progress_bar("backup", quiet=json_only) as progress,
    ):
        report = there.backup(folder, progress=progress)
    if json_only:
        render.as_json(report.as_dict())
        return
    render.note(f"{render.counted(report.products, 'product')} in {report.folder} ({report.bytes:,} bytes)")
    render.note(f"Back again: embedkit restore {report.folder} -c NAME")


def restore(
    folder: Annotated[Path, typer.Argument(help="A folder that embedkit backup wrote.")],
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-c", help="Its name; the one it had if not given.", show_default=False),
    ] = None,
    index: _Index = None,
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Make a collection of a backup. One that is there already is not touched."""
    with kit_of(config, backend) as kit, render.progress_bar("restore", quiet=json_only) as progress:
        report = kit.restore(folder, collection=collection, index=index, progress=progress)
    if json_only:
        render.as_json(report.as_dict())
        return
    vectors = ", ".join(f"{count:,} vectors of {view!r}" for view, count in report.vectors.items())
    products = render.counted(report.products, "product")
    render.note(f"{products} of {report.collection!r} with {vectors}, compared with the backup.")


def import_vectors(
    source: Annotated[
        str,
        typer.Argument(
            help="A .parquet or .npy file, a FAISS index, a folder of clip-retrieval (img_emb/, metadata/), or a "
            "Milvus URL with --from."
        ),
    ],
    collection: Annotated[str, typer.Option("--collection", "-c", help="Name of the new collection.", metavar="NAME")],
    keys: Annotated[
        Path | None,
        typer.Option("--keys", help="Whose vectors they are: an .npy of ids, a .csv, a .parquet.", show_default=False),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="The encoder that made them; without one, vectors ask.", show_default=False),
    ] = None,
    view: Annotated[str, typer.Option("--view", help="What the view is to be called.")] = "image",
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map", help="Which column is what: key=, image=, title=, attributes=a,b.", metavar="FIELD=COLUMN"
        ),
    ] = None,
    vectors: Annotated[
        str | None, typer.Option("--vectors", help="Column or field that holds them.", show_default=False)
    ] = None,
    from_collection: Annotated[
        str | None, typer.Option("--from", help="Collection of the Milvus.", metavar="NAME", show_default=False)
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="cosine, ip, l2, hamming.", show_default="cosine, or the index's")
    ] = None,
    index: Annotated[str, typer.Option("--index", help="Index of the new collection.")] = "flat",
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Make a collection of vectors that you have already; nothing is encoded."""
    known: dict[str, Metric] = {"cosine": "cosine", "ip": "ip", "l2": "l2", "hamming": "hamming"}
    if metric is not None and metric not in known:
        raise typer.BadParameter(f"{metric!r} is no metric; known: {', '.join(known)}", param_hint="--metric")
    with kit_of(config, backend) as kit, render.progress_bar("import", quiet=json_only) as progress:
        report = kit.import_vectors(
            source,
            collection=collection,
            keys=keys,
            map=pairs(mapping, "--map"),
            vectors=vectors,
            from_collection=from_collection,
            view=view,
            encoder=encoder,
            metric=known[metric] if metric else None,
            index=index,
            progress=progress,
        )
    if json_only:
        render.as_json(report.as_dict())
        return
    for warning in report.warnings:
        render.note(f"warning: {warning}")
    by = f"by {report.encoder}" if report.encoder else "of no encoder: search by vector or product"
    render.note(
        f"{report.imported + report.skipped:,} vectors of {report.dim} in {collection!r}, by {report.metric}, {by}"
    )
