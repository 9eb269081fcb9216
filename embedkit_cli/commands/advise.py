"""``advise``: which index to choose, by rule or measured, and how short codes may be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedkit_cli import render
from embedkit_cli.options import AsJson, Backend, CollectionName, Config, collection_of, kit_of

if TYPE_CHECKING:
    from embedkit import Advice, CodeAdvice, IndexAdvice, SpecAdvice

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(advise)


def advise(
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="How many vectors there will be; with --dim.", show_default=False)
    ] = None,
    dim: Annotated[
        int | None, typer.Option("--dim", min=1, help="Their dimensions; with --n.", show_default=False)
    ] = None,
    recall: Annotated[float, typer.Option("--recall", help="Share of the nearest that is to be found.")] = 0.95,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Memory for the index, such as 2GB.", show_default=False)
    ] = None,
    latency: Annotated[
        float | None, typer.Option("--latency", help="Milliseconds that a query may take.", show_default=False)
    ] = None,
    codes: Annotated[
        bool, typer.Option("--codes", help="Measure binary codes in place of floats: bits against candidates.")
    ] = False,
    view: Annotated[
        str | None, typer.Option("--view", help="View of floats; the first one if not given.", show_default=False)
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits a search gives.")] = 10,
    sample: Annotated[int, typer.Option("--sample", min=1, help="Products that are measured.")] = 20_000,
    queries: Annotated[int, typer.Option("--queries", min=1, help="How many ask.")] = 500,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write a page with recall against queries a second.", show_default=False),
    ] = None,
    collection: CollectionName = "products",
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Say which index to choose for a wanted recall.

    With --n and --dim by rule, for a collection that is yet to come. Without, measured: every index that comes into
    question is built over a sample of the collection's own vectors. With --codes: how short codes may be, and how
    many candidates the floats must put in order.
    """
    if (n is None) != (dim is None):
        raise typer.BadParameter("give both --n and --dim, or neither to measure a collection")
    if n is not None and dim is not None:
        if codes or html:
            raise typer.BadParameter("--codes and --html measure a collection; leave out --n and --dim")
        found = _by_rule(n, dim, recall, memory, latency, config, backend)
    elif codes:
        if memory or latency or html:
            raise typer.BadParameter("--memory, --latency and --html are for indexes; leave out --codes")
        with collection_of(config, backend, collection) as there, render.waiting("measuring codes", quiet=json_only):
            told = there.advise_codes(view=view, recall=recall, k=k, sample=sample, queries=queries)
        _show_codes(told, collection, json_only=json_only)
        return
    else:
        with (
            collection_of(config, backend, collection) as there,
            render.progress_bar("indexes", quiet=json_only) as progress,
        ):
            found = there.advise(
                view=view,
                recall=recall,
                memory=memory,
                latency=latency,
                k=k,
                sample=sample,
                queries=queries,
                progress=progress,
            )
    if html is not None:
        from embedkit_cli.chart import write_advice

        write_advice(html, found, collection)
    if json_only:
        render.as_json(found.as_dict())
        return
    _show(found, collection)
    if html is not None:
        render.note(f"Chart: {html}")


def _by_rule(
    n: int,
    dim: int,
    recall: float,
    memory: str | None,
    latency: float | None,
    config: Path | None,
    backend: str | None,
) -> IndexAdvice:
    import embedkit

    with kit_of(config, backend) as kit:
        url = kit.settings.backend
    return embedkit.advise_indexes(n, dim, recall=recall, memory=memory, latency=latency, backend=url)


def _show(found: IndexAdvice, collection: str) -> None:
    measured = ["recall", "queries/s", "at n", "built, s"] if found.measured else ["ms, about"]
    title = f"Indexes of {found.backend} for {found.n:,} vectors of {found.dim} floats and a recall of {found.recall:g}"
    if found.measured:
        title += f", measured over {found.measured:,} by {found.queries:,} queries at once"
    render.table(
        ["index", "search with", "memory", *measured, "why"], [_row(one, found) for one in found.specs], title=title
    )
    for one in found.missing:
        render.note(f"not built: {one}")
    if found.chosen is None:
        render.note("None of them fits; give more memory or time, or ask for less recall.")
    elif found.measured:
        render.note(f"Build it with: embedkit index build {collection} {found.chosen.spec!r}")
    else:
        render.note(f'First choice: index = "{found.chosen.spec}" in embedkit.toml. Measuring is better than the rule.')


def _row(one: SpecAdvice, found: IndexAdvice) -> list[object]:
    settings = ", ".join(f"{name}={value}" for name, value in one.params.items())
    figures: list[object] = [f"{one.milliseconds:.2g}"]
    if found.measured:
        figures = [f"{one.recall:.3f}", f"{one.qps:,.0f}", f"{one.qps_at_n:,.0f}", f"{one.build_seconds:.1f}"]
    return [one.spec, settings, render.size(one.bytes), *figures, f"no: {one.misses}" if one.misses else one.why]


def _show_codes(found: Advice, collection: str, *, json_only: bool) -> None:
    if json_only:
        render.as_json(found.as_dict())
        return
    factors = sorted({factor for one in found.codes for factor in one.recalls})
    render.table(
        ["codes", "bits", "bytes", *(f"{found.k * factor:,}" for factor in factors), f"for {found.recall:g}"],
        [_codes_row(one, factors) for one in found.codes],
        title=f"Share of the {found.k} nearest among so many candidates "
        f"({found.queries:,} of {found.vectors:,} vectors ask)",
    )
    render.note(_told(found, collection))


def _codes_row(one: CodeAdvice, factors: list[int]) -> list[object]:
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
