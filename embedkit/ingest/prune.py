"""Deleting products: those that a catalog no longer holds, and those that a caller names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from datetime import datetime

from embedkit.ingest.committer import remove_vectors
from embedkit.ingest.target import Target

__all__ = ["delete_products", "gone", "prune"]

_BATCH = 1_000


def prune(target: Target, run_id: int, *, begun: datetime) -> int:
    """Delete every product that neither the run nor a later one has seen; how many.

    Failures from before it `begun` are forgotten.
    """
    deleted, unseen = 0, target.store.unseen(target.row.id, run_id=run_id, batch=_BATCH)
    while True:
        with target.writing():  # which no other run shares, so none sees a product between the question and its end
            keys = next(unseen, None)
            if keys is None:
                break
            deleted += _delete_alone(target, keys)
    target.store.clear_old_failures(target.row.id, before=begun)
    return deleted


def gone(target: Target, seen: Set[str]) -> Iterator[str]:
    """Keys of the products that are not among those a catalog holds; none of a collection that is only imagined."""
    for keys in target.store.key_pages(target.row.id, batch=_BATCH):
        yield from (key for key in keys if key not in seen)


def delete_products(target: Target, keys: Sequence[str]) -> int:
    """Delete products by key; keys that are not there are no error. Returns how many were there.

    Marked in the store first, then removed from the backend, then from the store, so that a kill
    in between leaves a mark that the next ingest or verify finishes. Failures of these keys are forgotten.
    """
    deleted = 0
    for first in range(0, len(keys), _BATCH):
        with target.writing():
            deleted += _delete_alone(target, keys[first : first + _BATCH])
    return deleted


def _delete_alone(target: Target, keys: Sequence[str]) -> int:
    deleted = len(target.store.products(target.row.id, keys))
    target.store.mark_deleted(target.row.id, keys)
    remove_vectors(target)
    target.store.clear_failures(target.row.id, keys)
    return deleted
