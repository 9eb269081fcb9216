"""The views of a collection: which encoder makes the vectors of each, where they lie, and whether both still fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from embedkit.errors import (
    BadInput,
    CollectionExists,
    CollectionNotFound,
    ConfigError,
    EncoderMismatch,
    UnknownName,
)
from embedkit.types import Metric, Modality, VectorKind

if TYPE_CHECKING:
    from embedkit.encoders.contract import Encoder
    from embedkit.metadata.rows import CollectionRow, ViewRow
    from embedkit.resources import Resources

__all__ = [
    "encoder_of",
    "ensure_physical",
    "ignored_settings",
    "made_collection",
    "named_view",
    "view_made",
    "writing_encoders",
]

_log = logging.getLogger(__name__)


def made_collection(
    resources: Resources, name: str, encoder: Mapping[str, str] | None, *, dry_run: bool
) -> CollectionRow:
    """The row of a collection; a new one is made, in the backend first. `encoder`: spec strings by view.

    Views of one that is there stay as they are; where `encoder` names them, it must be the same one, at another place.

    Raises CollectionExists, ConfigError, EncoderMismatch.
    """
    store = resources.store
    found = store.find_collection(name, resources.backend_url)
    if found is not None and not encoder:
        wanted = found.views
        for view in wanted:
            encoder_of(resources, name, view)
    else:
        wanted = _wanted_views(resources, name, encoder)
    if found is None and dry_run:
        return _imagined(name, resources.backend_url, wanted)
    if found is None:
        try:
            ensure_physical(resources, wanted, None)
            return store.create_collection(name, backend_url=resources.backend_url, views=wanted)
        except CollectionExists:
            found = store.find_collection(name, resources.backend_url)
            if found is None:  # else another process has made it meanwhile
                raise
    _check_views(found, wanted)
    if dry_run:
        return found
    found = _moved(resources, found, wanted)
    ensure_physical(resources, found.views, found)
    return found


def _wanted_views(resources: Resources, name: str, encoder: Mapping[str, str] | None) -> tuple[ViewRow, ...]:
    settings = resources.settings.for_collection(name)
    views = tuple(
        view_made(resources, name, view, spec, metric=settings.metric, index=settings.index or "flat")
        for view, spec in (encoder or settings.views or {}).items()
    )
    _check_metric(views, settings.metric)
    return views


def view_made(
    resources: Resources, name: str, view: str, spec: str, *, metric: Metric | None, index: str, version: int = 1
) -> ViewRow:
    """A view as an encoder makes it. Raises ConfigError, UnknownName."""
    from embedkit.encoders.load import absolute_spec
    from embedkit.metadata.rows import ViewRow

    if not view.isidentifier():
        raise ConfigError(f"{view!r} is no name for a view; use letters, digits and _")
    made = resources.encoder(spec).spec
    _check_name(view, spec, made.modalities)
    return ViewRow(
        name=view,
        modality=_modality_of(view, made.modalities),
        encoder=absolute_spec(spec),
        fingerprint=made.fingerprint,
        dim=made.dim,
        metric=_metric_of(made.kind, metric),
        physical=f"{name}_v{version}_{view}",
        index=index,
        kind=made.kind,
        version=version,
    )


def _metric_of(kind: VectorKind, asked: Metric | None) -> Metric:
    """The metric of a view: what is asked for, where it fits its vectors."""
    if kind == "binary":
        return "hamming"
    return asked if asked not in (None, "hamming") else "cosine"


def _check_metric(views: Sequence[ViewRow], asked: Metric | None) -> None:
    """Raise ConfigError for a metric that fits no view; beside codes it stands for the floats, and the reverse."""
    if asked is None or not views or any(view.metric == asked for view in views):
        return
    made = "floats, which have no 'hamming'" if asked == "hamming" else "binary codes, which are measured by 'hamming'"
    encoders = ", ".join(repr(view.encoder) for view in views)
    raise ConfigError(f"metric={asked!r} does not fit the encoder {encoders}: it makes {made}; leave metric unset")


def _moved(resources: Resources, found: CollectionRow, wanted: Sequence[ViewRow]) -> CollectionRow:
    """Remember where the encoders are now, if they are the same at another place."""
    places = {view.name: view.encoder for view in wanted}
    if all(view.encoder == places.get(view.name, view.encoder) for view in found.views):
        return found
    resources.store.move_encoders(found.id, places, version=found.version)
    return resources.store.collection(found.name, resources.backend_url)


def ignored_settings(resources: Resources, row: CollectionRow) -> list[str]:
    """Settings that say otherwise than the collection was made with, and so have no effect."""
    settings = resources.settings
    asked = {"metric": settings.for_collection(row.name).metric, "index": settings.asked_index(row.name)}
    mended = {
        "metric": "Ingest into a collection of another name to have it.",
        "index": f"To have it: embedkit reindex {row.name} --index '{asked['index']}'",
    }
    return [
        f"The setting {name}={value!r} has no effect: {row.name!r} has {getattr(row.views[0], name)!r}. {mended[name]}"
        for name, value in asked.items()
        if value is not None and not any(_has(view, name, value) for view in row.views)
    ]


def _has(view: ViewRow, name: str, value: str) -> bool:
    from embedkit.backends.indexes import IndexSpec

    return IndexSpec.parse(view.index) == IndexSpec.parse(value) if name == "index" else view.metric == value


def ensure_physical(resources: Resources, views: Sequence[ViewRow], row: CollectionRow | None) -> None:
    """Make the backend's collections; one that is there is taken over only if it is empty or our own.

    `row`: whose they are; None for one that is still to be. Raises CollectionExists, CollectionNotFound (it was dropped
    meanwhile).
    """
    if row is None:
        _make_physical(resources, views, ours=False)
        return
    with resources.store.writing(row.id):
        if resources.store.epoch(row.id) is None:
            raise CollectionNotFound(f"The collection {row.name!r} was dropped meanwhile; run the same command again")
        _make_physical(resources, views, ours=True)


def _make_physical(resources: Resources, views: Sequence[ViewRow], *, ours: bool) -> None:
    from embedkit.backends.contract import CollectionSpec, IndexSpec

    backend = resources.backend
    for view in views:
        try:
            backend.create(CollectionSpec(view.physical, view.dim, view.metric, view.kind, IndexSpec.parse(view.index)))
        except CollectionExists:
            if ours:
                continue
            there = backend.describe(view.physical)
            if backend.count(view.physical) or (there.kind, there.dim, there.metric) != (
                view.kind,
                view.dim,
                view.metric,
            ):
                raise CollectionExists(
                    f"{resources.backend_url} already holds a collection {view.physical!r} that this store "
                    f"({resources.store.url}) does not know; choose another collection name, "
                    "or the store that filled it"
                ) from None


def encoder_of(resources: Resources, name: str, view: ViewRow) -> Encoder:
    """The encoder of a view. Raises EncoderMismatch if there is none, if it is not to be found, or another by now."""
    if not view.encoder:
        raise EncoderMismatch(
            f"The view {view.name!r} of {name!r} was imported without an encoder, so vectors and products alone can "
            "ask it; give it one, which reads the pictures again: "
            f"embedkit reindex {name} --encoder {view.name}=ENCODER"
        )
    try:
        encoder = resources.encoder(view.encoder)
    except (ConfigError, UnknownName) as error:
        raise EncoderMismatch(
            f"The encoder {view.encoder!r} of the view {view.name!r} of {name!r} cannot be loaded ({error}); if its "
            f"folder has moved, say where it is: embedkit ingest CATALOG -c {name} --encoder {view.name}=FOLDER"
        ) from error
    if encoder.spec.fingerprint != view.fingerprint:
        raise EncoderMismatch(
            f"The encoder {view.encoder!r} is not the one that filled the view {view.name!r} of {name!r} "
            f"(fingerprint {encoder.spec.fingerprint[:12]}, not {view.fingerprint[:12]}); "
            "bring the old one back, or let the new one make every vector: "
            f"embedkit reindex {name} --encoder {view.name}={view.encoder}"
        )
    return encoder


def writing_encoders(resources: Resources, row: CollectionRow) -> dict[str, Encoder]:
    """The encoders of every version that is written to, by slot.

    One of a version that has served before may be gone: then no vectors are made for it, and a warning is logged.
    Raises EncoderMismatch.
    """
    kept = {view.slot for other in row.others if other.state == "kept" for view in other.views}
    needed = {view.slot for view in row.views}
    needed |= {view.slot for other in row.others if other.state in ("building", "built") for view in other.views}
    found = {}
    for slot, view in row.slots.items():
        try:
            found[slot] = encoder_of(resources, row.name, view)
        except EncoderMismatch as error:
            if slot in needed or slot not in kept:
                raise
            _log.warning("%s. Version %d of %r gets no new vectors.", error, view.version, row.name)
    return found


def _modality_of(view: str, takes: Sequence[Modality]) -> Modality:
    """What a view holds: of an encoder that takes both, titles in the view ``title``, else pictures."""
    return "text" if "image" not in takes or (view == "title" and "text" in takes) else "image"


def _check_name(view: str, spec: str, takes: Sequence[Modality]) -> None:
    """Raise ConfigError for a view ``image`` that would hold texts, or a view ``title`` that would hold pictures."""
    for name, modality, other in (("image", "image", "title"), ("title", "text", "image")):
        if view == name and modality not in takes:
            raise ConfigError(
                f"The encoder {spec!r} takes no {modality}, which the view {name!r} is made of; "
                f"give that view one that does, or write {other}={spec}"
            )


def named_view(row: CollectionRow, name: str) -> ViewRow:
    """A view by name. Raises BadInput, naming those there are."""
    for view in row.views:
        if view.name == name:
            return view
    raise BadInput(f"{row.name!r} has no view {name!r}; it has {', '.join(view.name for view in row.views)}")


def _check_views(found: CollectionRow, wanted: Sequence[ViewRow]) -> None:
    """Raise EncoderMismatch unless the encoders that are named are those that filled the collection."""
    there = {view.name: view for view in found.views}
    for new in wanted:
        view = there.get(new.name)
        if view is None:
            raise EncoderMismatch(
                f"{found.name!r} has no view {new.name!r}, only {', '.join(there)}; views are chosen when a collection "
                "is first ingested: take a collection of another name"
            )
        if new.fingerprint != view.fingerprint:
            raise EncoderMismatch(
                f"The view {view.name!r} of {found.name!r} was filled by {view.encoder!r} ({view.fingerprint[:12]}), "
                f"and {new.encoder!r} ({new.fingerprint[:12]}) would not fit; leave --encoder out, or let the new one "
                f"make every vector: embedkit reindex {found.name} --encoder {view.name}={new.encoder}"
            )


def _imagined(name: str, backend_url: str, views: tuple[ViewRow, ...]) -> CollectionRow:
    """What a dry run sees of a collection that does not exist."""
    from embedkit.metadata.rows import CollectionRow

    return CollectionRow(-1, name, backend_url, 1, views, datetime.now(timezone.utc))
