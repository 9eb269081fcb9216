"""From what the user typed to a source."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from embedkit import plugins
from embedkit.errors import BadSource
from embedkit.ingest.sources.contract import Source
from embedkit.ingest.sources.mapping import ColumnMapping
from embedkit.urls import redact

__all__ = ["open_source"]

_KINDS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_TABLES = ("products.jsonl", "products.csv", "products.parquet")
_DATABASES = ("sqlite", "postgresql", "mysql", "mariadb", "oracle", "mssql")


def open_source(
    text: str, *, mapping: ColumnMapping | None = None, kind: str | None = None, query: str | None = None
) -> Source:
    """Open a catalog: a folder, a table (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``) or a database URL with `query`.

    A folder that holds a ``products.jsonl``, ``.csv`` or ``.parquet`` is read as that table.
    Raises BadSource, ConfigError, UnknownName.
    """
    mapping = mapping or ColumnMapping()
    kind = kind or _kind_of(text)
    if kind == "folder":
        table = next((Path(text) / name for name in _TABLES if (Path(text) / name).is_file()), None)
        if table is not None:
            text, kind = str(table), _KINDS[table.suffix]
    if query is not None and kind != "sql":
        raise BadSource(f"{redact(text)!r} is no database, so --query does not apply; leave it out")
    source: Source = plugins.load("sources", kind)(text, mapping=mapping, query=query)
    return source


def _kind_of(text: str) -> str:
    scheme = urlsplit(text).scheme.partition("+")[0]
    if "://" in text and scheme in _DATABASES:
        return "sql"
    path = Path(text)
    if path.is_dir():
        return "folder"
    if "://" not in text and not path.exists():
        raise BadSource(f"There is no catalog {text!r}; give a folder of pictures, a table or a database URL")
    known = _KINDS.get(Path(urlsplit(text).path if "://" in text else text).suffix.lower())
    if known is None:
        raise BadSource(
            f"{redact(text)!r} is no catalog of a known kind; give a folder, a table "
            f"({', '.join(_KINDS)}), a database URL, or say which with --kind"
        )
    return known
