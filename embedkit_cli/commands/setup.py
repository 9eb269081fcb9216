"""``init`` and ``config``: the settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from embedkit_cli import place, render
from embedkit_cli.options import AsJson, Backend, Config, kit_of

__all__ = ["register"]

_TEMPLATE = """# Settings of embedkit. Every line may be left out; what is shown is the default.
# The environment overrides this file: EMBEDKIT_BACKEND, EMBEDKIT_BACKEND_OPTIONS__PASSWORD, …

# Where vectors live: milvus:///file.db (embedded), milvus://host:19530/database, faiss:///folder
backend = {backend}

# Where products live: sqlite:///file.db or postgresql+psycopg://user@host/database
# store = "sqlite:///.embedkit/embedkit.db"

# What runs the encoders: auto, onnx, openvino, torch
# runtime = "auto"

# Attributes whose words are searched by --keywords, beside the title's
# keywords = ["brand"]

# The views of a new collection, and the encoder of each
# [views]
# image = "effnet-lite0"
# title = "minilm"

# Which column of a table is what, if the usual names are not used
# [map]
# key = "sku"
# image = "photo_url"
# title = "name"

# [ingest]
# batch_size = 32
# decode_threads = 0

# What one collection does differently
# [collections.shoes]
# index = "hnsw(m=16)"
"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(init)
    app.command()(config)


def init(
    config_file: Annotated[Path, typer.Option("--config", help="File to write.")] = Path("embedkit.toml"),
    backend: Annotated[str, typer.Option("--backend", help="Backend URL.")] = "milvus:///.embedkit/milvus.db",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write a config file with every common setting explained."""
    if config_file.exists() and not overwrite:
        render.error_line(f"{config_file} exists; look at it with: embedkit config, or say --overwrite")
        raise typer.Exit(1)
    try:
        config_file.write_text(_TEMPLATE.format(backend=json.dumps(backend, ensure_ascii=False)), encoding="utf-8")
    except OSError as error:
        render.error_line(f"{config_file} cannot be written: {error.strerror}")
        raise typer.Exit(1) from error
    if config_file != Path("embedkit.toml"):
        place.given(config_file, None)
    render.note(f"Written: {config_file}. Next: embedkit ingest CATALOG")


def config(config_file: Config = None, backend: Backend = None, json_only: AsJson = False) -> None:
    """Show the settings in force, from file, environment and options. Passwords are hidden."""
    with kit_of(config_file, backend) as kit:
        values = kit.settings.as_dict()
    if json_only:
        render.as_json(values)
        return
    for name, value in values.items():
        inner = value if isinstance(value, dict) else {"": value}
        render.fields((f"{name}.{key}" if key else name, text) for key, text in inner.items())
