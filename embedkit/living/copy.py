"""A collection moves to another backend: its vectors are copied, counted and compared, and nothing is encoded."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from embedkit.backends.contract import IndexSpec
from embedkit.errors import BadInput, CollectionExists, CollectionNotFound, DataCorrupt
from embedkit.ingest.prune import delete_products, gone
from embedkit.ingest.target import Moved, Target
from embedkit.living.rows import Checked, check_equal, pages_of, put, rows_of
from embedkit.resources import Resources
from embedkit.urls import place_of, redact
from embedkit.views import ensure_physical

if TYPE_CHECKING:
    from embedkit.ingest.report import ProgressCallback
    from embedkit.metadata.rows import CollectionRow, ViewRow

__all__ = ["CopyReport", "copy_collection", "new_views"]


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What was moved where. `copied` products were not there or other ones, `skipped` were, `deleted` are gone here.

    `views`: what both sides hold, counted and compared.
    """

    collection: str
    backend: str
    products: int
    copied: int
    skipped: int
    deleted: int
    views: tuple[Checked, ...]
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {**asdict(self), "seconds": round(self.seconds, 3)}


def copy_collection(
    resources: Resources, name: str, url: str, *, index: str | None, progress: ProgressCallback | None
) -> CopyReport:
    """Copy, count, compare; see `Collection.copy_to`."""
    if place_of(url) == place_of(resources.backend_url):
        raise BadInput(f"{name!r} lies at {redact(url)} already; give the URL of another backend")
    begun, store = time.monotonic(), resources.store
    row = store.collection(name, resources.backend_url)
    with closing(Resources(resources.settings.model_copy(update={"backend": url}))) as away:
        there = _destination(away, row, index)
        source = f"copy of {resources.backend_url}"
        run = away.store.start_run(there.id, source=source, source_fingerprint=None)
        target = Target(away.store, away.backend, there, {})
        pages = pages_of(store, resources.backend, row)
        try:
            counts = put(target, pages, run_id=run.id, total=store.count_products(row.id), progress=progress)
            surplus = list(gone(target, set(resources.store.keys(row.id))))
            deleted = delete_products(target, surplus)
        except Moved:
            raise CollectionNotFound(f"The collection {name!r} at {redact(url)} was changed meanwhile") from None
        checked = check_equal(
            pages_of(store, resources.backend, row),
            lambda keys: rows_of(away.store, away.backend, there, keys),
            what=f"{name!r} at {redact(url)}",
        )
        _count(away, there, checked)
        away.store.finish_run(run.id, "complete", replace(counts, deleted=deleted))
        return CopyReport(
            collection=name,
            backend=away.backend_url,
            products=away.store.count_products(there.id),
            copied=counts.encoded,
            skipped=counts.skipped,
            deleted=deleted,
            views=checked,
            seconds=time.monotonic() - begun,
        )


def _destination(away: Resources, row: CollectionRow, index: str | None) -> CollectionRow:
    """The collection to copy into: a new one, or an earlier copy of this very one. Raises CollectionExists."""
    found = away.store.find_collection(row.name, away.backend_url)
    if found is None:
        views = new_views(row.name, row.views, index)
        ensure_physical(away, views, None)
        return away.store.create_collection(row.name, backend_url=away.backend_url, views=views, keywords=row.keywords)
    last = away.store.last_run(found.id)
    here = [(view.name, view.fingerprint, view.dim, view.kind, view.metric) for view in row.views]
    same = here == [(view.name, view.fingerprint, view.dim, view.kind, view.metric) for view in found.views]
    empty = last is None and not away.store.count_products(found.id)
    if not same or not (empty or (last is not None and last.source == f"copy of {row.backend_url}")):
        raise CollectionExists(
            f"{away.backend_url} has a collection {row.name!r} already that is no copy of this one; "
            "nothing of it was touched. Drop it first, or copy to another place"
        )
    ensure_physical(away, found.views, found)
    return found


def new_views(name: str, views: tuple[ViewRow, ...], index: str | None) -> tuple[ViewRow, ...]:
    """The views of a collection that starts anew, with the first version."""
    text = str(IndexSpec.parse(index)) if index is not None else None
    return tuple(
        replace(
            view,
            version=1,
            physical=f"{name}_v1_{view.name}",
            index=text or view.index,
            knobs={} if text else view.knobs,
        )
        for view in views
    )


def _count(away: Resources, row: CollectionRow, checked: tuple[Checked, ...]) -> None:
    for view, one in zip(row.views, checked, strict=False):
        count = away.backend.count(view.physical)
        if count != one.vectors:
            raise DataCorrupt(
                f"{view.physical!r} at {away.backend_url} has {count:,} vectors, and {one.vectors:,} were copied; "
                "run the same command again, and verify the collection there"
            )
