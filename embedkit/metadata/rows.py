"""What goes into the metadata store and comes out of it: plain frozen rows, no SQL objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from embedkit.types import Attributes, FailureStage, Metric, Modality, VectorKind

__all__ = [
    "CollectionRow",
    "FailureRow",
    "FailureWrite",
    "KnownProduct",
    "KnownVector",
    "ProductWrite",
    "RunCounts",
    "RunRow",
    "RunState",
    "VectorState",
    "VersionRow",
    "VersionState",
    "ViewRow",
]

VectorState = Literal["pending", "live", "deleted"]
RunState = Literal["running", "complete", "interrupted"]
VersionState = Literal["building", "built", "kept", "dropped"]


@dataclass(frozen=True, slots=True)
class ViewRow:
    """One vector per product: which encoder makes it, and where it lives.

    `physical`: the backend's collection name. `index`: the text form of an IndexSpec. `dim`: floats, or bits.
    `knobs`: what a search of it asks with if it is not told otherwise, by name (the fields of SearchParams).
    `version`: the version of the collection that it came with.
    """

    name: str
    modality: Modality
    encoder: str
    fingerprint: str
    dim: int
    metric: Metric
    physical: str
    index: str = "flat"
    kind: VectorKind = "float"  # rows of before there were codes do not have it
    knobs: Mapping[str, int] = field(default_factory=dict)
    version: int = 1  # nor this

    @property
    def slot(self) -> str:
        """What the store calls its vectors, so that a product can have those of several versions: ``image@v2``."""
        return self.name if self.version == 1 else f"{self.name}@v{self.version}"


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version of a collection that does not serve.

    ``building``: a reindex fills it. ``built``: it is whole, and waits for the switch. ``kept``: it has served.
    ``dropped``: it is on its way out. Until then, whatever is written goes into it too.
    `since`: of its state.
    """

    version: int
    state: VersionState
    views: tuple[ViewRow, ...]
    since: datetime


@dataclass(frozen=True, slots=True)
class CollectionRow:
    """`version`: the one that serves, by `views`. `others`: those that do not. `backend_url` never holds a password.

    `keywords`: attributes, by dotted path, whose words are searched beside the title's. `epoch` counts what has
    happened to the versions; a writer that knows an older one does not know all of them.
    """

    id: int
    name: str
    backend_url: str
    version: int
    views: tuple[ViewRow, ...]
    created_at: datetime
    keywords: tuple[str, ...] = ()
    others: tuple[VersionRow, ...] = ()
    epoch: int = 0

    @property
    def slots(self) -> Mapping[str, ViewRow]:
        """Every view that is written to, those that serve first."""
        others = (view for other in self.others if other.state != "dropped" for view in other.views)
        found: dict[str, ViewRow] = {}
        for view in (*self.views, *others):
            found.setdefault(view.slot, view)
        return found

    @property
    def following(self) -> Mapping[str, ViewRow]:
        """Views that are written to and not searched."""
        serving = {view.slot for view in self.views}
        return {slot: view for slot, view in self.slots.items() if slot not in serving}


@dataclass(frozen=True, slots=True)
class KnownVector:
    """A vector row: `content_hash` and `fingerprint` say what was encoded by which encoder."""

    id: int
    content_hash: str
    fingerprint: str
    state: VectorState


@dataclass(frozen=True, slots=True)
class KnownProduct:
    """A product row with its vectors by view. `validator`: an ETag or the like of a remote picture."""

    id: int
    key: str
    title: str | None
    uri: str | None
    attributes: Attributes
    content_hash: str | None
    validator: str | None
    last_run: int | None
    vectors: Mapping[str, KnownVector]


@dataclass(frozen=True, slots=True)
class ProductWrite:
    """A product as it shall be. `content_hash`: of the picture's bytes.

    `vectors`: for each view that is (re-)encoded, the hash of what was encoded and the encoder's fingerprint.
    Views left out keep the vector they have.
    """

    key: str
    title: str | None
    uri: str | None
    attributes: Attributes
    content_hash: str | None = None
    validator: str | None = None
    vectors: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FailureWrite:
    """`stage`: one of `STAGES`. `record`: what is needed to try again (the fields of a Record)."""

    key: str
    locator: str
    stage: FailureStage
    error: str
    record: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class FailureRow:
    """A record that could not be ingested: where it stands, at which stage it failed, why, how often.

    `record` is what is tried again, with the password of its picture's URL; its text form leaves it out.
    """

    key: str
    locator: str
    stage: str
    error: str
    record: Mapping[str, object] = field(repr=False)
    attempts: int
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class RunCounts:
    """Records of a run, by what became of them; `unreadable` is a part of `failed`, of whose records not even the key
    is known.
    """

    seen: int = 0
    encoded: int = 0
    updated: int = 0
    skipped: int = 0
    failed: int = 0
    deleted: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class RunRow:
    """One ingest run. `offset`: how many records of the source are committed (the shard checkpoint)."""

    id: int
    collection_id: int
    source: str
    source_fingerprint: str | None
    state: RunState
    offset: int
    counts: RunCounts
    started_at: datetime
    finished_at: datetime | None
