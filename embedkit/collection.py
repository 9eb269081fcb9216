"""`Collection`: the products of one catalog, their vectors, and every question one can ask of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from embedkit.arguments import check_kind, check_texts
from embedkit.errors import (
    BadInput,
    ConfigError,
    EmbedkitError,
    ProductNotFound,
    UnknownName,
)
from embedkit.filters import F, Filter, as_filter, filter_paths
from embedkit.indexed import Indexed
from embedkit.types import STAGES, Hit, Product, Question
from embedkit.views import ignored_settings, made_collection, named_view, writing_encoders

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    from embedkit.backends.contract import SearchParams
    from embedkit.clusters import ClusterReport
    from embedkit.ingest.report import IngestReport, ProgressCallback
    from embedkit.ingest.target import Target
    from embedkit.ingest.verify import VerifyReport
    from embedkit.metadata.rows import CollectionRow, FailureRow, RunCounts
    from embedkit.resources import Resources
    from embedkit.search.duplicates import Comparing, DuplicateReport
    from embedkit.search.query import Asked
    from embedkit.search.wanted import Fusion
    from embedkit.status import Status

__all__ = ["Collection", "check_name"]

T = TypeVar("T")
_log = logging.getLogger(__name__)
_KEY = "A product's key is a text"


class Collection(Indexed):
    """Made by `Kit.collection`. It comes into being with its first `ingest`."""

    def __init__(self, name: str, resources: Resources) -> None:
        super().__init__(name, resources)

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
        checksum: bool = False,
        retry_failed: bool = False,
        progress: ProgressCallback | None = None,
    ) -> IngestReport:
        """Bring the collection in line with a catalog; unchanged products are skipped.

        `source`: a folder, a zip or tar archive, a CSV, TSV, JSONL or Parquet file (a path or any fsspec
        URL), or a database URL with `query`. `map`: which column is ``key``, ``image``, ``title``.
        `encoder`: spec string by view, for a collection that does not exist yet. `prune` deletes what the
        catalog no longer holds. `checksum` reads every picture again, also one whose file has the times and whose
        host names the ETag of last time. `retry_failed` tries the failures of earlier runs and needs no source.

        A bad record becomes a failure (see `failures`) and never stops the run; so does a key of more than 1,024
        bytes of UTF-8, and one of which the encoder makes no vector that can be searched. Raises BadSource,
        ConfigError, EncoderMismatch, BackendUnavailable, DiskFull; what was committed stays, and the
        next run goes on.
        """
        from embedkit.ingest import pipeline
        from embedkit.ingest.sources.mapping import ColumnMapping
        from embedkit.ingest.sources.open import open_source
        from embedkit.ingest.target import Moved

        if retry_failed == (source is not None):
            raise BadInput("Give either a source to ingest or retry_failed, and not both")
        check_kind(source, str | Path | None, "A catalog is a path or a URL")
        check_kind(limit, Integral | None, "limit is a whole number")
        check_texts(map, 'map is a mapping such as {"key": "sku", "image": "photo"}')
        check_texts(encoder, 'encoder is a mapping such as {"image": "effnet-lite0"}')
        if limit is not None and limit < 1:
            raise BadInput(f"limit={limit} is not a number of records; give 1 or more")
        options = pipeline.IngestOptions(
            limit=limit, dry_run=dry_run, prune=prune, checksum=checksum, progress=progress
        )
        settings = self._resources.settings
        if retry_failed:
            self._existing()
            return self._steadily(
                lambda target: pipeline.retry_failed(
                    target, settings=settings.ingest, fetch=settings.fetch, options=options
                ),
                encoders=True,
            )
        mapping = ColumnMapping.from_dict({**(settings.for_collection(self.name).map or {}), **(map or {})})
        with closing(open_source(str(source), mapping=mapping, kind=kind, query=query)) as opened:
            row = self._with_keywords(self._made(encoder, dry_run=dry_run), dry_run=dry_run)
            before: list[RunCounts] = []

            def run(target: Target) -> IngestReport:
                try:
                    return pipeline.ingest(
                        target, opened, settings=settings.ingest, fetch=settings.fetch, options=options
                    )
                except Moved as moved:
                    before.append(moved.counts)
                    raise

            report = self._steadily(run, row if dry_run else None, encoders=True)
            if opened.fingerprint() is not None:  # else the run begins anew, and meets its own products
                report = report.after(before)
        return replace(report, warnings=(*report.warnings, *ignored_settings(self._resources, row)))

    def delete(self, keys: Sequence[str] | str | None = None, *, where: Filter | str | None = None) -> int:
        """Delete products by key, or all that a filter admits; how many there were. Their failures are forgotten."""
        from embedkit.ingest.items import is_plain_text
        from embedkit.ingest.prune import delete_products

        if (keys is None) == (where is None):
            raise BadInput("Give either the keys of the products to delete or a filter")
        self._existing()
        check_kind(keys, str | Iterable | None, "Keys are a text or a list of texts")
        chosen = [keys] if isinstance(keys, str) else list(keys) if keys is not None else list(self._keys_where(where))
        for key in chosen:
            check_kind(key, str, _KEY)
        plain = [key for key in chosen if is_plain_text(key)]
        return self._steadily(lambda target: delete_products(target, plain))

    def drop(self) -> None:
        """Remove the collection: its vectors, its products, its history.

        An ingest under way ends with CollectionNotFound. Raises CollectionNotFound, StoreBusy (a reindex runs).
        """
        from embedkit.living.versions import drop_all

        self._resources.check_open()
        drop_all(self._resources, self.name)
        self._row = None

    # -- asking --------------------------------------------------------------------------------

    def search(
        self,
        *,
        image: str | Path | bytes | Image | None = None,
        sketch: str | Path | bytes | Image | None = None,
        text: str | None = None,
        keywords: str | None = None,
        vector: npt.ArrayLike | None = None,
        product: str | None = None,
        where: Filter | str | None = None,
        k: int = 10,
        offset: int = 0,
        view: str | None = None,
        weights: Mapping[str, float] | None = None,
        fusion: Fusion = "weighted",
        rerank: str | None = None,
        candidates: int | None = None,
        group_by: str | None = None,
        diversity: float | None = None,
        min_score: float | None = None,
        max_distance: float | None = None,
        params: SearchParams | Mapping[str, int] | None = None,
    ) -> list[Hit]:
        """The k most similar products, best first.

        `image`: a path, a URL, encoded bytes or a PIL picture. It asks the first view of pictures, `text` the first of
        texts, or the one that is named: an encoder that takes both finds texts by pictures, and pictures by texts.
        `sketch`: as an image, a line drawing, dark on white or on nothing; if the encoder was not trained for sketches,
        a warning is logged. `keywords`: words, any of which the title holds, or one of the attributes that the setting
        `keywords` names; products with more and rarer ones come first. `vector`: ``(dim,)``, or a code's ``(dim / 8,)``
        bytes of uint8, for `view` (else the first view). `product`: a key; its stored vector is used and it is left out
        of the answer. `where`: a filter.

        Several together are fused. `fusion`: ``weighted`` adds up exact scores times `weights` (``{"image": 0.7,
        "text": 0.3}``; 1 each by default), those of keywords over the best one's; ``rrf`` adds up weight / (60 + rank)
        (Cormack 2009). `rerank`: a second view, whose exact scores put the nearest products of the first in order, as
        when codes are searched and floats decide; or the view of codes itself, which then compares the stored bits with
        the numbers of which the question's bits are the signs (Gordo 2014). `candidates`: how many each part hands in
        to be fused, reranked or spread out; 10 for each of k, and 100 or more, if unset.

        `offset`: how many of the best to leave out, for pages; ask each with the same k, or the same candidates.
        `group_by`: an attribute, of each value of which the best product alone is given; one without it stands for
        itself. `diversity`: from 0, the nearest alone, to 1: maximal marginal relevance (Carbonell 1998) on the stored
        vectors. `min_score`, `max_distance` (squared for ``l2``, bits for codes): what is farther is left out.

        `params`: how far the index looks, such as ``{"ef": 128}`` or ``{"nprobe": 32}``, over what `tune` has found;
        one that means nothing to the indexes that are searched is an error.

        Raises BadImage, BadInput, CollectionNotFound, DimensionMismatch, EncoderMismatch, FilterError,
        ProductNotFound, StoreError (keywords, on a SQLite without FTS5), UnknownName.
        """
        from embedkit.backends.open import capabilities
        from embedkit.search.knobs import checked_params
        from embedkit.search.query import search, search_words
        from embedkit.search.wanted import wanted

        wish = wanted(
            k=k, offset=offset, where=where, group_by=group_by, diversity=diversity, min_score=min_score,
            max_distance=max_distance, fusion=fusion, candidates=candidates,
        )  # fmt: skip
        question = Question(image, sketch, text, keywords, vector, product)

        def ask(row: CollectionRow) -> list[Hit]:
            asked = self._asked(row, [question], view=view, rerank=rerank, weights=weights)[0]
            able = capabilities(self._resources.settings.backend)
            knobs = checked_params(params, [query.view for query in asked.queries], able)
            if not asked.queries:  # and the backend need not even be there
                return search_words(self._resources.store, row, asked, wish)
            return search(self._resources.store, self._resources.backend, row, asked, wish, knobs)

        return self._of_serving(ask)

    def search_many(
        self,
        questions: Sequence[Question],
        *,
        where: Filter | str | None = None,
        k: int = 10,
        offset: int = 0,
        view: str | None = None,
        weights: Mapping[str, float] | None = None,
        fusion: Fusion = "weighted",
        rerank: str | None = None,
        candidates: int | None = None,
        group_by: str | None = None,
        diversity: float | None = None,
        min_score: float | None = None,
        max_distance: float | None = None,
        params: SearchParams | Mapping[str, int] | None = None,
    ) -> list[list[Hit]]:
        """The answers to many questions, in their order, each as `search` gives it.

        Pictures and words are encoded in batches, and the questions of one vector are put to the backend together;
        those of several parts, of keywords, or that are reranked or spread out, one after another. One question that
        cannot be asked fails the call. Raises as `search` does.
        """
        from embedkit.search.knobs import checked_params
        from embedkit.search.query import search_many
        from embedkit.search.wanted import wanted

        check_kind(questions, Sequence, 'questions is a list such as [Question(text="red shoe")]')
        for question in questions:
            check_kind(question, Question, 'A question is such as Question(text="red shoe")')
        wish = wanted(
            k=k, offset=offset, where=where, group_by=group_by, diversity=diversity, min_score=min_score,
            max_distance=max_distance, fusion=fusion, candidates=candidates,
        )  # fmt: skip

        def ask(row: CollectionRow) -> list[list[Hit]]:
            asked = self._asked(row, questions, view=view, rerank=rerank, weights=weights)
            backend = self._resources.backend
            views = [query.view for one in asked for query in one.queries]
            knobs = checked_params(params, views, backend.capabilities)
            return search_many(self._resources.store, backend, row, asked, wish, knobs)

        return self._of_serving(ask)

    def get(self, key: str) -> Product:
        """A product by key. Raises ProductNotFound."""
        return self._named(self._existing(), [key])[key]

    def count(self, *, where: Filter | str | None = None) -> int:
        """How many products there are, or how many a filter admits."""
        row = self._existing()
        if where is None:
            return self._resources.store.count_products(row.id)
        return sum(1 for _ in self._keys_where(where))

    def unknown_attributes(self, where: Filter | str) -> list[str]:
        """Why a filter may admit nothing: a sentence for each of its attributes that no product has.

        Each names the nearest attributes that there are. Raises CollectionNotFound, FilterError.
        """
        from embedkit.search.attributes import unknown_attributes

        node = as_filter(where)
        paths = filter_paths(node) if node is not None else ()
        return unknown_attributes(self._resources.store, self._existing(), paths)

    def failures(self, *, stage: str | None = None, limit: int | None = None) -> list[FailureRow]:
        """Records that could not be ingested, with the reason; those of one `stage`. Raises UnknownName (the stage)."""
        check_kind(stage, str | None, "stage is a text such as 'fetch'")
        check_kind(limit, Integral | None, "limit is a whole number")
        if stage is not None and stage not in STAGES:
            raise UnknownName("stage of failures", stage, STAGES)
        return self._resources.store.failures(self._existing().id, stage=stage, limit=limit)

    def duplicates(self, *, limit: int = 100) -> list[tuple[str, tuple[str, ...]]]:
        """Products that share one picture: its content hash, their keys."""
        check_kind(limit, Integral, "limit is a whole number")
        return self._resources.store.duplicates(self._existing().id, limit=limit)

    def status(self) -> Status:
        """What the collection holds, and how its last run ended."""
        from embedkit.status import status_of

        return status_of(self._resources.store, self._fresh())

    def verify(self, *, repair: bool = False) -> VerifyReport:
        """Compare store and backend id by id; `repair` mends what differs."""
        from embedkit.ingest.verify import verify

        self._existing()
        return self._steadily(lambda target: verify(target, repair=repair))

    def dedup(
        self,
        *,
        threshold: float = 0.95,
        view: str | None = None,
        where: Filter | str | None = None,
        progress: Callable[[Comparing], None] | None = None,
    ) -> DuplicateReport:
        """Near-duplicates by their vectors, in groups, and which of each to keep. Nothing is deleted.

        Two products are joined where the cosine similarity of their vectors (of codes: of their signs) is `threshold`
        or more; what joins them in steps is one group. ``delete(report.removable)`` deletes those that are as like to
        the kept one itself. `view`: the first one, if unset. Products with the very same picture, without
        vectors: `duplicates`. Raises BadInput, CollectionNotFound, FilterError.
        """
        from embedkit.search.duplicates import find_duplicates

        check_kind(threshold, Real, "threshold is a cosine similarity")
        if not -1 < threshold <= 1:
            raise BadInput(f"threshold={threshold} is no cosine similarity to search by; give 0.95 or so, at most 1")
        row, resources = self._existing(), self._resources
        chosen = named_view(row, view) if view else row.views[0]
        return find_duplicates(
            resources.store, resources.backend, row, chosen, threshold=float(threshold), where=as_filter(where),
            progress=progress,
        )  # fmt: skip

    def cluster(
        self, k: int, *, view: str | None = None, where: Filter | str | None = None, labels: str | None = None
    ) -> ClusterReport:
        """Products in `k` clusters by k-means on their vectors.

        `labels`: an attribute that tells what a product is; `ClusterReport.nmi` then says how well the clusters agree
        with it, from 0 to 1. `view`: the first one, if unset. Raises BadInput, CollectionNotFound, FilterError.
        """
        from embedkit.clusters import find_clusters

        check_kind(k, Integral, "k is a whole number")
        if k < 1:
            raise BadInput(f"k={k} is not a number of clusters; give 1 or more")
        check_kind(labels, str | None, "labels is an attribute such as 'category'")
        row = self._existing()
        chosen = named_view(row, view) if view else row.views[0]
        path = F(labels).path if labels is not None else None
        return find_clusters(self._resources, row, chosen, int(k), where=as_filter(where), labels=path)

    def picture(self, product: Product) -> bytes | None:
        """The bytes of a product's picture, from where it was ingested; None if it has none.

        Raises BadImage, FetchFailed, FetchTimeout.
        """
        return None if product.uri is None else self._resources.read(product.uri)

    # -- how -----------------------------------------------------------------------------------

    def _asked(
        self,
        row: CollectionRow,
        questions: Sequence[Question],
        *,
        view: str | None,
        rerank: str | None,
        weights: Mapping[str, float] | None,
    ) -> list[Asked]:
        from embedkit.questions import asked_by

        self._named(row, [question.product for question in questions if question.product is not None])
        return asked_by(self._resources, row, questions, view=view, rerank=rerank, weights=weights)

    def _named(self, row: CollectionRow, keys: Sequence[str]) -> dict[str, Product]:
        """Products by key, asked for together. Raises ProductNotFound."""
        from embedkit.ingest.items import is_plain_text

        for key in keys:
            check_kind(key, str, _KEY)
        plain = [key for key in keys if is_plain_text(key)]
        found = self._resources.store.products(row.id, plain) if plain else {}
        for key in keys:
            if key not in found:
                raise ProductNotFound(f"The collection {self.name!r} has no product with the key {key!r}")
        return found

    def _of_serving(self, ask: Callable[[CollectionRow], T]) -> T:
        """Ask the version that serves; once more, if it has been replaced and dropped meanwhile."""
        row = self._existing()
        try:
            return ask(row)
        except EmbedkitError:
            now = self._fresh()
            if now.version == row.version:
                raise
            return ask(now)

    def _steadily(self, work: Callable[[Target], T], row: CollectionRow | None = None, *, encoders: bool = False) -> T:
        """Write to every version there is; if one is added or switched meanwhile, go on with those there are then."""
        from embedkit.ingest.target import Moved

        while True:
            try:
                return work(self._target(row or self._fresh(), encoders=encoders))
            except Moved:
                _log.info("The versions of %r have changed; going on with those there are now", self.name)

    def _made(self, encoder: Mapping[str, str] | None, *, dry_run: bool) -> CollectionRow:
        """The collection's row; it is made if it is not there."""
        row = made_collection(self._resources, self.name, encoder, dry_run=dry_run)
        self._row = None if dry_run else row
        return row

    def _with_keywords(self, row: CollectionRow, *, dry_run: bool) -> CollectionRow:
        """The row with the attributes that the settings name now; where these are others, all words are read anew."""
        paths = self._resources.settings.for_collection(self.name).keywords
        if dry_run or paths is None or tuple(paths) == row.keywords:
            return row
        self._resources.store.set_keywords(row.id, paths)
        row = self._row = replace(row, keywords=tuple(paths))
        return row

    def _target(self, row: CollectionRow, *, encoders: bool = False) -> Target:
        from embedkit.ingest.target import Target

        loaded = writing_encoders(self._resources, row) if encoders else {}
        return Target(self._resources.store, self._resources.backend, row, loaded)

    def _keys_where(self, where: Filter | str | None) -> Iterator[str]:
        """Keys of the products that a filter admits, read from the store page by page."""
        from embedkit.matching import matches
        from embedkit.search.ranks import attributes_of

        node, row = as_filter(where), self._existing()
        for page in self._resources.store.product_pages(row.id):
            yield from (one.key for one in page if node is None or matches(node, attributes_of(one)))


def check_name(name: str) -> str:
    """Raises ConfigError unless it is a collection name."""
    check_kind(name, str, "A collection's name is a text")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", name):
        raise ConfigError(f"{name!r} is no collection name; use a letter, then letters, digits and _, at most 100")
    return name
