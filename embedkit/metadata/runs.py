"""The store's part that knows ingest runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from embedkit.metadata.models import IngestRun, table_of
from embedkit.metadata.rows import RunCounts, RunRow, RunState
from embedkit.metadata.session import Session, now

__all__ = ["Runs"]

_T = table_of(IngestRun)


def _row(row: sa.Row[Any]) -> RunRow:
    return RunRow(
        id=row.id,
        collection_id=row.collection_id,
        source=row.source,
        source_fingerprint=row.source_fingerprint,
        state=row.state,
        offset=row.offset,
        counts=RunCounts(**row.counts),
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


class Runs(Session):
    """Runs, from start to end, across interruptions."""

    def start_run(self, cid: int, *, source: str, source_fingerprint: str | None) -> RunRow:
        values = {
            "collection_id": cid,
            "source": source,
            "source_fingerprint": source_fingerprint,
            "state": "running",
            "offset": 0,
            "counts": asdict(RunCounts()),
            "started_at": now(),
        }
        with self._write() as connection:
            return _row(connection.execute(sa.insert(_T).values(values).returning(_T)).one())

    def resumable_run(self, cid: int, source_fingerprint: str) -> RunRow | None:
        """The collection's last run, if it is of this very source and did not come to its end.

        Somebody may still be at work on it: see `Locks.running`.
        """
        last = self.last_run(cid)
        if last is None or last.state == "complete" or last.source_fingerprint != source_fingerprint:
            return None
        return last

    def reopen_run(self, run_id: int) -> None:
        """Mark a run as running again; its offset and counts stay."""
        with self._write() as connection:
            connection.execute(sa.update(_T).where(_T.c.id == run_id).values(state="running", finished_at=None))

    def finish_run(self, run_id: int, state: RunState, counts: RunCounts) -> None:
        values = {"state": state, "counts": asdict(counts), "finished_at": now()}
        with self._write() as connection:
            connection.execute(sa.update(_T).where(_T.c.id == run_id).values(values))

    def last_run(self, cid: int) -> RunRow | None:
        query = sa.select(_T).where(_T.c.collection_id == cid).order_by(_T.c.id.desc()).limit(1)
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        return _row(row) if row else None
