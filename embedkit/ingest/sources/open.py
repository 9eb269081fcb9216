"""From what the user typed to a source."""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from embedkit import plugins
from embedkit.errors import BadSource
from embedkit.ingest.places.archives import archive_kind, split_archive
from embedkit.ingest.places.local import local_path
from embedkit.ingest.places.open import is_web
from embedkit.ingest.sources.contract import Source
from embedkit.ingest.sources.mapping import ColumnMapping
from embedkit.ingest.sources.tables import TABLE_KINDS, table_suffix
from embedkit.urls import redact

__all__ = ["open_source"]

_DATABASES = ("sqlite", "postgresql", "mysql", "mariadb", "oracle", "mssql")


def open_source(
    text: str, *, mapping: ColumnMapping | None = None, kind: str | None = None, query: str | None = None
) -> Source:
    """Open a catalog: a folder, an archive, a table or a database URL with `query`.

    Tables (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``), folders and archives (``.zip``, ``.tar``,
    ``.tar.gz``…) may lie on this machine or at any fsspec URL. A folder or archive that holds a
    ``products.jsonl``, ``.csv`` or ``.parquet`` is read as that table.
    Raises BadSource, ConfigError, MissingExtra, UnknownName.
    """
    mapping = mapping or ColumnMapping()
    _check_url(text)
    kind = kind or _kind_of(text)
    if query is not None and kind != "sql":
        raise BadSource(f"{redact(text)!r} is no database, so --query does not apply; leave it out")
    source: Source = plugins.load("sources", kind)(text, mapping=mapping, query=query)
    return source


def _kind_of(text: str) -> str:
    """What the name of a catalog tells, without opening it; of a local path also whether it is a folder."""
    scheme = text.partition("://")[0].lower().partition("+")[0] if "://" in text else ""
    if scheme in _DATABASES:
        return "sql"
    path = local_path(text)
    if path is not None and os.path.isdir(path):
        return "folder"
    if path is not None and not os.path.lexists(path):
        raise BadSource(f"There is no catalog {text!r}; give a folder of pictures, a table or a database URL")
    inside = split_archive(text)
    if inside is None and archive_kind(_name_of(text)):
        return "folder"
    name = _name_of(text) if inside is None else inside.member
    if (known := TABLE_KINDS.get(table_suffix(name))) and not name.endswith("/"):
        return known
    if path is None and not is_web(text) and (inside is None or not PurePosixPath(name).suffix):
        return "folder"
    lists = " (a web server lists no folders)" if is_web(text) else ""
    raise BadSource(
        f"{redact(text)!r} is no catalog of a known kind{lists}; give a folder, an archive (.zip, .tar, .tar.gz), "
        f"a table ({', '.join(TABLE_KINDS)}), a database URL, or say which with --kind"
    )


def _check_url(text: str) -> None:
    """Raise BadSource for an http(s) URL whose host is none, such as one with half an IPv6 address."""
    try:
        if is_web(text):
            urlsplit(text)
    except ValueError as error:
        raise BadSource(f"The catalog {redact(text)!r} cannot be read: it is no URL: {error}") from error


def _name_of(text: str) -> str:
    path = local_path(text)
    if path is not None:
        return path
    return unquote(urlsplit(text).path) if is_web(text) else text
