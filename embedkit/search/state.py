"""The index of a view: what it is, how far it has come, what a search of it asks with; and how it is changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from embedkit.backends.contract import IndexSpec
from embedkit.errors import BadInput, ConfigError

if TYPE_CHECKING:
    from embedkit.backends.contract import VectorBackend
    from embedkit.metadata.rows import CollectionRow, ViewRow
    from embedkit.metadata.store import MetadataStore
    from embedkit.types import VectorKind

__all__ = ["IndexState", "build", "build_or_wait", "index_state", "keep_knobs", "rebuilt"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IndexState:
    """`covered` of `vectors` are in the index, the others are scanned exactly until they are added.

    `bytes`: of the index in memory, None where the store does not tell. `heeds`: the parameters that a search of it
    takes. `asks_with`: those that it was tuned to.
    """

    view: str
    spec: str
    kind: VectorKind
    dim: int
    vectors: int
    covered: int
    bytes: int | None
    heeds: Sequence[str]
    asks_with: Mapping[str, int]

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def index_state(backend: VectorBackend, view: ViewRow) -> IndexState:
    """What the backend and the store know."""
    use = backend.index_use(view.physical)
    heeds = IndexSpec.parse(view.index).knobs(rescores=backend.capabilities.rescores)
    return IndexState(
        view.name, view.index, view.kind, view.dim, use.rows, use.covered, use.bytes, heeds, dict(view.knobs)
    )


def build(store: MetadataStore, backend: VectorBackend, cid: int, view: ViewRow, spec: IndexSpec) -> None:
    """Build the index of a view. Where the rows are copied for it, ingests of every process wait; searches do not.

    Raises ConfigError, UnsupportedByBackend.
    """
    with store.writing(cid) if backend.capabilities.build_copies else nullcontext():
        backend.build_index(view.physical, spec)


def build_or_wait(store: MetadataStore, backend: VectorBackend, cid: int, view: ViewRow) -> None:
    """Build the index that a view was made with. Where its vectors are too few, as in an ingest, it waits for more."""
    spec = IndexSpec.parse(view.index)
    if spec.shape == "flat":
        return
    try:
        build(store, backend, cid, view, spec)
    except ConfigError as error:  # the spec itself was looked at when the view was made
        _log.warning("Searches of the view %r compare every vector, and its index waits for more: %s", view.name, error)


def rebuilt(
    store: MetadataStore, backend: VectorBackend, row: CollectionRow, views: Sequence[ViewRow], spec: IndexSpec
) -> None:
    """Build an index over each of some views and remember it. What another kind of index was tuned to is forgotten.

    Raises BadInput where there are no views to build it over, ConfigError, UnsupportedByBackend.
    """
    if not views:
        raise BadInput(f"No view of {row.name!r} can hold the index {str(spec)!r}")
    for view in views:
        build(store, backend, row.id, view, spec)
        now = IndexSpec.parse(view.index)
        knobs = view.knobs if (now.shape, now.refine) == (spec.shape, spec.refine) else {}
        store.set_view(row.id, replace(view, index=str(spec), knobs=knobs), version=row.version)


def keep_knobs(store: MetadataStore, row: CollectionRow, view: ViewRow, knobs: Mapping[str, int]) -> None:
    """From now on searches of a view ask with these, in every process, unless they are told otherwise.

    Raises BadInput where the view has another index by now, or the collection another version.
    """
    tuned = replace(view, knobs=dict(knobs))
    if not store.set_view(row.id, tuned, version=row.version, over=view.index):
        raise BadInput(
            f"The view {view.name!r} of {row.name!r} no longer has the index {view.index!r} that was tuned; "
            f"tune what it has now: embedkit index tune {row.name}"
        )
