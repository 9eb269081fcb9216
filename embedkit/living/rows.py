"""Products with their vectors, page by page: out of a collection, into one, and one side held to the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedkit.backends.validation import unusable_rows
from embedkit.errors import BadInput, DataCorrupt
from embedkit.ingest.channel import Stop
from embedkit.ingest.committer import retry
from embedkit.ingest.report import Progress, ProgressCallback
from embedkit.ingest.target import Target, columns_of
from embedkit.metadata.rows import KnownProduct, ProductWrite, RunCounts
from embedkit.search.state import build_or_wait

if TYPE_CHECKING:
    from embedkit.backends.contract import VectorBackend
    from embedkit.metadata.rows import CollectionRow, KnownVector, ViewRow
    from embedkit.metadata.store import MetadataStore
    from embedkit.types import Metric, VectorArray

__all__ = ["PAGE", "Checked", "Rows", "Vectors", "check_equal", "pages_of", "put", "rows_of"]

PAGE = 1_000
_NEAR = 1e-6  # a backend may scale a unit vector to unit length once more, which moves its last bit


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of one view: ``vectors[i]`` is of the product ``places[i]`` of its page. `ids`: those they had."""

    places: Sequence[int]
    vectors: VectorArray
    hashes: Sequence[str]
    ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Rows:
    """A page of products; `views` by the name of the view."""

    products: Sequence[ProductWrite]
    views: Mapping[str, Vectors]

    @property
    def keys(self) -> list[str]:
        return [product.key for product in self.products]


@dataclass(frozen=True, slots=True)
class Checked:
    """A view on two sides. `checksum`: blake2b-128 over keys and vectors in the order of the keys.

    `largest_difference`: of a number in a vector; 0 where the checksums agree.
    """

    view: str
    vectors: int
    checksum: str
    checksum_there: str
    largest_difference: float

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def pages_of(store: MetadataStore, backend: VectorBackend, row: CollectionRow) -> Iterator[Rows]:
    """Every product of a collection with the vectors that serve, in the order of the keys."""
    for keys in store.key_pages(row.id, batch=PAGE):
        yield rows_of(store, backend, row, keys)


def rows_of(store: MetadataStore, backend: VectorBackend, row: CollectionRow, keys: Sequence[str]) -> Rows:
    """These products, without those that are not there. Raises DataCorrupt if the backend lacks a vector.

    Others may write and delete meanwhile: what the backend lacks is looked up again before it counts as lost.
    """
    known = dict(store.known(row.id, keys))
    while True:
        products = [known[key] for key in keys if key in known]
        views, lacking = {}, {}
        for view in row.views:
            views[view.name], gone = _fetched(backend, view, products)
            lacking.update({products[place].key: (view, vector) for place, vector in gone})
        if not lacking:
            return Rows([_write_of(product) for product in products], views)
        fresh = store.known(row.id, list(lacking))
        for key, (view, vector) in lacking.items():
            del known[key]
            if key in fresh:
                known[key] = fresh[key]
            if key in fresh and fresh[key].vectors.get(view.slot) == vector:
                raise DataCorrupt(
                    f"The view {view.name!r} of {row.name!r} lacks vectors that the store knows; "
                    f"run: embedkit verify --repair -c {row.name}"
                )


def _fetched(
    backend: VectorBackend, view: ViewRow, products: Sequence[KnownProduct]
) -> tuple[Vectors, list[tuple[int, KnownVector]]]:
    """The vectors of some products that serve, and which of them the backend lacks, with their places."""
    there = [
        (place, vector)
        for place, product in enumerate(products)
        if (vector := product.vectors.get(view.slot)) is not None and vector.state == "live"
    ]
    ids = [vector.id for _, vector in there]
    fetched = backend.fetch(view.physical, np.array(ids, np.int64))
    found = set(fetched.ids.tolist())
    hashes = [vector.content_hash for _, vector in there]
    gone = [(place, vector) for place, vector in there if vector.id not in found]
    return Vectors([place for place, _ in there], fetched.vectors, hashes, ids), gone


def _write_of(product: KnownProduct) -> ProductWrite:
    return ProductWrite(
        product.key, product.title, product.uri, product.attributes, product.content_hash, product.validator
    )


def put(
    target: Target,
    pages: Iterable[Rows],
    *,
    run_id: int,
    total: int | None,
    progress: ProgressCallback | None = None,
) -> RunCounts:
    """Write pages into a collection, in the three steps of an ingest; what is there already is skipped.

    So whatever was killed can be done again. Indexes are built at the end. Raises BadInput for a vector that cannot be
    searched, before its page is begun, what store and backend raise after retries, and Moved.
    """
    counts, notes = RunCounts(), [""]

    def tell() -> None:
        if progress is not None:
            progress(Progress(total, counts.seen, counts.encoded, counts.skipped, 0, notes[0]))

    def note(text: str) -> None:
        notes[0] = text
        tell()

    for page in pages:
        _check_vectors(page, {view.name: view.metric for view in target.row.views})
        written = retry(_putting(target, page, run_id, counts), Stop(), note)
        counts = _counted(counts, len(page.products), written)
        tell()
    for view in target.row.views:
        target.backend.flush(view.physical)
        build_or_wait(target.store, target.backend, target.row.id, view)
    return counts


def _check_vectors(page: Rows, metrics: Mapping[str, Metric]) -> None:
    for name, part in page.views.items():
        for row, reason in unusable_rows(part.vectors, metrics[name]).items():
            key = page.products[part.places[row]].key
            raise BadInput(
                f"The vector of the product {key!r} for the view {name!r} {reason}; mend that row or leave it out, and "
                "run the same again: what came before it is kept"
            )


def _counted(old: RunCounts, seen: int, written: int) -> RunCounts:
    return RunCounts(old.seen + seen, old.encoded + written, 0, old.skipped + seen - written)


def _putting(target: Target, page: Rows, run_id: int, before: RunCounts) -> Callable[[], int]:
    """The writing of a page; how many of its products were not there yet, or other than they are now."""
    views = {view.name: view for view in target.row.views}
    wanted: list[dict[str, tuple[str, str]]] = [{} for _ in page.products]
    for name, part in page.views.items():
        for place, content_hash in zip(part.places, part.hashes, strict=True):
            wanted[place][views[name].slot] = (content_hash, views[name].fingerprint)
    writes = [
        ProductWrite(one.key, one.title, one.uri, one.attributes, one.content_hash, one.validator, vectors=vectors)
        for one, vectors in zip(page.products, wanted, strict=True)
    ]

    def work() -> int:
        store, cid = target.store, target.row.id
        with target.writing():
            known = store.known(cid, page.keys)
            new = [place for place, write in enumerate(writes) if not _is_there(known.get(write.key), write)]
            issued = store.begin(cid, [writes[place] for place in new]) if new else []
            ids = dict(zip(new, issued, strict=True))
            for name, part in page.views.items():
                rows = [row for row, place in enumerate(part.places) if place in ids]
                if rows:
                    target.backend.upsert(
                        views[name].physical,
                        np.array([ids[part.places[row]][views[name].slot] for row in rows], np.int64),
                        part.vectors[rows],
                        [_columns(writes[part.places[row]]) for row in rows],
                    )
            store.commit(
                cid,
                run_id=run_id,
                writes=[writes[place] for place in new],
                skipped=[write.key for place, write in enumerate(writes) if place not in ids],
                offset=before.seen + len(writes),
                counts=_counted(before, len(writes), len(new)),
            )
        return len(new)

    return work


def _is_there(known: KnownProduct | None, write: ProductWrite) -> bool:
    if known is None:
        return False
    live = {
        slot: (vector.content_hash, vector.fingerprint)
        for slot, vector in known.vectors.items()
        if vector.state == "live"
    }
    return (known.title, known.uri, known.attributes, known.content_hash, live) == (
        write.title,
        write.uri,
        write.attributes,
        write.content_hash,
        write.vectors,
    )


def _columns(write: ProductWrite) -> Mapping[str, object]:
    return columns_of(write.key, write.title, write.attributes)


def check_equal(pages: Iterable[Rows], there: Callable[[Sequence[str]], Rows], *, what: str) -> tuple[Checked, ...]:
    """Read every page's products on the other side too; the checksums of both, by view.

    Raises DataCorrupt for a product that is missing or another one there.
    """
    sums: dict[str, list[hashlib.blake2b]] = {}
    counts: dict[str, int] = {}
    largest: dict[str, float] = {}
    for page in pages:
        other = there(page.keys)
        if [_plain(one) for one in other.products] != [_plain(one) for one in page.products]:
            raise DataCorrupt(f"{what}: the products of the two sides are not the same; run the same command again")
        for name, part in page.views.items():
            mirrored = other.views[name]
            off = _difference(part, mirrored)
            if off > _NEAR:
                raise DataCorrupt(f"{what}: the vectors of {name!r} are not the same; run the same command again")
            here_sum, there_sum = sums.setdefault(name, [hashlib.blake2b(digest_size=16) for _ in range(2)])
            _feed(here_sum, page, part)
            _feed(there_sum, other, mirrored)
            counts[name] = counts.get(name, 0) + len(part.places)
            largest[name] = max(largest.get(name, 0.0), off)
    return tuple(
        Checked(name, counts[name], here_sum.hexdigest(), there_sum.hexdigest(), largest[name])
        for name, (here_sum, there_sum) in sums.items()
    )


def _plain(one: ProductWrite) -> tuple[object, ...]:
    return one.key, one.title, one.uri, one.attributes, one.content_hash


def _difference(one: Vectors, other: Vectors) -> float:
    if list(one.places) != list(other.places) or one.vectors.shape != other.vectors.shape:
        return float("inf")
    if not len(one.places):
        return 0.0
    return float(np.abs(one.vectors.astype(np.float32) - other.vectors.astype(np.float32)).max())


def _feed(into: hashlib.blake2b, page: Rows, part: Vectors) -> None:
    rows = np.ascontiguousarray(part.vectors)
    for place, vector in zip(part.places, rows, strict=True):
        into.update(page.products[place].key.encode())
        into.update(vector.tobytes())
