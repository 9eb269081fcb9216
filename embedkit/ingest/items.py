"""One record on its way through the pipeline, and the decision what it needs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from embedkit.errors import BadRecord
from embedkit.ingest.target import columns_of
from embedkit.metadata.rows import FailureWrite, KnownProduct, ProductWrite, ViewRow
from embedkit.types import FailureStage, Record

if TYPE_CHECKING:
    from embedkit.types import ByteArray

__all__ = [
    "Failed",
    "Item",
    "Picture",
    "checked_attributes",
    "checked_record",
    "decide",
    "failure_of",
    "is_plain_text",
    "known_hash",
    "record_of",
    "text_hash",
]

MAX_KEY = 1_024


@dataclass(frozen=True, slots=True)
class Picture:
    """What reading a picture gave. `content_hash` None: the host said that it has not changed."""

    content_hash: str | None
    validator: str | None
    prepared: Mapping[str, ByteArray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """A record that cannot go on. `known`: the product is in the collection from an earlier run."""

    failure: FailureWrite
    known: bool


@dataclass(frozen=True, slots=True)
class Item:
    """A record and what shall happen with it.

    `inputs`: what to encode, by view. `stale`: views that keep their vector while its columns change,
    with the vector's id. `retired`: views that lose their vector.
    """

    write: ProductWrite
    inputs: Mapping[str, ByteArray | str]
    changed: bool
    stale: Mapping[str, int]
    retired: tuple[str, ...]
    record: Record
    known: bool


def text_hash(text: str) -> str:
    """blake2b-128 of the UTF-8 text, in hex."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def checked_record(record: Record, max_attributes_bytes: int) -> tuple[Record, bool]:
    """The record with NaN made null, and whether that was needed. Raises BadRecord."""
    if not record.key:
        raise BadRecord(f"{record.locator}: the key is empty")
    if len(record.key) > MAX_KEY:
        raise BadRecord(f"{record.locator}: the key has {len(record.key)} characters, more than {MAX_KEY}")
    for name, text in (("key", record.key), ("title", record.title or "")):
        if not is_plain_text(text):
            raise BadRecord(f"{record.locator}: the {name} holds characters that are not valid text")
    attributes, cleaned = _without_nan(dict(record.attributes))
    try:
        columns = columns_of(record.key, record.title, attributes)
        size = len(json.dumps(columns, ensure_ascii=False).encode())
    except (TypeError, ValueError, UnicodeEncodeError) as error:
        raise BadRecord(f"{record.locator}: the attributes are not plain JSON: {error}") from error
    if size > max_attributes_bytes:
        raise BadRecord(
            f"{record.locator}: its title and attributes take {size:,} bytes of JSON, more than "
            f"{max_attributes_bytes:,}; leave the large ones out with a column mapping"
        )
    title = record.title.strip() if record.title else None
    if not record.image and not title:
        raise BadRecord(f"{record.locator}: it has neither a picture nor a title, so there is nothing to search by")
    return replace(record, attributes=attributes, title=title or None), cleaned


def checked_attributes(record: Record) -> dict[str, Any]:
    """Attributes as JSON without NaN, of a record that comes with its vector. Raises BadRecord."""
    if not record.key or not is_plain_text(record.key) or len(record.key) > MAX_KEY:
        raise BadRecord(f"{record.locator}: the key {record.key[:40]!r} is empty, too long or not valid text")
    cleaned: dict[str, Any] = _without_nan(dict(record.attributes))[0]
    try:
        json.dumps(cleaned, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, UnicodeEncodeError) as error:
        raise BadRecord(f"{record.locator}: the attributes of {record.key!r} are not plain JSON: {error}") from error
    return cleaned


def is_plain_text(text: str) -> bool:
    """Whether a database can hold it: valid Unicode without the NUL character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text


def _without_nan(value: Any) -> tuple[Any, bool]:
    if isinstance(value, float) and not math.isfinite(value):
        return None, True
    if isinstance(value, dict):
        pairs = {name: _without_nan(inner) for name, inner in value.items()}
        return {name: inner for name, (inner, _) in pairs.items()}, any(was for _, was in pairs.values())
    if isinstance(value, list | tuple):
        parts = [_without_nan(inner) for inner in value]
        return [inner for inner, _ in parts], any(was for _, was in parts)
    return value, False


def record_of(stored: Mapping[str, Any]) -> Record:
    """The record that a failure row keeps."""
    return Record(
        key=str(stored["key"]),
        locator=str(stored["locator"]),
        image=stored.get("image"),
        title=stored.get("title"),
        attributes=stored.get("attributes") or {},
    )


def failure_of(record: Record, stage: FailureStage, error: object, *, whole: bool = True) -> FailureWrite:
    """A failure row; `whole` keeps everything that a retry needs."""
    stored: dict[str, object] = {"key": record.key, "locator": record.locator}
    if whole:
        stored.update(image=record.image, title=record.title, attributes=dict(record.attributes))
    return FailureWrite(record.key, record.locator, stage, str(error), stored)


def decide(
    record: Record,
    known: KnownProduct | None,
    picture: Picture | None,
    views: Mapping[str, ViewRow],
    following: Collection[str] = (),
) -> Item:
    """Compare a record with what the store knows, view by view.

    `following`: views that do not serve. They get a vector where the product is new or another one by now; what else
    they lack is the work of the reindex that fills them.
    """
    content_hash, validator = _picture_identity(known, picture)
    wanted: dict[str, tuple[str, str]] = {}
    inputs: dict[str, ByteArray | str] = {}
    kept: dict[str, int] = {}
    retired: list[str] = []
    for slot, view in views.items():
        old = known.vectors.get(slot) if known else None
        source_hash = content_hash if view.modality == "image" else text_hash(record.title) if record.title else None
        if source_hash is None:
            if old is not None:
                retired.append(slot)
        elif old and (old.state, old.content_hash, old.fingerprint) == ("live", source_hash, view.fingerprint):
            kept[slot] = old.id
        elif slot not in following or source_hash != known_hash(known, view):
            wanted[slot] = (source_hash, view.fingerprint)
            inputs[slot] = picture.prepared[slot] if view.modality == "image" and picture else str(record.title)
    write = ProductWrite(
        record.key, record.title, record.image, record.attributes, content_hash, validator, vectors=wanted
    )
    seen_by_filters = known is None or (known.title, known.attributes) != (record.title, record.attributes)
    changed = (
        known is None
        or seen_by_filters
        or (known.uri, known.content_hash, known.validator)
        != (
            record.image,
            content_hash,
            validator,
        )
    )
    return Item(
        write, inputs, changed or bool(retired), kept if seen_by_filters else {}, tuple(retired), record, bool(known)
    )


def known_hash(known: KnownProduct | None, view: ViewRow) -> str | None:
    """The hash of what a view of a product is made of, as the store knows it; None if there is nothing."""
    if known is None:
        return None
    return known.content_hash if view.modality == "image" else text_hash(known.title) if known.title else None


def _picture_identity(known: KnownProduct | None, picture: Picture | None) -> tuple[str | None, str | None]:
    if picture is None:
        return None, None
    if picture.content_hash is None and known is not None:
        return known.content_hash, picture.validator or known.validator
    return picture.content_hash, picture.validator
