"""Options that several commands share, and the kit they open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedkit_cli import place

if TYPE_CHECKING:
    from embedkit import Collection, Kit

__all__ = ["AsJson", "Backend", "CollectionName", "Config", "Where", "collection_of", "kit_of", "pairs"]

Config = Annotated[
    Path | None,
    typer.Option("--config", help="Config file; embedkit.toml of this folder if it is there.", show_default=False),
]
Backend = Annotated[
    str | None, typer.Option("--backend", help="Backend URL; overrides the config.", metavar="URL", show_default=False)
]
CollectionName = Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.", metavar="NAME")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Where = Annotated[
    str | None,
    typer.Option("--where", "-w", help="Filter, such as \"price < 80 and brand in ['acme']\".", show_default=False),
]


@contextmanager
def kit_of(config: Path | None, backend: str | None) -> Iterator[Kit]:
    """The kit, closed at the end."""
    import embedkit

    place.given(config, backend)
    with embedkit.connect(config, backend=backend) as kit:
        yield kit


@contextmanager
def collection_of(config: Path | None, backend: str | None, name: str) -> Iterator[Collection]:
    """A collection of the kit."""
    with kit_of(config, backend) as kit:
        yield kit.collection(name)


def pairs(values: list[str] | None, option: str, *, empty: bool = False) -> dict[str, str]:
    """``name=value`` options as a dictionary. `empty`: a value may be nothing."""
    found: dict[str, str] = {}
    for value in values or []:
        name, equals, text = value.partition("=")
        if not (equals and name.strip() and (empty or text.strip())):
            raise typer.BadParameter(f"{value!r} is not NAME=VALUE", param_hint=option)
        found[name.strip()] = text.strip()
    return found
