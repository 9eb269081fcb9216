"""``get`` and ``delete``: single products."""

from __future__ import annotations

from typing import Annotated

import typer

from embedkit.urls import redact
from embedkit_cli import render
from embedkit_cli.options import AsJson, Backend, CollectionName, Config, Where, collection_of

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(get)
    app.command()(delete)


def get(
    key: Annotated[str, typer.Argument(help="Key of the product.")],
    collection: CollectionName = "products",
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Show one product."""
    with collection_of(config, backend, collection) as there:
        found = there.get(key)
    uri = found.uri and redact(found.uri)
    values = {"key": found.key, "title": found.title, "uri": uri, "attributes": dict(found.attributes)}
    if json_only:
        render.as_json({**values, "content_hash": found.content_hash})
        return
    render.fields([("key", found.key), ("title", found.title), ("picture", uri), *found.attributes.items()])


def delete(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys of products.", show_default=False)] = None,
    where: Where = None,
    collection: CollectionName = "products",
    everything: Annotated[bool, typer.Option("--drop", help="Remove the whole collection.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many there are.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; with --json or KEYS nothing is asked.")] = False,
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Delete products by key, all that a filter admits, or a whole collection.

    A filter and --drop ask first, how many products it is. With --json, which is for machines, nothing is asked:
    look with --dry-run --json before.
    """
    if sum((bool(keys), where is not None, everything)) != 1:
        raise typer.BadParameter("give KEYS, --where or --drop")
    with collection_of(config, backend, collection) as there:
        count = len(keys) if keys else there.count(where=where)
        if not (dry_run or yes or json_only or keys):
            typer.confirm(f"Delete {count:,} products of {collection!r}?", abort=True, err=True)
        if not dry_run:
            if everything:
                there.drop()
            else:
                count = there.delete(keys or None, where=where)
    if json_only:
        render.as_json({"deleted": 0 if dry_run else count, "found": count})
    else:
        render.note(f"{'Would delete' if dry_run else 'Deleted'} {count:,} products.")
