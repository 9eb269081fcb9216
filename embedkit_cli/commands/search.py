"""``search``: by picture, by sketch, by words, by keywords, by a product, or by several of them together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedkit_cli import render
from embedkit_cli.options import AsJson, Backend, CollectionName, Config, Where, collection_of, pairs

if TYPE_CHECKING:
    from embedkit import Collection, Hit

__all__ = ["register", "write_sheet"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(search)


def search(
    image: Annotated[
        str | None, typer.Option("--image", "-i", help="Path or URL of a picture.", show_default=False)
    ] = None,
    sketch: Annotated[
        str | None,
        typer.Option("--sketch", "-s", help="Path or URL of a line drawing, dark on white.", show_default=False),
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", "-t", help="Words, by their meaning.", show_default=False)
    ] = None,
    keywords: Annotated[
        str | None, typer.Option("--keywords", help="Words, as titles hold them.", show_default=False)
    ] = None,
    product: Annotated[
        str | None, typer.Option("--product", "-p", help="Key of a product.", show_default=False)
    ] = None,
    where: Where = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits.")] = 10,
    offset: Annotated[int, typer.Option("--offset", min=0, help="How many of the best to leave out, for pages.")] = 0,
    view: Annotated[str | None, typer.Option("--view", help="Which view to search.", show_default=False)] = None,
    weight: Annotated[
        list[str] | None, typer.Option("--weight", help="Share of a part, such as image=0.7.", metavar="PART=SHARE")
    ] = None,
    fusion: Annotated[
        str, typer.Option("--fusion", help="How several are joined: weighted scores, or rrf (reciprocal ranks).")
    ] = "weighted",
    rerank: Annotated[
        str | None,
        typer.Option(
            "--rerank",
            help="View that puts the nearest of --view in order; a view of codes may be both.",
            metavar="VIEW",
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option("--candidates", min=1, help="How many to rerank, join or spread.", show_default="10 for each hit"),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option("--group-by", help="Attribute; the best hit of each value.", metavar="PATH", show_default=False),
    ] = None,
    diversity: Annotated[
        float | None, typer.Option("--diversity", help="0: the nearest, to 1: unlike each other.", show_default=False)
    ] = None,
    min_score: Annotated[
        float | None, typer.Option("--min-score", help="Leave out lower scores.", show_default=False)
    ] = None,
    max_distance: Annotated[
        float | None, typer.Option("--max-distance", help="Leave out what is farther (l2, codes).", show_default=False)
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="How far the index looks, such as ef=128, nprobe=32, k_factor=4.", metavar="NAME=N"),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with the pictures of the hits.", show_default=False)
    ] = None,
    collection: CollectionName = "products",
    config: Config = None,
    backend: Backend = None,
    json_only: AsJson = False,
) -> None:
    """Find the most similar products. Give --image, --sketch, --text, --keywords, --product, or several together."""
    asked: dict[str, Any] = {
        "image": image, "sketch": sketch, "text": text, "keywords": keywords, "product": product
    }  # fmt: skip
    asked = {name: value for name, value in asked.items() if value is not None}
    if not asked:
        raise typer.BadParameter("give --image, --sketch, --text, --keywords or --product")
    wanted: dict[str, Any] = {
        "where": where, "k": k, "offset": offset, "view": view, "weights": _weights(weight), "fusion": fusion,
        "rerank": rerank, "candidates": candidates, "group_by": group_by, "diversity": diversity,
        "min_score": min_score, "max_distance": max_distance, "params": pairs(setting, "--set") or None,
    }  # fmt: skip
    with collection_of(config, backend, collection) as there:
        hits = there.search(**asked, **wanted)
        if html is not None:
            write_sheet(html, there, [(_question(asked, where), image or sketch, hits)])
        unknown = there.unknown_attributes(where) if where is not None and not hits else []
    if json_only:
        render.as_json({"hits": render.hits_as_dicts(hits)})
    elif hits:
        render.hits_table(hits, first=offset + 1)
    else:
        render.note(_nothing(where, offset))
    for sentence in unknown:
        render.note(sentence)
    if html is not None and not json_only:
        render.note(f"Pictures: {html}")


def _nothing(where: str | None, offset: int) -> str:
    what = "Nothing found" if where is None else "Nothing found that the filter admits"
    return f"{what} behind the first {offset:,}." if offset else f"{what}."


def _weights(given: list[str] | None) -> dict[str, float] | None:
    try:
        return {name: float(share) for name, share in pairs(given, "--weight").items()} or None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--weight") from error


def _question(asked: dict[str, Any], where: str | None) -> str:
    parts = [f"{name} {value!r}" for name, value in asked.items()] + ([f"where {where}"] if where else [])
    return ", ".join(parts)


def write_sheet(path: Path, collection: Collection, answers: Sequence[tuple[str, str | None, Sequence[Hit]]]) -> None:
    """Write an HTML page of several answers: (question, picture asked with, hits)."""
    from embedkit_cli.sheet import Answer, write

    write(path, [Answer(question, picture, hits) for question, picture, hits in answers], collection.picture)
