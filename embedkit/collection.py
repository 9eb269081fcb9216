"""`Collection`: the products of one catalog, their vectors, and every question one can ask of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.arguments import check_kind
from embedkit.errors import (
    BadInput,
    ConfigError,
    ProductNotFound,
)
from embedkit.filters import Filter, as_filter
from embedkit.types import Hit, Metric, Product
from embedkit.views import encoder_of, ignored_settings, made_collection, named_view

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    from embedkit.backends.contract import IndexSpec, SearchParams
    from embedkit.encoders.contract import Encoder
    from embedkit.ingest.report import IngestReport, ProgressCallback
    from embedkit.ingest.target import Target
    from embedkit.ingest.verify import VerifyReport
    from embedkit.metadata.rows import CollectionRow, FailureRow, RunRow, ViewRow
    from embedkit.resources import Resources
    from embedkit.search.advise import Advice
    from embedkit.search.measure import Tuning
    from embedkit.search.rules import IndexAdvice
    from embedkit.search.state import IndexState

__all__ = ["Collection", "Status", "check_name"]

_KEY = "A product's key is a text"


@dataclass(frozen=True, slots=True)
class Status:
    """What a collection holds, by view: `vectors` live ones, `encoders` spec strings, `metrics`."""

    name: str
    backend: str
    products: int
    vectors: Mapping[str, int]
    encoders: Mapping[str, str]
    metrics: Mapping[str, Metric]
    failures: int
    duplicates: int
    last_run: RunRow | None

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        values = asdict(self)
        run = self.last_run
        if run is not None:
            values["last_run"] = {
                "source": run.source,
                "state": run.state,
                "counts": asdict(run.counts),
                "started_at": run.started_at.isoformat(),
                "finished_at": run.finished_at.isoformat() if run.finished_at else None,
            }
        return values


class Collection:
    """Made by `Kit.collection`. It comes into being with its first `ingest`."""

    def __init__(self, name: str, resources: Resources) -> None:
        self.name = name
        self._resources = resources
        self._row: CollectionRow | None = None

    def __repr__(self) -> str:
        return f"Collection({self.name!r}, backend={self._resources.backend_url!r})"

    # -- writing -------------------------------------------------------------------------------

    def ingest(
        self,
        source: str | Path | None = None,
        *,
        map: Mapping[str, str] | None = None,
        kind: str | None = None,
        query: str | None = None,
        encoder: Mapping[str, str] | None = None,
        limit: int | None = None,
        dry_run: bool = False,
        prune: bool = False,
        retry_failed: bool = False,
        progress: ProgressCallback | None = None,
    ) -> IngestReport:
        """Bring the collection in line with a catalog; unchanged products are skipped.

        `source`: a folder, a zip or tar archive, a CSV, TSV, JSONL or Parquet file (a path or any fsspec
        URL), or a database URL with `query`. `map`: which column is ``key``, ``image``, ``title``.
        `encoder`: spec string by view, for a collection that does not exist yet. `prune` deletes what the
        catalog no longer holds. `retry_failed` tries the failures of earlier runs and needs no source.

        A bad record becomes a failure (see `failures`) and never stops the run. Raises BadSource,
        ConfigError, EncoderMismatch, BackendUnavailable, DiskFull; what was committed stays, and the
        next run goes on.
        """
        from embedkit.ingest import pipeline
        from embedkit.ingest.sources.mapping import ColumnMapping
        from embedkit.ingest.sources.open import open_source

        if retry_failed == (source is not None):
            raise BadInput("Give either a source to ingest or retry_failed, and not both")
        check_kind(source, str | Path | None, "A catalog is a path or a URL")
        check_kind(limit, Integral | None, "limit is a whole number")
        check_kind(map, Mapping | None, 'map is a mapping such as {"key": "sku", "image": "photo"}')
        check_kind(encoder, Mapping | None, 'encoder is a mapping such as {"image": "effnet-lite0"}')
        if limit is not None and limit < 1:
            raise BadInput(f"limit={limit} is not a number of records; give 1 or more")
        options = pipeline.IngestOptions(limit=limit, dry_run=dry_run, prune=prune, progress=progress)
        settings = self._resources.settings
        if retry_failed:
            target = self._target(self._existing(), encoders=True)
            return pipeline.retry_failed(target, settings=settings.ingest, fetch=settings.fetch, options=options)
        mapping = ColumnMapping.from_dict({**(settings.for_collection(self.name).map or {}), **(map or {})})
        with closing(open_source(str(source), mapping=mapping, kind=kind, query=query)) as opened:
            row = self._made(encoder, dry_run=dry_run)
            target = self._target(row, encoders=True)
            report = pipeline.ingest(target, opened, settings=settings.ingest, fetch=settings.fetch, options=options)
        return replace(report, warnings=(*report.warnings, *ignored_settings(self._resources, row)))

    def delete(self, keys: Sequence[str] | str | None = None, *, where: Filter | str | None = None) -> int:
        """Delete products by key, or all that a filter admits; how many there were."""
        from embedkit.ingest.items import is_plain_text
        from embedkit.ingest.prune import delete_products

        if (keys is None) == (where is None):
            raise BadInput("Give either the keys of the products to delete or a filter")
        row = self._existing()
        check_kind(keys, str | Iterable | None, "Keys are a text or a list of texts")
        chosen = [keys] if isinstance(keys, str) else list(keys) if keys is not None else list(self._keys_where(where))
        for key in chosen:
            check_kind(key, str, _KEY)
        return delete_products(self._target(row), [key for key in chosen if is_plain_text(key)])

    def drop(self) -> None:
        """Remove the collection: its vectors, its products, its history."""
        row = self._existing()
        for view in row.views:
            self._resources.backend.drop(view.physical)
        self._resources.store.drop_collection(row.id)
        self._row = None

    # -- asking --------------------------------------------------------------------------------

    def search(
        self,
        *,
        image: str | Path | bytes | Image | None = None,
        sketch: str | Path | bytes | Image | None = None,
        text: str | None = None,
        vector: npt.ArrayLike | None = None,
        product: str | None = None,
        where: Filter | str | None = None,
        k: int = 10,
        view: str | None = None,
        weights: Mapping[str, float] | None = None,
        rerank: str | None = None,
        candidates: int | None = None,
        params: SearchParams | Mapping[str, int] | None = None,
    ) -> list[Hit]:
        """The k most similar products, best first.

        `image`: a path, a URL, encoded bytes or a PIL picture. It asks the first view of pictures, `text` the first of
        texts, or the one that is named: an encoder that takes both finds texts by pictures, and pictures by texts.
        `sketch`: as an image, a line drawing, dark on white or on nothing; if the encoder was not trained for sketches,
        a warning is logged. `vector`: ``(dim,)``, or a code's ``(dim / 8,)`` bytes of uint8, for `view` (else the first
        view). `product`: a key; its stored vector is used and it is left out of the answer. Several together are
        fused, weighted by `weights` (``{"image": 0.7, "text": 0.3}``; 1 each by default). `where`: a filter.

        `rerank`: a second view, whose exact scores put the nearest products of the first in order, as when codes are
        searched and floats decide. `candidates`: how many of the first; 10 for each of k, and 100 or more, if unset.

        `params`: how far the index looks, such as ``{"ef": 128}`` or ``{"nprobe": 32}``, over what `tune` has found;
        one that means nothing to the indexes that are searched is an error.

        Raises BadImage, BadInput, CollectionNotFound, DimensionMismatch, EncoderMismatch, FilterError,
        ProductNotFound.
        """
        from embedkit.questions import Questions
        from embedkit.search.query import checked_params, search

        row, resources = self._existing(), self._resources
        if product is not None:
            self.get(product)
        questions = Questions(
            resources, row, image=image, sketch=sketch, text=text, vector=vector, product=product, weights=weights
        )
        queries = questions.queries(view, but=rerank)
        return search(
            resources.store,
            resources.backend,
            row,
            queries,
            k=k,
            where=as_filter(where),
            params=checked_params(params, queries, resources.backend.capabilities),
            without=product,
            again=questions.again(rerank, view) if rerank is not None else None,
            candidates=candidates,
        )

    def get(self, key: str) -> Product:
        """A product by key. Raises ProductNotFound."""
        from embedkit.ingest.items import is_plain_text

        check_kind(key, str, _KEY)
        row = self._existing()
        found = self._resources.store.product(row.id, key) if is_plain_text(key) else None
        if found is None:
            raise ProductNotFound(f"The collection {self.name!r} has no product with the key {key!r}")
        return found

    def count(self, *, where: Filter | str | None = None) -> int:
        """How many products there are, or how many a filter admits."""
        row = self._existing()
        if where is None:
            return self._resources.store.count_products(row.id)
        return sum(1 for _ in self._keys_where(where))

    def failures(self, *, stage: str | None = None, limit: int | None = None) -> list[FailureRow]:
        """Records that could not be ingested, with the reason."""
        return self._resources.store.failures(self._existing().id, stage=stage, limit=limit)

    def duplicates(self, *, limit: int = 100) -> list[tuple[str, tuple[str, ...]]]:
        """Products that share one picture: its content hash, their keys."""
        return self._resources.store.duplicates(self._existing().id, limit=limit)

    def status(self) -> Status:
        """What the collection holds, and how its last run ended."""
        row, store = self._existing(), self._resources.store
        return Status(
            name=row.name,
            backend=row.backend_url,
            products=store.count_products(row.id),
            vectors={view.name: store.count_vectors(row.id, view.name) for view in row.views},
            encoders={view.name: view.encoder for view in row.views},
            metrics={view.name: view.metric for view in row.views},
            failures=store.failure_count(row.id),
            duplicates=store.duplicate_count(row.id),
            last_run=store.last_run(row.id),
        )

    def verify(self, *, repair: bool = False) -> VerifyReport:
        """Compare store and backend id by id; `repair` mends what differs."""
        from embedkit.ingest.verify import verify

        return verify(self._target(self._existing()), repair=repair)

    # -- the index -----------------------------------------------------------------------------

    def index(self, *, view: str | None = None) -> IndexState:
        """The index of a view, the first one if unset: what it is, how far it has come, what searches ask with."""
        from embedkit.search.state import index_state

        row = self._existing()
        return index_state(self._resources.backend, named_view(row, view) if view else row.views[0])

    def build_index(self, spec: IndexSpec | str, *, view: str | None = None) -> IndexState:
        """Build another index over a view, or over every view of the kind it is for; searches go on meanwhile.

        `spec`: as text, ``hnsw(m=32)`` or ``ivf(nlist=auto) + pq(m=16) + refine(flat)``. Rows that come later are
        scanned exactly beside it, until they are many; then they are added. Raises BadInput, ConfigError,
        UnsupportedByBackend, naming what is nearest.
        """
        from embedkit.backends.indexes import IndexSpec
        from embedkit.search.state import rebuilt

        row, resources = self._existing(), self._resources
        check_kind(spec, IndexSpec | str, "An index is a spec or its text")
        parsed = spec if isinstance(spec, IndexSpec) else IndexSpec.parse(spec)
        first = named_view(row, view) if view else row.views[0]
        views = [first] if view else [one for one in row.views if one.kind == first.kind]
        rebuilt(resources.store, resources.backend, row, views, parsed)
        self._row = None
        return self.index(view=first.name)

    def tune(
        self,
        *,
        recall: float = 0.95,
        k: int = 10,
        queries: int = 500,
        view: str | None = None,
        keep: bool = True,
    ) -> Tuning:
        """Find the cheapest parameters by which the index finds a share of the k nearest; searches then ask with them.

        Measured by `queries` of the collection's own vectors against an exact scan of all of them. `keep` false leaves
        searches as they are. Raises BadInput.
        """
        from embedkit.search.measure import tuned
        from embedkit.search.state import keep_knobs

        _check_share(recall, k=k, queries=queries)
        row, resources = self._existing(), self._resources
        chosen = named_view(row, view) if view else row.views[0]
        found = tuned(resources.store, resources.backend, row, chosen, recall=recall, k=k, queries=queries)
        if keep and found.chosen is not None:
            keep_knobs(resources.store, row, chosen, found.chosen.params)
            self._row = None
        return found

    def advise(
        self,
        *,
        view: str | None = None,
        recall: float = 0.95,
        memory: int | str | None = None,
        latency: float | None = None,
        k: int = 10,
        sample: int = 20_000,
        queries: int = 500,
    ) -> IndexAdvice:
        """Which indexes would do for `view`, the first of floats if unset: each built over a sample, and measured.

        `queries` vectors ask for their `k` nearest among `sample` others, whose exact neighbours are known; `recall` is
        the share of these that is wanted. `memory`: bytes, or text such as ``2GB``. `latency`: milliseconds of a query.
        Raises BadInput, CollectionNotFound.
        """
        from embedkit.search.measure import measured_advice
        from embedkit.search.rules import parse_bytes

        _check_share(recall, k=k, sample=sample, queries=queries)
        row, resources = self._existing(), self._resources
        return measured_advice(
            resources.store,
            resources.backend,
            row,
            _of_floats(row, view),
            recall=recall,
            memory=None if memory is None else parse_bytes(memory),
            latency=latency,
            k=k,
            sample=sample,
            queries=queries,
        )

    def advise_codes(
        self,
        *,
        view: str | None = None,
        recall: float = 0.95,
        k: int = 10,
        sample: int = 20_000,
        queries: int = 500,
    ) -> Advice:
        """Which codes would do in the place of the floats of `view`, and how many candidates to rerank.

        Measured on the vectors of `sample` products, of which `queries` ask for their `k` nearest; `recall`: the share
        of these that is wanted. `view`: the first of floats, if unset. Raises BadInput, CollectionNotFound.
        """
        from embedkit.search.advise import advise_codes

        _check_share(recall, k=k, sample=sample, queries=queries)
        row, resources = self._existing(), self._resources
        chosen = _of_floats(row, view)
        return advise_codes(
            resources.store, resources.backend, row, chosen, k=k, recall=recall, sample=sample, queries=queries
        )

    # -- pictures ------------------------------------------------------------------------------

    def picture(self, product: Product) -> bytes | None:
        """The bytes of a product's picture, from where it was ingested; None if it has none.

        Raises BadImage, FetchFailed, FetchTimeout.
        """
        return None if product.uri is None else self._resources.read(product.uri)

    # -- how -----------------------------------------------------------------------------------

    def _existing(self) -> CollectionRow:
        self._resources.check_open()
        if self._row is None:
            self._row = self._resources.store.collection(self.name, self._resources.backend_url)
        return self._row

    def _made(self, encoder: Mapping[str, str] | None, *, dry_run: bool) -> CollectionRow:
        """The collection's row; it is made if it is not there."""
        row = made_collection(self._resources, self.name, encoder, dry_run=dry_run)
        self._row = None if dry_run else row
        return row

    def _target(self, row: CollectionRow, *, encoders: bool = False) -> Target:
        from embedkit.ingest.target import Target

        loaded = {view.name: self._encoder(view) for view in row.views} if encoders else {}
        return Target(self._resources.store, self._resources.backend, row, loaded)

    def _encoder(self, view: ViewRow) -> Encoder:
        return encoder_of(self._resources, self.name, view)

    def _keys_where(self, where: Filter | str | None) -> Iterator[str]:
        """Keys of the products that a filter admits, read from the store page by page."""
        from embedkit.matching import matches

        node, row, after = as_filter(where), self._existing(), ""
        while keys := self._resources.store.keys(row.id, after=after, limit=1_000):
            products = self._resources.store.products(row.id, keys)
            for key in keys:
                found = products.get(key)
                if found and (
                    node is None or matches(node, {**found.attributes, "key": found.key, "title": found.title})
                ):
                    yield key
            after = keys[-1]


def _check_share(recall: float, **numbers: int) -> None:
    """Raise BadInput unless it is a share, and the others are numbers of vectors."""
    check_kind(recall, Real, "recall is a share")
    if not 0 < recall <= 1:
        raise BadInput(f"recall={recall} is not a share; give more than 0 and at most 1")
    for name, value in numbers.items():
        check_kind(value, Integral, f"{name} is a whole number")
        if value < 1:
            raise BadInput(f"{name}={value} is not a number of vectors; give 1 or more")


def _of_floats(row: CollectionRow, view: str | None) -> ViewRow:
    return named_view(row, view) if view else next((v for v in row.views if v.kind == "float"), row.views[0])


def check_name(name: str) -> str:
    """Raises ConfigError unless it is a collection name."""
    check_kind(name, str, "A collection's name is a text")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", name):
        raise ConfigError(f"{name!r} is no collection name; use a letter, then letters, digits and _, at most 100")
    return name
