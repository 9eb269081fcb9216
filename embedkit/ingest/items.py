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

MAX_KEY = 1_024  # bytes of UTF-8; PostgreSQL takes no more than 2,704 into an index
_NO_TEXT = "holds a NUL or half a surrogate pair, which is no valid text; mend the row"


@dataclass(frozen=True, slots=True)
class Picture:
    """What reading a picture gave. `content_hash` None: its file or host said that it has not changed."""

    content_hash: str | None
    validator: str | None
    prepared: Mapping[str, ByteArray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """A record that cannot go on. `known`: the product is in the collection from an earlier run.

    `unreadable`: a row that is no record, whose product may be any.
    """

    failure: FailureWrite
    known: bool
    unreadable: bool = False

    @property
    def key(self) -> str:
        """That of the product; a failure's own is cut where it is too long."""
        return str(self.failure.record["key"])


@dataclass(frozen=True, slots=True)
class Item:
    """A record and what shall happen with it.

    `inputs`: what to encode, by view. `changed`: it says another thing of the product than the store. `noted`: the
    store shall remember another validator, which is nothing to a user. `retired`: views that lose their vector.
    """

    write: ProductWrite
    inputs: Mapping[str, ByteArray | str]
    changed: bool
    noted: bool
    retired: tuple[str, ...]
    record: Record
    known: bool

    @property
    def written(self) -> bool:
        """Whether the store gets anything new of it."""
        return bool(self.inputs) or self.changed or self.noted


def text_hash(text: str) -> str:
    """blake2b-128 of the UTF-8 text, in hex."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def checked_record(record: Record, max_attributes_bytes: int) -> tuple[Record, bool]:
    """The record with NaN made null, and whether that was needed. Raises BadRecord."""
    _check_texts(record)
    attributes, cleaned = _without_nan(record, dict(record.attributes))
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
    _check_texts(record)
    cleaned: dict[str, Any] = _without_nan(record, dict(record.attributes))[0]
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


def _check_texts(record: Record) -> None:
    if not record.key:
        raise BadRecord(f"{record.locator}: the key is empty")
    for name, text in (("key", record.key), ("title", record.title), ("picture's address", record.image)):
        if text is not None and not is_plain_text(text):
            raise BadRecord(f"{record.locator}: the {name} {_NO_TEXT}")
    if (size := len(record.key.encode())) > MAX_KEY:
        raise BadRecord(f"{record.locator}: the key takes {size:,} bytes of UTF-8, more than {MAX_KEY:,}")


def _without_nan(record: Record, value: Any) -> tuple[Any, bool]:
    """Raises BadRecord for a text that a database cannot hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return None, True
    if isinstance(value, str) and not is_plain_text(value):
        raise BadRecord(f"{record.locator}: a text among the attributes {_NO_TEXT}")
    if isinstance(value, dict):
        for name in value:
            _without_nan(record, name)
        pairs = {name: _without_nan(record, inner) for name, inner in value.items()}
        return {name: inner for name, (inner, _) in pairs.items()}, any(was for _, was in pairs.values())
    if isinstance(value, list | tuple):
        parts = [_without_nan(record, inner) for inner in value]
        return [inner for inner, _ in parts], any(was for _, was in parts)
    return value, False


def _written(text: str, most: int | None = None) -> str:
    """A text as any database can hold it, with escapes for the rest; beyond `most` bytes it ends in a hash."""
    plain = text.encode("utf-8", "backslashreplace").replace(b"\x00", b"\\x00")
    if most is not None and len(plain) > most:
        plain = plain[: most - 40] + f"…{text_hash(text)}".encode()
    return plain.decode("utf-8", "ignore")


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
    """A failure row; `whole` keeps everything that a retry needs, of a record that has been checked."""
    locator = _written(record.locator)
    stored: dict[str, object] = {"key": _written(record.key), "locator": locator}
    if whole:
        stored.update(image=record.image, title=record.title, attributes=dict(record.attributes))
    return FailureWrite(_written(record.key, MAX_KEY), locator, stage, _written(str(error)), stored)


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
    retired: list[str] = []
    for slot, view in views.items():
        old = known.vectors.get(slot) if known else None
        source_hash = content_hash if view.modality == "image" else text_hash(record.title) if record.title else None
        if source_hash is None:
            if old is not None:
                retired.append(slot)
        elif old and (old.state, old.content_hash, old.fingerprint) == ("live", source_hash, view.fingerprint):
            continue
        elif slot not in following or source_hash != known_hash(known, view):
            wanted[slot] = (source_hash, view.fingerprint)
            inputs[slot] = picture.prepared[slot] if view.modality == "image" and picture else str(record.title)
    write = ProductWrite(
        record.key, record.title, record.image, record.attributes, content_hash, validator, vectors=wanted
    )
    changed = known is None or (known.title, known.attributes, known.uri, known.content_hash) != (
        record.title,
        record.attributes,
        record.image,
        content_hash,
    )
    noted = known is not None and known.validator != validator
    return Item(write, inputs, changed or bool(retired), noted, tuple(retired), record, bool(known))


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
