"""Reindex: a new version of a collection beside the one that serves, compared with it, and put in its place."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from embedkit.errors import CollectionNotFound, DataCorrupt
from embedkit.ingest.reencode import Filled, Filling, fill
from embedkit.ingest.target import Moved, Target
from embedkit.living.versions import Switched, new_version, switch
from embedkit.search.shadow import ViewComparison, compare_views
from embedkit.search.state import build_or_wait
from embedkit.views import encoder_of, ensure_physical

if TYPE_CHECKING:
    from embedkit.ingest.report import ProgressCallback
    from embedkit.metadata.rows import CollectionRow, VersionRow
    from embedkit.resources import Resources

__all__ = ["ReindexReport", "reindex"]


@dataclass(frozen=True, slots=True)
class ReindexReport:
    """How a reindex ended.

    `seen` products: `encoded` anew, `copied` (vectors that did not change), `skipped` (there already), `failed` (of
    which `lost` names the first, with the reason). `changed`: pictures that are no longer those that were ingested.
    `switched`: None if the old version serves on; `refused` then says why, if it was not asked for.
    """

    collection: str
    version: int
    serving: int
    seen: int
    encoded: int
    copied: int
    skipped: int
    changed: int
    failed: int
    lost: tuple[tuple[str, str], ...]
    comparison: tuple[ViewComparison, ...]
    switched: Switched | None
    refused: str
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        comparison = [one.as_dict() for one in self.comparison]
        return {**asdict(self), "comparison": comparison, "seconds": round(self.seconds, 3)}


def reindex(
    resources: Resources,
    name: str,
    *,
    encoder: Mapping[str, str],
    index: str | None,
    switching: bool,
    max_failed: float,
    k: int,
    queries: int,
    progress: ProgressCallback | None,
) -> ReindexReport:
    """Build, compare, switch; see `Collection.reindex`."""
    begun, store = time.monotonic(), resources.store
    row = store.collection(name, resources.backend_url)
    with store.changing_versions(row.id, name):
        row = store.collection(name, resources.backend_url)
        version = new_version(resources, row, encoder, index)
        if version.state == "kept":  # else gc would take it, though it is to serve again
            store.set_version_state(row.id, version.version, "building")
        row = store.collection(name, resources.backend_url)
        filled = _filled(resources, row, version, progress)
        row = store.collection(name, resources.backend_url)
        serving = {view.name: view for view in row.views}
        pairs = [(serving[view.name], view) for view in version.views if view != serving[view.name]]
        compared = compare_views(store, resources.backend, row, pairs, k=k, queries=queries)
        refused = _refused(row, filled, _lacking(resources, row, version), max_failed) if switching else ""
        switched = switch(resources, row, version) if switching and not refused else None
    return ReindexReport(
        collection=name,
        version=version.version,
        serving=switched.after if switched else row.version,
        seen=filled.seen,
        encoded=filled.encoded,
        copied=filled.copied,
        skipped=filled.skipped,
        changed=filled.changed,
        failed=filled.failed,
        lost=tuple(filled.lost),
        comparison=compared,
        switched=switched,
        refused=refused,
        seconds=time.monotonic() - begun,
    )


def _filled(resources: Resources, row: CollectionRow, version: VersionRow, progress: ProgressCallback | None) -> Filled:
    """Every vector of the version made, its indexes built, both sides counted."""
    store, backend, settings = resources.store, resources.backend, resources.settings
    serving = {view.name: view for view in row.views}
    new = [view for view in version.views if view.slot not in {old.slot for old in row.views}]
    ensure_physical(resources, new, row)
    copied = {view.slot: serving[view.name] for view in new if view.fingerprint == serving[view.name].fingerprint}
    encoded = [view for view in new if view.slot not in copied]
    encoders = {view.slot: encoder_of(resources, row.name, view) for view in encoded}
    target = Target(store, backend, row, encoders)
    try:
        filled = fill(
            target, Filling(encoded, copied), settings=settings.ingest, fetch=settings.fetch, progress=progress
        )
    except Moved:
        raise CollectionNotFound(f"The collection {row.name!r} was dropped while it was reindexed") from None
    for view in new:
        if version.state != "built" or filled.encoded or filled.copied:
            backend.flush(view.physical)
            build_or_wait(store, backend, row.id, view)
    with target.writing():
        for view in new:
            live, there = store.count_vectors(row.id, view.slot), backend.count(view.physical)
            begun = store.count_vectors(row.id, view.slot, "pending") + store.count_vectors(
                row.id, view.slot, "deleted"
            )
            if not live <= there <= live + begun:  # a write that was killed may be on one side only
                raise DataCorrupt(
                    f"Version {version.version} of {row.name!r} has {live:,} vectors of {view.name!r} in the store and "
                    f"{there:,} in the backend; run: embedkit verify --repair -c {row.name}, then the same again. "
                    f"Version {row.version} serves on"
                )
    if version.state != "built":
        store.set_version_state(row.id, version.version, "built")
    return filled


def _lacking(resources: Resources, row: CollectionRow, version: VersionRow) -> int:
    """How many vectors fewer the new version has, in the view that lacks most."""
    serving, store = {view.name: view for view in row.views}, resources.store
    return max(
        store.count_vectors(row.id, serving[view.name].slot) - store.count_vectors(row.id, view.slot)
        for view in version.views
    )


def _refused(row: CollectionRow, filled: Filled, lacking: int, most: float) -> str:
    """Why the new version shall not serve: searches would lose more products than the caller puts up with."""
    lost = max(filled.failed, lacking)
    if lost <= most * filled.seen:
        return ""
    return (
        f"{lost:,} of {filled.seen:,} products failed and would no longer be found, more than the share "
        f"{most:g} that is put up with (--max-failed). Version {row.version} serves on; see why with: "
        f"embedkit failures --stage reindex -c {row.name}, mend it, and: embedkit reindex {row.name}"
    )
