"""The application: its options, and the commands it is made of."""

from __future__ import annotations

import typer

from embedkit_cli.commands import (
    advise,
    bench,
    catalog,
    demo,
    groups,
    index,
    judge,
    models,
    moves,
    products,
    search,
    setup,
    train,
    versions,
)

__all__ = ["app"]

app = typer.Typer(
    name="embedkit",
    help="Turn a product catalog into a visual search engine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from embedkit import __version__

        typer.echo(f"embedkit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version and exit."),
) -> None:
    """Turn a product catalog into a visual search engine."""


for _module in (
    demo,
    setup,
    catalog,
    search,
    products,
    groups,
    models,
    train,
    judge,
    index,
    advise,
    bench,
    versions,
    moves,
):
    _module.register(app)
