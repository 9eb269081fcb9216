"""Comparing the store with the backend, id by id, and mending what differs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import numpy as np

from embedkit.errors import CollectionNotFound
from embedkit.ingest.committer import remove_vectors
from embedkit.ingest.target import Target
from embedkit.metadata.rows import ViewRow

__all__ = ["VerifyReport", "ViewCheck", "verify"]

_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class ViewCheck:
    """One view. `missing`: live in the store, not in the backend. `orphaned`: in the backend, not live in
    the store. `duplicate`: ids that the backend holds more than once. `pending`: begun and never finished.
    """

    count: int
    missing: int
    orphaned: int
    duplicate: int
    pending: int

    @property
    def ok(self) -> bool:
        return not (self.missing or self.orphaned or self.duplicate or self.pending)


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`repaired`: what was wrong is mended; missing vectors come back with the next ingest."""

    views: Mapping[str, ViewCheck]
    repaired: bool = False

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.views.values())

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        views = {name: asdict(check) for name, check in self.views.items()}
        return {"ok": self.ok, "repaired": self.repaired, "views": views}


def verify(target: Target, *, repair: bool = False) -> VerifyReport:
    """Compare both sides. With `repair`, orphaned and doubled rows leave the backend, and products whose
    vector is missing are marked so that the next ingest encodes them again.
    """
    with target.writing() if repair else nullcontext():  # what is being written is not to be mended
        if repair:
            remove_vectors(target)
        checks = {slot: _check(target, view, repair=repair) for slot, view in target.views.items()}
    return VerifyReport(checks, repaired=repair and not all(check.ok for check in checks.values()))


def _check(target: Target, view: ViewRow, *, repair: bool) -> ViewCheck:
    store, backend, cid = target.store, target.backend, target.row.id
    live = _gather(store.scan_vector_ids(cid, view.slot, states=("live",), batch=_BATCH))
    pending = _gather(store.scan_vector_ids(cid, view.slot, states=("pending",), batch=_BATCH))
    try:
        stored = _gather(backend.scan_ids(view.physical, _BATCH))
    except CollectionNotFound:  # lost in the backend, and made again by the next ingest
        stored = np.empty(0, np.int64)
    there, times = np.unique(stored, return_counts=True)
    doubled = there[times > 1]
    missing = np.setdiff1d(live, there, assume_unique=True)
    orphaned = np.setdiff1d(there, live, assume_unique=True)
    if repair:
        _mend(target, view, missing=missing, orphaned=orphaned, doubled=doubled, pending=pending)
    return ViewCheck(len(live), len(missing), len(orphaned), len(doubled), len(pending))


def _mend(
    target: Target,
    view: ViewRow,
    *,
    missing: np.ndarray[tuple[int], np.dtype[np.int64]],
    orphaned: np.ndarray[tuple[int], np.dtype[np.int64]],
    doubled: np.ndarray[tuple[int], np.dtype[np.int64]],
    pending: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> None:
    store, cid = target.store, target.row.id
    wrong = np.union1d(orphaned, doubled)
    if len(wrong):
        target.backend.delete(view.physical, wrong)
    lost = np.union1d(missing, doubled)
    if len(lost):
        store.drop_vectors(cid, lost.tolist())
    if len(pending):
        store.drop_vectors(cid, pending.tolist())


def _gather(batches: object) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    parts = [np.asarray(part, np.int64) for part in batches]  # type: ignore[attr-defined]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
