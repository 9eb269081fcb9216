"""The versions of a collection: which one a reindex fills, which one serves, and which may go."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from embedkit.errors import BadInput, CollectionExists, Terminal
from embedkit.views import encoder_of, ensure_physical, named_view, view_made

if TYPE_CHECKING:
    from embedkit.metadata.rows import CollectionRow, VersionRow, ViewRow
    from embedkit.resources import Resources

__all__ = [
    "DroppedVersion",
    "GcReport",
    "Switched",
    "collect_garbage",
    "drop_all",
    "new_version",
    "roll_back",
    "switch",
]


_GRACE = 3.0  # seconds in which no search takes the version that served before


@dataclass(frozen=True, slots=True)
class Switched:
    """`before` and `after`: numbers of versions. `lacking`: by view, how many vectors fewer there are now."""

    before: int
    after: int
    encoders: Mapping[str, str]
    lacking: Mapping[str, int]

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DroppedVersion:
    """A version that is gone, or would be: `vectors` of the views that no other version has."""

    version: int
    state: str
    encoders: Mapping[str, str]
    vectors: int


@dataclass(frozen=True, slots=True)
class GcReport:
    """What a gc dropped of a collection, or with `dry_run` would drop."""

    collection: str
    dropped: tuple[DroppedVersion, ...]
    dry_run: bool

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def new_version(resources: Resources, row: CollectionRow, encoder: Mapping[str, str], index: str | None) -> VersionRow:
    """The version that has these encoders and this index: one that is there and does not serve, or a new one.

    Raises BadInput, CollectionExists, ConfigError, EncoderMismatch, UnknownName, UnsupportedByBackend.
    """
    unfinished = [other for other in row.others if other.state in ("building", "built")]
    if not encoder and index is None:
        if not unfinished:
            raise BadInput(
                f"There is no reindex of {row.name!r} to go on with; say what the new version has: "
                "--encoder VIEW=ENCODER, --index SPEC"
            )
        return unfinished[-1]
    number = resources.store.next_version(row.id)
    views = _wanted(resources, row, encoder, index, number)
    for other in row.others:
        if other.state != "dropped" and _identity(other.views) == _identity(views):
            return _moved(resources, row, other, encoder)
    if unfinished:
        made = ", ".join(f"{view.name}={view.encoder}" for view in unfinished[-1].views)
        raise BadInput(
            f"Version {unfinished[-1].version} of {row.name!r} is begun and not serving ({made}), and is another one; "
            f"go on with it: embedkit reindex {row.name}, or drop it first: embedkit gc -c {row.name} --unfinished"
        )
    _make_physical(resources, [view for view in views if view not in row.views])
    with resources.store.writing(row.id):
        resources.store.add_version(row.id, number, views)
    return _fresh_version(resources, row, number)


def _moved(resources: Resources, row: CollectionRow, version: VersionRow, encoder: Mapping[str, str]) -> VersionRow:
    """Remember where the encoders are now."""
    from embedkit.encoders.load import absolute_spec

    places = {name: absolute_spec(spec) for name, spec in encoder.items()}
    views = tuple(replace(view, encoder=places.get(view.name, view.encoder)) for view in version.views)
    if views != version.views:
        resources.store.set_version_views(row.id, version.version, views)
    return replace(version, views=views)


def _wanted(
    resources: Resources, row: CollectionRow, encoder: Mapping[str, str], index: str | None, number: int
) -> tuple[ViewRow, ...]:
    """The views as asked for; those that do not change stay the very same."""
    from embedkit.backends.contract import CollectionSpec, IndexSpec
    from embedkit.backends.validation import checked_spec

    for name in encoder:
        named_view(row, name)
    text = str(IndexSpec.parse(index)) if index is not None else None
    views = []
    for old in row.views:
        spec = encoder.get(old.name)
        new = replace(old, version=number, physical=f"{row.name}_v{number}_{old.name}", index=text or old.index)
        if text:  # what the old index was tuned to says nothing of another
            new = replace(new, knobs={})
        if spec is not None:
            made = view_made(resources, row.name, old.name, spec, metric=None, index=text or old.index, version=number)
            new = replace(made, metric=old.metric if made.kind == old.kind else made.metric)
        changed = new.fingerprint != old.fingerprint or str(IndexSpec.parse(old.index)) != new.index
        views.append(new if changed else old)
        if changed:
            asked = CollectionSpec(new.physical, new.dim, new.metric, new.kind, IndexSpec.parse(new.index))
            checked_spec(asked, resources.backend.capabilities)
    if tuple(views) == row.views:
        raise BadInput(f"{row.name!r} is made so already: the same encoders, by their fingerprints, and the same index")
    return tuple(views)


def _identity(views: tuple[ViewRow, ...]) -> list[tuple[str, str, str, str]]:
    return [(view.name, view.fingerprint, view.index, view.metric) for view in views]


def _make_physical(resources: Resources, views: Sequence[ViewRow]) -> None:
    """Make the backend's collections, all of them or none; the store learns of them afterwards, and ingests with it.

    One that is there and empty was left by a reindex that was killed in between. Raises CollectionExists,
    ConfigError, UnsupportedByBackend.
    """
    backend = resources.backend
    there = set(backend.list())
    for view in views:
        if view.physical in there and backend.count(view.physical):
            raise CollectionExists(
                f"{resources.backend_url} already holds a collection {view.physical!r} that this store "
                f"({resources.store.url}) does not know, and the new version needs its name; drop it there first"
            )
    for view in views:
        backend.drop(view.physical)
    try:
        ensure_physical(resources, views, None)
    except Terminal:
        for view in views:
            backend.drop(view.physical)
        raise


def _fresh_version(resources: Resources, row: CollectionRow, number: int) -> VersionRow:
    fresh = resources.store.collection(row.name, resources.backend_url)
    return next(other for other in fresh.others if other.version == number)


def switch(resources: Resources, row: CollectionRow, version: VersionRow) -> Switched:
    """Let a version serve. One transaction; searches under way find the old one where it was."""
    store = resources.store
    before = {view.name: store.count_vectors(row.id, view.slot) for view in row.views}
    after = {view.name: store.count_vectors(row.id, view.slot) for view in version.views}
    with store.writing(row.id):
        store.switch_version(row.id, version.version)
    return Switched(
        before=row.version,
        after=version.version,
        encoders={view.name: view.encoder for view in version.views},
        lacking={name: before[name] - after[name] for name in before if after.get(name, 0) < before[name]},
    )


def roll_back(resources: Resources, name: str) -> Switched:
    """Let the version serve that did so before. Raises BadInput, CollectionNotFound, EncoderMismatch, StoreBusy."""
    store = resources.store
    row = store.collection(name, resources.backend_url)
    with store.changing_versions(row.id, name):
        row = store.collection(name, resources.backend_url)
        kept = [other for other in row.others if other.state == "kept"]
        if not kept:
            raise BadInput(
                f"No earlier version of {name!r} is kept: it has had none, or gc has dropped it. "
                f"Version {row.version} serves on"
            )
        earlier = max(kept, key=lambda other: other.since)
        for view in earlier.views:
            if view.encoder:
                encoder_of(resources, name, view)
        return switch(resources, row, earlier)


def collect_garbage(resources: Resources, name: str, *, unfinished: bool, dry_run: bool) -> GcReport:
    """Drop the versions of a collection that have served and no longer do; with `unfinished` those begun, too.

    A killed one is gone on with by the next. Raises CollectionNotFound, StoreBusy.
    """
    store = resources.store
    row = store.collection(name, resources.backend_url)
    states = {"kept", "dropped"} | ({"building", "built"} if unfinished else set())
    with store.changing_versions(row.id, name):
        row = store.collection(name, resources.backend_url)
        chosen = [other for other in row.others if other.state in states]
        staying = {view.slot for view in row.views}
        staying |= {view.slot for other in row.others if other not in chosen for view in other.views}
        dropped = []
        for other in chosen:
            own = [view for view in other.views if view.slot not in staying]
            dropped.append(
                DroppedVersion(
                    other.version,
                    other.state,
                    {view.name: view.encoder for view in other.views},
                    sum(store.count_vectors(row.id, view.slot) for view in own),
                )
            )
            if not dry_run:
                row = store.collection(name, resources.backend_url)
                _drop(resources, row, other)
        return GcReport(name, tuple(dropped), dry_run)


def drop_all(resources: Resources, name: str) -> None:
    """Drop a collection with all its versions. Nobody writes meanwhile, so nothing comes back behind it.

    A killed one is gone on with by the next. Raises CollectionNotFound, StoreBusy.
    """
    store = resources.store
    row = store.collection(name, resources.backend_url)
    with store.changing_versions(row.id, name), store.writing(row.id):
        row = store.collection(name, resources.backend_url)
        every = (view.physical for views in (row.views, *(other.views for other in row.others)) for view in views)
        for physical in sorted(set(every)):
            resources.backend.drop(physical)
        store.drop_collection(row.id)


def _drop(resources: Resources, row: CollectionRow, version: VersionRow) -> None:
    """Nobody writes to it any more; then its vectors go, and what the store knows of them, and of it."""
    store = resources.store
    if version.state != "dropped":
        with store.writing(row.id):
            store.set_version_state(row.id, version.version, "dropped")
    if version.state == "kept":  # until a second ago it may have served, and a search may still be on its way
        left = _GRACE - (datetime.now(timezone.utc) - version.since).total_seconds()
        time.sleep(min(max(left, 0.0), _GRACE))
    staying = {view.slot for view in row.views}
    staying |= {view.slot for other in row.others if other.version != version.version for view in other.views}
    for view in version.views:
        if view.slot not in staying:
            resources.backend.drop(view.physical)
            store.forget_view(row.id, view.slot)
    store.forget_version(row.id, version.version)
