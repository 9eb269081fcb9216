"""``demo``: thousands of real pictures become a searchable collection, before one's eyes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedkit_cli import render
from embedkit_cli.options import AsJson

if TYPE_CHECKING:
    from embedkit import Collection, Hit, IngestReport

__all__ = ["register"]

_FRUIT = "1F34E"  # red apple
_ANIMALS, _FOOD = "group == 'Animals & Nature'", "group == 'Food & Drink' and price < 80"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    home: Annotated[Path, typer.Option("--home", help="Folder for pictures, vectors and products.")] = Path(
        ".embedkit/demo"
    ),
    backend: Annotated[
        str | None,
        typer.Option("--backend", help="Backend URL; embedded Milvus without.", metavar="URL", show_default=False),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Use only so many pictures.", show_default=False)
    ] = None,
    json_only: AsJson = False,
) -> None:
    """Draw 4,495 emoji, ingest them, search by picture, by words, with filters, and write a page of the answers."""
    import embedkit

    catalog = home / "catalog"
    count = _render(catalog, limit, quiet=json_only)
    with embedkit.connect(backend=backend, home=home) as kit:
        collection = kit.collection("demo")
        with render.progress_bar("encode", quiet=json_only) as progress:
            report = collection.ingest(catalog, progress=progress)
        answers = _answers(collection, catalog)
        page = home / "demo.html"
        _write_page(page, collection, answers)
        products = collection.count()
    values = {"pictures": count, "products": products, **report.as_dict(), "page": str(page)}
    if json_only:
        render.as_json(values)
        return
    _tell(report, products)
    for question, _, hits in answers:
        render.hits_table(hits, title=question)
        typer.echo("")
    typer.echo(f"Pictures of these answers: {page.resolve()}")


def _render(catalog: Path, limit: int | None, *, quiet: bool) -> int:
    from embedkit import Progress
    from embedkit.errors import ConfigError
    from embedkit_cli.demo_catalog import render_catalog

    with render.progress_bar("draw", quiet=quiet) as progress:

        def show(done: int, total: int) -> None:
            if progress is not None:
                progress(Progress(total=total, seen=done, encoded=0, skipped=0, failed=0))

        try:
            return render_catalog(catalog, show, limit=limit)
        except OSError as error:
            raise ConfigError(
                f"The pictures of the demo cannot be written to {str(catalog)!r}: {error.strerror or error}; "
                "choose another folder with --home"
            ) from error


def _answers(collection: Collection, catalog: Path) -> list[tuple[str, str | None, list[Hit]]]:
    fruit = catalog / "pictures" / f"{_FRUIT}.png"
    shown_first = fruit if fruit.exists() else min((catalog / "pictures").glob("*.png"))
    picture, name = str(shown_first), collection.get(shown_first.stem).title
    asked: list[tuple[str, str | None, dict[str, Any]]] = [
        (f"the picture “{name}”", picture, {"image": picture}),
        ("the words “a boat on the water”", None, {"text": "a boat on the water"}),
        (f"the words “at home in the sea”, {_ANIMALS}", None, {"text": "at home in the sea", "where": _ANIMALS}),
        (
            f"the picture “{name}” and the word “green”, {_FOOD}",
            picture,
            {"image": picture, "text": "green", "where": _FOOD},
        ),
    ]
    found = []
    for question, shown, query in asked:
        started = time.perf_counter()
        hits = collection.search(**query, k=6)
        found.append((f"{question} ({1e3 * (time.perf_counter() - started):.0f} ms)", shown, hits))
    return found


def _tell(report: IngestReport, products: int) -> None:
    if report.encoded:
        speed = report.encoded / max(report.seconds, 1e-9)
        render.note(f"{report.encoded:,} pictures and titles encoded in {report.seconds:.0f} s ({speed:.0f} a second).")
    render.note(f"The collection holds {products:,} products.\n")


def _write_page(page: Path, collection: Collection, answers: list[tuple[str, str | None, list[Hit]]]) -> None:
    from embedkit_cli.demo_catalog import LICENSE
    from embedkit_cli.sheet import Answer, write

    write(page, [Answer(*answer) for answer in answers], collection.picture, note=LICENSE)
