"""``encoders``, ``backends``, ``export``: what there is to choose from."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from embedkit_cli import render
from embedkit_cli.options import AsJson

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(encoders)
    app.command()(backends)
    app.command()(export)


def encoders(
    spec: Annotated[
        str | None,
        typer.Argument(help="Describe one encoder, such as effnet-lite0 or a model folder.", show_default=False),
    ] = None,
    json_only: AsJson = False,
) -> None:
    """List the encoders, or describe one."""
    import embedkit

    if spec is not None:
        values = asdict(embedkit.describe_encoder(spec))
        if json_only:
            render.as_json(values)
        else:
            render.fields((name, ", ".join(map(str, v)) if isinstance(v, tuple) else v) for name, v in values.items())
        return
    every = embedkit.list_encoders()
    if json_only:
        render.as_json({"encoders": [asdict(one) for one in every]})
        return
    rows = [
        (one.name, one.summary, "" if one.installed else f"pip install 'embedkit-search[{one.extra}]'") for one in every
    ]
    render.table(["encoder", "what it is", "to install"], rows)


def backends(json_only: AsJson = False) -> None:
    """List the backends and what each can do."""
    import embedkit

    every = embedkit.list_backends()
    if json_only:
        render.as_json(
            {
                "backends": [
                    {"name": b.name, "summary": b.summary, "capabilities": _plain(b.capabilities)} for b in every
                ]
            }
        )
        return
    rows = []
    for one in every:
        able = one.capabilities
        rows.append(
            (
                one.name,
                one.summary,
                ", ".join(able.metrics) if able else "",
                ", ".join(able.index_families) if able else "",
                ", ".join(able.binary_families) if able else "",
            )
        )
    render.table(["backend", "what it is", "metrics", "indexes", "indexes of codes"], rows)


def _plain(capabilities: Any) -> dict[str, Any] | None:
    if capabilities is None:
        return None
    values = asdict(capabilities)
    values["filter_operators"] = sorted(values["filter_operators"])
    return values


def export(
    encoder: Annotated[str, typer.Argument(help="Encoder to export, such as torchvision:resnet50.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    fit: Annotated[
        str | None,
        typer.Option(
            help="Catalog whose pictures fit what is learned: netvlad, rmac with whitened regions, dim=, hash=.",
            metavar="CATALOG",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model folder that is there.")] = False,
    json_only: AsJson = False,
) -> None:
    """Write an encoder as a model folder, which runs without torch."""
    import embedkit

    folder = embedkit.export_encoder(encoder, out, fit=fit, overwrite=overwrite)
    made = embedkit.describe_encoder(str(folder))
    if json_only:
        render.as_json({"folder": str(folder), **asdict(made)})
    else:
        view = "image" if "image" in made.modalities else "title"
        render.note(f"Written: {folder}. Use it with: embedkit ingest CATALOG --encoder {view}={folder}")
