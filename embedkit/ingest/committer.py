"""Last stage: one thread that writes batches, in the order of the source, in three steps.

1. the store: rows ``pending``, ids issued; 2. the backend: an idempotent upsert; 3. the store:
rows ``live`` and the offset, in one transaction. A kill between any two leaves a state that the
next run brings to the same end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from embedkit.backends.contract import VectorBackend
from embedkit.errors import Transient
from embedkit.ingest.channel import Channel, Stop, Stopped
from embedkit.ingest.items import Failed, Item, failure_of
from embedkit.ingest.target import Target, columns_of
from embedkit.metadata.rows import KnownProduct, RunCounts

if TYPE_CHECKING:
    from embedkit.types import VectorArray

__all__ = ["Batch", "Committer", "Encoded", "remove_vectors", "retry"]

T = TypeVar("T")
_log = logging.getLogger(__name__)
_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between tries when a store or backend is away


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors of one view: rows of `vectors` belong to `keys`. `errors`: keys that the encoder refused."""

    vectors: VectorArray
    keys: Sequence[str]
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records with their vectors on the way, by slot; `offset`: records of the source up to here."""

    items: Sequence[Item]
    failed: Sequence[Failed]
    vectors: Sequence[Future[Mapping[str, Encoded]]]
    keys: Sequence[str]
    offset: int


def retry(work: Callable[[], T], stop: Stop, note: Callable[[str], None]) -> T:
    """Try again with growing pauses while the error is Transient; then raise it."""
    for wait in _WAITS:
        try:
            return work()
        except Transient as error:
            _log.warning("%s Trying again in %.1f s.", error, wait)
            note(f"waiting: {error}")
            if stop.wait(wait):
                raise Stopped from error
    return work()


class Committer:
    """Writes every batch of a channel. `counts` and `offset` are what is safely written.

    `unreadable`: rows of the same run that could not be read before it was interrupted.
    """

    def __init__(
        self,
        target: Target,
        *,
        run_id: int,
        unreadable: int,
        finished: SimpleQueue[str],
        stop: Stop,
        note: Callable[[str], None],
    ) -> None:
        self._target = target
        self._run_id = run_id
        self._finished = finished
        self._stop = stop
        self._note = note
        self.counts = RunCounts(unreadable=unreadable)
        self.offset = 0

    def run(self, batches: Channel[Batch]) -> None:
        """Write to the end; an error stops the run."""
        try:
            for batch in batches:
                self._write(batch)
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001  handed to the thread that called ingest, which raises it
            self._stop.set(error)

    def _write(self, batch: Batch) -> None:
        encoded = {slot: part for future in batch.vectors for slot, part in future.result().items()}
        refused = {key: error for part in encoded.values() for key, error in part.errors.items()}
        items = [item for item in batch.items if item.record.key not in refused]
        failed = [*batch.failed]
        failed += [
            Failed(failure_of(item.record, "encode", refused[item.record.key]), item.known)
            for item in batch.items
            if item.record.key in refused
        ]
        self._attempt(lambda: self._commit(items, failed, encoded, batch.offset))
        for key in batch.keys:
            self._finished.put(key)

    def _attempt(self, work: Callable[[], None]) -> None:
        retry(work, self._stop, self._note)

    def _commit(
        self, items: Sequence[Item], failed: Sequence[Failed], encoded: Mapping[str, Encoded], offset: int
    ) -> None:
        """The three steps, which no other writer shares: one between them would leave another one's vector here."""
        with self._target.writing():
            self._commit_alone(items, failed, encoded, offset)

    def _commit_alone(
        self, items: Sequence[Item], failed: Sequence[Failed], encoded: Mapping[str, Encoded], offset: int
    ) -> None:
        store, cid = self._target.store, self._target.row.id
        changed = [item for item in items if item.written]
        now = store.known(cid, [item.record.key for item in changed if item.known])
        changed = [item for item in changed if item.record.key in now or not item.known]  # else deleted meanwhile
        fresh = [item for item in changed if item.inputs]
        issued = store.begin(cid, [item.write for item in fresh]) if fresh else []
        ids = {item.record.key: by_view for item, by_view in zip(fresh, issued, strict=True)}
        columns = {
            item.record.key: columns_of(item.record.key, item.write.title, item.write.attributes) for item in changed
        }
        for view, part in encoded.items():
            self._upsert(view, part, ids, columns)
        self._update_columns(changed, columns, now)
        retired = {item.record.key: list(item.retired) for item in changed if item.retired}
        counts = self._counted(len(items), changed, failed)
        store.commit(
            cid,
            run_id=self._run_id,
            writes=[item.write for item in changed],
            failures=[entry.failure for entry in failed],
            skipped=[item.record.key for item in items if item.record.key not in columns]
            + [entry.key for entry in failed if entry.known],
            places=[item.record.locator for item in items],
            offset=offset,
            counts=counts,
        )
        if retired:
            store.retire_vectors(cid, retired)
            remove_vectors(self._target)
        self.counts, self.offset = counts, offset

    def _upsert(
        self,
        view: str,
        part: Encoded,
        ids: Mapping[str, Mapping[str, int]],
        columns: Mapping[str, Mapping[str, object]],
    ) -> None:
        rows = [(row, key) for row, key in enumerate(part.keys) if key in ids]
        if not rows:
            return
        vectors = part.vectors if len(rows) == len(part.keys) else part.vectors[[row for row, _ in rows]]
        self._backend.upsert(
            self._target.views[view].physical,
            np.fromiter((ids[key][view] for _, key in rows), np.int64, len(rows)),
            vectors,
            [columns[key] for _, key in rows],
        )

    def _update_columns(
        self,
        changed: Sequence[Item],
        columns: Mapping[str, Mapping[str, object]],
        now: Mapping[str, KnownProduct],
    ) -> None:
        """Of the vectors that stay. `now`: others may have made some since the records were compared with the store."""
        for name, view in self._target.views.items():
            stale = [
                (product.vectors[name].id, item.record.key)
                for item in changed
                if name not in item.inputs
                and (product := now.get(item.record.key)) is not None
                and (product.title, product.attributes) != (item.write.title, item.write.attributes)
                and name in product.vectors
                and product.vectors[name].state == "live"
            ]
            if stale:
                ids = np.fromiter((vector_id for vector_id, _ in stale), np.int64, len(stale))
                self._backend.update_columns(view.physical, ids, [columns[key] for _, key in stale])

    @property
    def _backend(self) -> VectorBackend:
        return self._target.backend

    def _counted(self, good: int, changed: Sequence[Item], failed: Sequence[Failed]) -> RunCounts:
        encoded = sum(bool(item.inputs) for item in changed)
        updated = sum(item.changed and not item.inputs for item in changed)
        old = self.counts
        return RunCounts(
            seen=old.seen + good + len(failed),
            encoded=old.encoded + encoded,
            updated=old.updated + updated,
            skipped=old.skipped + good - encoded - updated,
            failed=old.failed + len(failed),
            deleted=old.deleted,
            unreadable=old.unreadable + sum(entry.unreadable for entry in failed),
        )


def remove_vectors(target: Target) -> None:
    """Finish every deletion that the store has marked: out of the backend, then out of the store.

    It starts from the mark, so a kill in between is mended by the next call. The caller holds `target.writing()`, else
    a product that comes back between the look and the deletion would lose its vector.
    """
    views = target.views
    while marked := target.store.deleted_vectors(target.row.id, views, limit=10_000):
        for view, ids in marked.items():
            target.backend.delete(views[view].physical, np.asarray(ids, np.int64))
        target.store.purge(target.row.id, [vector_id for ids in marked.values() for vector_id in ids])
