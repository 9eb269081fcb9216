"""The store's part that knows collections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from embedkit.errors import CollectionExists, CollectionNotFound
from embedkit.metadata.models import Collection, table_of
from embedkit.metadata.rows import CollectionRow, ViewRow
from embedkit.metadata.session import Session, now
from embedkit.urls import place_of

__all__ = ["Collections"]

_T = table_of(Collection)


def _row(row: sa.Row[Any]) -> CollectionRow:
    views = tuple(ViewRow(**view) for view in row.views)
    keywords = tuple(row.keywords or ())
    return CollectionRow(row.id, row.name, row.backend_url, row.version, views, row.created_at, keywords)


class Collections(Session):
    """Collections; one is known by its name and its backend's place together."""

    def create_collection(self, name: str, *, backend_url: str, views: Sequence[ViewRow]) -> CollectionRow:
        """Add a collection without products. Raises CollectionExists."""
        with self._write() as connection:
            if self._found(connection, name, backend_url):
                raise CollectionExists(f"The collection {name!r} at {backend_url} is already there.")
            connection.execute(
                sa.insert(_T).values(
                    name=name,
                    backend_url=backend_url,
                    version=1,
                    views=[asdict(view) for view in views],
                    created_at=now(),
                )
            )
            made = self._found(connection, name, backend_url)
        assert made is not None  # it was inserted in this transaction
        return made

    def _found(self, connection: sa.Connection, name: str, backend_url: str) -> CollectionRow | None:
        """The one at that place, however its URL was written then and is now; the same text goes first."""
        rows = connection.execute(sa.select(_T).where(_T.c.name == name).order_by(_T.c.id)).all()
        here = [row for row in rows if place_of(row.backend_url) == place_of(backend_url)]
        here.sort(key=lambda row: row.backend_url != backend_url)
        return _row(here[0]) if here else None

    def find_collection(self, name: str, backend_url: str) -> CollectionRow | None:
        with self._read() as connection:
            return self._found(connection, name, backend_url)

    def collection(self, name: str, backend_url: str) -> CollectionRow:
        """Raises CollectionNotFound, naming what there is."""
        found = self.find_collection(name, backend_url)
        if found is not None:
            return found
        everywhere = self.collections()
        here = [row.name for row in everywhere if place_of(row.backend_url) == place_of(backend_url)]
        others = sorted(row.backend_url for row in everywhere if row.name == name)
        hint = f"it has {', '.join(here[:8])}" if here else "it is empty"
        if others:
            hint += f"; the same name is at {', '.join(others[:3])}"
        raise CollectionNotFound(
            f"There is no collection {name!r} at {backend_url} ({hint}); "
            f"make it with: embedkit ingest CATALOG -c {name}"
        )

    def collections(self, backend_url: str | None = None) -> tuple[CollectionRow, ...]:
        """All collections, or those of one backend, by name."""
        with self._read() as connection:
            rows = tuple(_row(row) for row in connection.execute(sa.select(_T).order_by(_T.c.name, _T.c.id)))
        if backend_url is None:
            return rows
        return tuple(row for row in rows if place_of(row.backend_url) == place_of(backend_url))

    def set_views(self, cid: int, views: Sequence[ViewRow], *, version: int) -> None:
        """Replace the views in one step: the switch to another physical version."""
        values = {"views": [asdict(view) for view in views], "version": version}
        with self._write() as connection:
            connection.execute(sa.update(_T).where(_T.c.id == cid).values(values))

    def drop_collection(self, cid: int) -> None:
        """Remove a collection with all that belongs to it."""
        with self._write() as connection:
            connection.execute(sa.delete(_T).where(_T.c.id == cid))
