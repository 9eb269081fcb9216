"""A collection made of vectors that a user has already."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from embedkit.backends.contract import IndexSpec
from embedkit.errors import BadSource, CollectionExists, CollectionNotFound, DimensionMismatch
from embedkit.ingest.items import checked_attributes
from embedkit.ingest.report import ProgressCallback
from embedkit.ingest.target import Moved, Target
from embedkit.living.given import Given, GivenPage
from embedkit.living.rows import Rows, Vectors, put
from embedkit.metadata.rows import ProductWrite, ViewRow
from embedkit.types import Metric, VectorKind
from embedkit.views import ensure_physical, view_made

if TYPE_CHECKING:
    from embedkit.metadata.rows import CollectionRow
    from embedkit.resources import Resources

__all__ = ["ImportReport", "import_given"]

_NOBODY = "imported"  # the fingerprint of vectors of which no encoder is known


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What was made of the vectors; `skipped` were there already, from an import of the same."""

    collection: str
    view: str
    encoder: str
    dim: int
    metric: Metric
    imported: int
    skipped: int
    warnings: tuple[str, ...]
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {**asdict(self), "seconds": round(self.seconds, 3)}


def import_given(
    resources: Resources,
    name: str,
    given: Given,
    *,
    view: str,
    encoder: str | None,
    metric: Metric | None,
    index: str,
    progress: ProgressCallback | None,
) -> ImportReport:
    """Write every vector under the key it came with; see `Kit.import_vectors`."""
    begun, store = time.monotonic(), resources.store
    first = next(given.pages, None)
    if first is None or not len(first.vectors):
        raise BadSource(f"{given.name!r} holds no vectors")
    made = _view(resources, name, view, encoder, given, first, metric, index)
    source = f"vectors of {given.name}"
    row = _made(resources, name, made, source)
    run = store.start_run(row.id, source=source, source_fingerprint=None)
    pages = _rows(chain([first], given.pages), made, given.name)
    try:
        counts = put(Target(store, resources.backend, row, {}), pages, run_id=run.id, total=None, progress=progress)
    except Moved:
        raise CollectionNotFound(f"The collection {name!r} was changed while vectors were imported") from None
    store.finish_run(run.id, "complete", counts)
    return ImportReport(
        collection=name,
        view=view,
        encoder=made.encoder,
        dim=made.dim,
        metric=made.metric,
        imported=counts.encoded,
        skipped=counts.skipped,
        warnings=(given.warning,) if given.warning else (),
        seconds=time.monotonic() - begun,
    )


def _view(
    resources: Resources,
    name: str,
    view: str,
    encoder: str | None,
    given: Given,
    first: GivenPage,
    metric: Metric | None,
    index: str,
) -> ViewRow:
    """The view as the vectors are. Raises DimensionMismatch if the encoder makes others."""
    kind: VectorKind = "binary" if first.vectors.dtype == np.uint8 else "float"
    dim = int(first.vectors.shape[1]) * (8 if kind == "binary" else 1)
    usual: Metric = "hamming" if kind == "binary" else given.metric or "cosine"
    asked = metric or usual
    text = str(IndexSpec.parse(index))
    if encoder is None:
        made = ViewRow(view, "image", "", _NOBODY, dim, asked, f"{name}_v1_{view}", text, kind)
    else:
        made = view_made(resources, name, view, encoder, metric=asked, index=text)
        if (made.dim, made.kind) != (dim, kind):
            raise DimensionMismatch(
                f"{given.name!r} holds {dim} dimensions ({kind}), and {encoder!r} makes {made.dim} ({made.kind}); "
                "name the encoder that made these vectors, or none"
            )
    return made


def _made(resources: Resources, name: str, view: ViewRow, source: str) -> CollectionRow:
    """A new collection, or one that an import of the same vectors has made. Raises CollectionExists."""
    store = resources.store
    found = store.find_collection(name, resources.backend_url)
    if found is None:
        ensure_physical(resources, [view], None)
        return store.create_collection(name, backend_url=resources.backend_url, views=[view])
    last = store.last_run(found.id)
    empty = last is None and not store.count_products(found.id)
    if found.views != (view,) or not (empty or (last is not None and last.source == source)):
        raise CollectionExists(
            f"{resources.backend_url} has a collection {name!r} already that was not made of these vectors; "
            "nothing was imported. Give another name"
        )
    ensure_physical(resources, found.views, found)
    return found


def _rows(pages: Iterator[GivenPage], view: ViewRow, name: str) -> Iterator[Rows]:
    """Raises BadRecord, BadSource, DimensionMismatch."""
    seen: set[str] = set()
    width = view.dim // 8 if view.kind == "binary" else view.dim
    for page in pages:
        if page.vectors.shape[1] != width:
            raise DimensionMismatch(f"{name!r} holds vectors of {width} and of {page.vectors.shape[1]} numbers")
        products = []
        for record in page.records:
            if record.key in seen:
                raise BadSource(f"{name!r} has the key {record.key!r} twice; a product has one vector of a view")
            seen.add(record.key)
            record = replace(record, attributes=checked_attributes(record))
            products.append(ProductWrite(record.key, record.title, record.image, record.attributes))
        hashes = [hashlib.blake2b(one.tobytes(), digest_size=16).hexdigest() for one in page.vectors]
        places = list(range(len(products)))
        yield Rows(products, {view.name: Vectors(places, page.vectors, hashes, places)})
