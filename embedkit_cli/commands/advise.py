"""``advise``: how short codes may be, and how many candidates to rerank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from embedkit_cli import render
from embedkit_cli.options import AsJson, Backend, CollectionName, Config, collection_of

if TYPE_CHECKING:
    from embedkit import Advice, CodeAdvice

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(advise)


def advise(
    view: Annotated[
        str | None, typer.Option("--view", help="View of floats; the first one if not given.", show_default=False)
    ] = None,
    recall: Annotated[float, typer.Option("--recall", help="Share of the nearest that is to be found.")] = 0.95,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits a search gives.")] = 10,
    sample: Annotated[int, typer.Option("--sample", min=1, help="Products that are measured.")] = 20_000,
    queries: Annotated[int, typer.Option("--queries", min=1, help="Of these, how many ask.")] = 500,
    collection: CollectionName = "products",
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Measure codes in place of floats: bits against candidates, for a wanted recall."""
    with collection_of(config, backend, collection) as there:
        found = there.advise(view=view, recall=recall, k=k, sample=sample, queries=queries)
    if json_only:
        render.as_json(found.as_dict())
        return
    factors = sorted({factor for one in found.codes for factor in one.recalls})
    render.table(
        ["codes", "bits", "bytes", *(f"{k * factor:,}" for factor in factors), f"for {recall:g}"],
        [_row(one, factors) for one in found.codes],
        title=f"Share of the {k} nearest among so many candidates ({found.queries:,} of {found.vectors:,} vectors ask)",
    )
    render.note(_told(found, collection))


def _row(one: CodeAdvice, factors: list[int]) -> list[object]:
    shares = [f"{one.recalls[factor]:.3f}" if factor in one.recalls else "" for factor in factors]
    enough = f"{one.candidates:,}" if one.candidates else "more"
    return [f"view {one.view!r}" if one.view else "ITQ", one.bits, one.bits // 8, *shares, enough]


def _told(found: Advice, collection: str) -> str:
    chosen = found.chosen
    if chosen is None:
        return f"No codes reach {found.recall:g} within the candidates measured; search the floats of {found.view!r}."
    told = (
        f"The shortest codes for {found.recall:g}: {chosen.bits // 8} bytes a product in place of {4 * found.dim:,}, "
        f"and {chosen.candidates:,} candidates. Among more products than were measured it takes more."
    )
    searched, into = (chosen.view, collection) if chosen.view else ("code", "NEW")
    first = (
        []
        if chosen.view
        else [
            f"embedkit export {_coded(found.encoder, chosen.bits)!r} codes/ --fit CATALOG",
            f"embedkit ingest CATALOG -c NEW --encoder code=codes/ --encoder {found.view}={found.encoder!r}",
        ]
    )
    then = f"embedkit search -c {into} --view {searched} --rerank {found.view} --candidates {chosen.candidates}"
    return "\n  ".join([told, *first, then])


def _coded(encoder: str, bits: int) -> str:
    """The spec string of an encoder's codes."""
    options = f"bits={bits}, hash=itq)"
    return f"{encoder[:-1]}, {options}" if encoder.endswith(")") else f"{encoder}({options}"
