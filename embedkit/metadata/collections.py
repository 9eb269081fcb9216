"""The store's part that knows collections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import sqlalchemy as sa

from embedkit.errors import CollectionExists, CollectionNotFound, listed
from embedkit.metadata.models import Collection, CollectionVersion, table_of
from embedkit.metadata.rows import CollectionRow, VersionRow, VersionState, ViewRow
from embedkit.metadata.session import Session, now
from embedkit.urls import place_of

__all__ = ["Collections"]

_T = table_of(Collection)
_O = table_of(CollectionVersion)
_GONE = "gone"  # the state of a version of which only the number is left


def _row(row: sa.Row[Any]) -> CollectionRow:
    views = tuple(ViewRow(**view) for view in row.views)
    return CollectionRow(
        row.id,
        row.name,
        row.backend_url,
        row.version,
        views,
        row.created_at,
        keywords=tuple(row.keywords or ()),
        epoch=row.epoch,
    )


def _with_others(connection: sa.Connection, row: CollectionRow) -> CollectionRow:
    here = (_O.c.collection_id == row.id, _O.c.state != _GONE)
    rows = connection.execute(sa.select(_O).where(*here).order_by(_O.c.version))
    others = (
        VersionRow(other.version, other.state, tuple(ViewRow(**view) for view in other.views), other.since)
        for other in rows
    )
    return replace(row, others=tuple(others))


def _locked_views(connection: sa.Connection, cid: int, version: int) -> list[dict[str, Any]]:
    """The views of the version that serves, which nobody else changes until the transaction ends; none of another."""
    here = sa.select(_T.c.views).where(_T.c.id == cid, _T.c.version == version).with_for_update()
    return connection.execute(here).scalar_one_or_none() or []


class Collections(Session):
    """Collections; one is known by its name and its backend's place together."""

    def create_collection(
        self, name: str, *, backend_url: str, views: Sequence[ViewRow], keywords: Sequence[str] = ()
    ) -> CollectionRow:
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
                    keywords=list(keywords) or None,
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
        return _with_others(connection, _row(here[0])) if here else None

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
        hint = f"it has {listed(here)}" if here else "nothing was ingested there from this home"
        if others:
            hint += f"; the same name is at {listed(others, 3)}"
        raise CollectionNotFound(
            f"There is no collection {name!r} at {backend_url} ({hint}); "
            f"make it with: embedkit ingest CATALOG -c {name}"
        )

    def collections(self, backend_url: str | None = None) -> tuple[CollectionRow, ...]:
        """All collections, or those of one backend, by name."""
        with self._read() as connection:
            found = connection.execute(sa.select(_T).order_by(_T.c.name, _T.c.id)).all()
            rows = tuple(_with_others(connection, _row(row)) for row in found)
        if backend_url is None:
            return rows
        return tuple(row for row in rows if place_of(row.backend_url) == place_of(backend_url))

    def move_encoders(self, cid: int, encoders: Mapping[str, str], *, version: int) -> None:
        """Say where the encoders of views are now, by view; all else of a view stays as it is by then.

        Nothing is done where another version serves meanwhile.
        """
        with self._write() as connection:
            views = _locked_views(connection, cid, version)
            moved = [{**one, "encoder": encoders.get(one["name"], one["encoder"])} for one in views]
            if moved != views:
                connection.execute(sa.update(_T).where(_T.c.id == cid).values(views=moved))

    def set_view(self, cid: int, view: ViewRow, *, version: int, over: str | None = None) -> bool:
        """Replace one view of the version that serves, as the others are by now; whether that was done.

        Not where another version serves meanwhile, nor where the view's index is no longer `over`.
        """
        with self._write() as connection:
            views = _locked_views(connection, cid, version)
            old = next((one for one in views if one["name"] == view.name), None)
            if old is None or over not in (None, old["index"]):
                return False
            changed = [asdict(view) if one is old else one for one in views]
            connection.execute(sa.update(_T).where(_T.c.id == cid).values(views=changed))
            return True

    # -- versions --------------------------------------------------------------------------------

    def epoch(self, cid: int) -> int | None:
        """How often the versions have changed; None of a collection that is gone."""
        with self._read() as connection:
            return connection.execute(sa.select(_T.c.epoch).where(_T.c.id == cid)).scalar_one_or_none()

    def next_version(self, cid: int) -> int:
        """A number that no version of the collection has had.

        A process that remembers something of one that is gone never takes a new one for it.
        """
        with self._read() as connection:
            serving = connection.execute(sa.select(_T.c.version).where(_T.c.id == cid)).scalar_one_or_none()
            other = connection.execute(sa.select(sa.func.max(_O.c.version)).where(_O.c.collection_id == cid)).scalar()
        return max(serving or 0, other or 0) + 1

    def add_version(self, cid: int, version: int, views: Sequence[ViewRow]) -> None:
        """Begin a version beside the one that serves; from now on it is written to."""
        values = {
            "collection_id": cid,
            "version": version,
            "state": "building",
            "views": [asdict(view) for view in views],
            "since": now(),
        }
        with self._write() as connection:
            connection.execute(sa.insert(_O).values(values))
            self._changed(connection, cid)

    def set_version_views(self, cid: int, version: int, views: Sequence[ViewRow]) -> None:
        """The same views, of which an encoder lies at another place now."""
        here = (_O.c.collection_id == cid, _O.c.version == version)
        with self._write() as connection:
            connection.execute(sa.update(_O).where(*here).values(views=[asdict(view) for view in views]))

    def set_version_state(self, cid: int, version: int, state: VersionState) -> None:
        """One that is dropped is no longer written to; between the other states nothing changes for a writer."""
        here = (_O.c.collection_id == cid, _O.c.version == version)
        with self._write() as connection:
            connection.execute(sa.update(_O).where(*here).values(state=state, since=now()))
            if state == "dropped":
                self._changed(connection, cid)

    def forget_version(self, cid: int, version: int) -> None:
        """The last step of dropping a version; its number stays, so that it is not given out again."""
        here = (_O.c.collection_id == cid, _O.c.version == version)
        with self._write() as connection:
            connection.execute(sa.update(_O).where(*here).values(state=_GONE, views=[], since=now()))
            self._changed(connection, cid)

    def switch_version(self, cid: int, version: int) -> None:
        """Let another version serve, in one transaction; the one that did is kept. Raises CollectionNotFound."""
        with self._write() as connection:
            old = connection.execute(sa.select(_T).where(_T.c.id == cid)).one_or_none()
            here = (_O.c.collection_id == cid, _O.c.version == version)
            new = connection.execute(sa.select(_O).where(*here)).one_or_none()
            if old is None or new is None:
                raise CollectionNotFound(f"There is no version {version} of the collection to switch to")
            connection.execute(sa.delete(_O).where(*here))
            kept = {"collection_id": cid, "version": old.version, "state": "kept", "views": old.views}
            connection.execute(sa.insert(_O).values({**kept, "since": now()}))
            connection.execute(sa.update(_T).where(_T.c.id == cid).values(version=version, views=new.views))
            self._changed(connection, cid)

    def _changed(self, connection: sa.Connection, cid: int) -> None:
        connection.execute(sa.update(_T).where(_T.c.id == cid).values(epoch=_T.c.epoch + 1))

    def drop_collection(self, cid: int) -> None:
        """Remove a collection with all that belongs to it."""
        with self._write() as connection:
            connection.execute(sa.delete(_T).where(_T.c.id == cid))
