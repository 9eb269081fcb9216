"""``get`` and ``delete``: single products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from embedkit.errors import ProductNotFound, listed
from embedkit.urls import redact
from embedkit_cli import render
from embedkit_cli.options import AsJson, Backend, CollectionName, Config, Where, collection_of

if TYPE_CHECKING:
    from embedkit import Collection

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

    A filter and --drop ask first, and tell how many products it is. Exit code 1 if there is no product with one of the
    KEYS; the others are deleted. With --json, which is for machines, nothing is asked:
    look with --dry-run --json before.
    """
    if sum((bool(keys), where is not None, everything)) != 1:
        raise typer.BadParameter("give KEYS, --where or --drop")
    with collection_of(config, backend, collection) as there:
        chosen = list(dict.fromkeys(keys or ()))
        missing = [key for key in chosen if not _has(there, key)]
        count = len(chosen) - len(missing) if keys else there.count(where=where)
        unknown = there.unknown_attributes(where) if where is not None and not count else []
        if not (dry_run or yes or json_only or keys or not (count or everything)):
            render.confirm(f"Delete {render.counted(count, 'product')} of {collection!r}?")
        if not dry_run:
            if everything:
                there.drop()
            else:
                count = there.delete(chosen or None, where=where)
    if json_only:
        render.as_json({"deleted": 0 if dry_run else count, "found": count, **({"missing": missing} if keys else {})})
    else:
        render.note(f"{'Would delete' if dry_run else 'Deleted'} {render.counted(count, 'product')}.")
    for sentence in unknown:
        render.note(sentence)
    if missing:
        which = listed([repr(key) for key in missing])
        render.error_line(f"The collection {collection!r} has no product with the key {which}")
        raise typer.Exit(1)


def _has(collection: Collection, key: str) -> bool:
    try:
        collection.get(key)
    except ProductNotFound:
        return False
    return True
