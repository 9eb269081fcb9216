"""Products with the same picture, of a run that writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from embedkit.ingest.target import Target

__all__ = ["same_pictures"]


def same_pictures(target: Target, hashes: Mapping[str, str]) -> int:
    """How many records have a picture that another one has too, or another product of the collection.

    `hashes`: the content hash of the picture of each record, by key.
    """
    times = Counter(hashes.values())
    once = [content_hash for content_hash, count in times.items() if count == 1]
    elsewhere = {
        content_hash for content_hash, key in target.store.keys_by_hash(target.row.id, once) if key not in hashes
    }
    return sum(times[content_hash] > 1 or content_hash in elsewhere for content_hash in hashes.values())
