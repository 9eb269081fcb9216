"""The store's part that knows what could not go in."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

import sqlalchemy as sa

from embedkit.metadata.models import Failure, table_of
from embedkit.metadata.rows import FailureRow, FailureWrite
from embedkit.metadata.session import Session, inserting, now, parts

__all__ = ["Failures", "forget", "remember"]

_T = table_of(Failure)


def remember(connection: sa.Connection, cid: int, failures: Sequence[FailureWrite], *, only: str | None = None) -> None:
    """Add failures, or count another attempt of those that are known; with `only`, of those known at that stage."""
    if not failures:
        return
    moment = now()
    values = [
        {
            "collection_id": cid,
            "key": failure.key,
            "locator": failure.locator,
            "stage": failure.stage,
            "error": failure.error,
            "record": dict(failure.record),
            "attempts": 1,
            "first_seen": moment,
            "last_seen": moment,
        }
        for failure in {failure.key: failure for failure in failures}.values()
    ]
    values.sort(key=itemgetter("key"))  # in one order, lest two writers wait for each other
    insert = inserting(connection, _T)
    again = insert.on_conflict_do_update(
        index_elements=["collection_id", "key"],
        set_={
            **{name: insert.excluded[name] for name in ("locator", "stage", "error", "record", "last_seen")},
            "attempts": _T.c.attempts + 1,
        },
        where=None if only is None else _T.c.stage == only,
    )
    connection.execute(again, values)


def forget(connection: sa.Connection, cid: int, keys: Sequence[str], *, stage: str | None = None) -> None:
    """Remove the failures of products that went in, all of them or those of one stage."""
    of_stage = () if stage is None else (_T.c.stage == stage,)
    for part in parts(keys):
        connection.execute(sa.delete(_T).where(_T.c.collection_id == cid, _T.c.key.in_(part), *of_stage))


class Failures(Session):
    """Failures, by key."""

    def failures(
        self, cid: int, *, stage: str | None = None, limit: int | None = None, after: str = ""
    ) -> list[FailureRow]:
        """Failures in the order of their keys, beginning behind `after`."""
        query = sa.select(_T).where(_T.c.collection_id == cid, _T.c.key > after).order_by(_T.c.key)
        if stage is not None:
            query = query.where(_T.c.stage == stage)
        if limit is not None:
            query = query.limit(limit)
        with self._read() as connection:
            return [
                FailureRow(
                    row.key, row.locator, row.stage, row.error, row.record, row.attempts, row.first_seen, row.last_seen
                )
                for row in connection.execute(query)
            ]

    def failure_count(self, cid: int) -> int:
        with self._read() as connection:
            return connection.execute(
                sa.select(sa.func.count()).select_from(_T).where(_T.c.collection_id == cid)
            ).scalar_one()

    def clear_failures(self, cid: int, keys: Sequence[str]) -> None:
        with self._write() as connection:
            forget(connection, cid, keys)
