"""The store's part that knows vectors: which are live, which are on their way out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from embedkit.metadata.models import Product, Vector, table_of
from embedkit.metadata.rows import VectorState
from embedkit.metadata.session import Session, parts

if TYPE_CHECKING:
    from embedkit.types import IdArray

__all__ = ["Vectors"]

_P = table_of(Product)
_V = table_of(Vector)


def _by_view(rows: sa.CursorResult[Any]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(row.view, []).append(row.id)
    return found


def _merge(into: dict[str, list[int]], more: Mapping[str, list[int]]) -> None:
    for view, ids in more.items():
        into.setdefault(view, []).extend(ids)


class Vectors(Session):
    """Vector rows by id. Deleting goes: mark, remove from the backend, purge."""

    def vector_ids_of(self, cid: int, keys: Sequence[str]) -> dict[str, dict[str, int]]:
        """The live vectors of products: ``{key: {view: id}}``."""
        found: dict[str, dict[str, int]] = {}
        with self._read() as connection:
            for part in parts(keys):
                rows = connection.execute(
                    sa.select(_P.c.key, _V.c.view, _V.c.id)
                    .join(_P, _P.c.id == _V.c.product_id)
                    .where(_P.c.collection_id == cid, _P.c.key.in_(part), _P.c.deleted.is_(False), _V.c.state == "live")
                )
                for key, view, vector_id in rows:
                    found.setdefault(key, {})[view] = vector_id
        return found

    def count_vectors(self, cid: int, view: str, state: VectorState = "live") -> int:
        query = (
            sa.select(sa.func.count())
            .select_from(_V)
            .where(_V.c.collection_id == cid, _V.c.view == view, _V.c.state == state)
        )
        with self._read() as connection:
            return connection.execute(query).scalar_one()

    def scan_vector_ids(
        self, cid: int, view: str, *, states: Sequence[VectorState] = ("live",), batch: int = 10_000
    ) -> Iterator[IdArray]:
        """Ids in ascending order, in pieces."""
        after = -1
        while True:
            query = (
                sa.select(_V.c.id)
                .where(_V.c.collection_id == cid, _V.c.view == view, _V.c.state.in_(states), _V.c.id > after)
                .order_by(_V.c.id)
                .limit(batch)
            )
            with self._read() as connection:
                ids = np.fromiter(connection.execute(query).scalars(), np.int64)
            if not ids.size:
                return
            yield ids
            after = int(ids[-1])

    def drop_vectors(self, cid: int, ids: Sequence[int]) -> None:
        """Forget vectors whatever their state; their products stay, and the next ingest encodes them anew.

        Products that never came to be (a row without any vector, from a run that was killed) go too.
        """
        with self._write() as connection:
            owners: list[int] = []
            for part in parts(ids):
                where = (_V.c.collection_id == cid, _V.c.id.in_(part))
                owners += connection.execute(sa.select(_V.c.product_id).where(*where).distinct()).scalars()
                connection.execute(sa.delete(_V).where(*where))
            for part in parts(owners):
                connection.execute(sa.delete(_P).where(_P.c.id.in_(part), _P.c.last_run.is_(None), ~_has_vectors()))

    # -- deleting --------------------------------------------------------------------------------

    def mark_deleted(self, cid: int, keys: Sequence[str]) -> dict[str, list[int]]:
        """Take products out of every answer; their vectors by view. Unknown keys are left out."""
        marked: dict[str, list[int]] = {}
        with self._write() as connection:
            for part in parts(keys):
                chosen = sa.select(_P.c.id).where(_P.c.collection_id == cid, _P.c.key.in_(part))
                connection.execute(sa.update(_P).where(_P.c.id.in_(chosen)).values(deleted=True))
                _merge(marked, self._mark(connection, _V.c.product_id.in_(chosen)))
                _drop_bare(connection, _P.c.collection_id == cid, _P.c.key.in_(part))
        return marked

    def retire_vectors(self, cid: int, views: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
        """Mark single vectors, ``{key: [views]}``, as deleted; their products stay."""
        marked: dict[str, list[int]] = {}
        with self._write() as connection:
            for key, names in views.items():
                chosen = sa.select(_P.c.id).where(_P.c.collection_id == cid, _P.c.key == key)
                _merge(marked, self._mark(connection, _V.c.product_id.in_(chosen), _V.c.view.in_(names)))
        return marked

    def _mark(self, connection: sa.Connection, *where: sa.ColumnElement[bool]) -> dict[str, list[int]]:
        marked = _by_view(connection.execute(sa.select(_V.c.id, _V.c.view).where(*where).order_by(_V.c.id)))
        connection.execute(sa.update(_V).where(*where).values(state="deleted"))
        return marked

    def deleted_vectors(self, cid: int, views: Collection[str], *, limit: int = 10_000) -> dict[str, list[int]]:
        """Vectors of these views that are marked and not yet purged, by view; empty when there are none."""
        query = (
            sa.select(_V.c.id, _V.c.view)
            .where(_V.c.collection_id == cid, _V.c.view.in_(list(views)), _V.c.state == "deleted")
            .order_by(_V.c.id)
            .limit(limit)
        )
        with self._read() as connection:
            return _by_view(connection.execute(query))

    def purge(self, cid: int, ids: Sequence[int]) -> None:
        """Forget marked vectors, and those of their products that are marked and have none left."""
        with self._write() as connection:
            for part in parts(ids):
                where = (_V.c.collection_id == cid, _V.c.id.in_(part), _V.c.state == "deleted")
                owners = connection.execute(sa.select(_V.c.product_id).where(*where).distinct()).scalars().all()
                connection.execute(sa.delete(_V).where(*where))
                _drop_bare(connection, _P.c.id.in_(owners))

    def forget_view(self, cid: int, view: str, *, batch: int = 10_000) -> int:
        """Forget every vector of a view that has left the backend, in pieces; how many there were."""
        chosen = sa.select(_V.c.id).where(_V.c.collection_id == cid, _V.c.view == view).limit(batch)
        total = 0
        while True:
            with self._write() as connection:
                count = connection.execute(sa.delete(_V).where(_V.c.id.in_(chosen.scalar_subquery()))).rowcount
                if not count:
                    _drop_bare(connection, _P.c.collection_id == cid)
                    return total
            total += count


def _drop_bare(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> None:
    """Forget products that are marked and have no vectors. `where`: which to look at; all of a collection take long."""
    connection.execute(sa.delete(_P).where(*where, _P.c.deleted, ~_has_vectors()))


def _has_vectors() -> sa.ColumnElement[bool]:
    return sa.exists().where(_V.c.product_id == _P.c.id)
