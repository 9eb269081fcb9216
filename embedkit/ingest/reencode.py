"""Filling a version of a collection that does not serve yet, from what the store knows of the products.

Pictures are read again from where they were ingested; where the encoder stays, vectors are copied. A product whose
vectors are there already is left alone, so a killed run is gone on with by the next.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from embedkit.config import FetchSettings, IngestSettings
from embedkit.errors import BadInput, FetchFailed, FetchTimeout
from embedkit.ingest.channel import Stop
from embedkit.ingest.committer import retry
from embedkit.ingest.encode import make_vectors, sharing
from embedkit.ingest.fetch import FetchedImage, Fetcher, is_remote
from embedkit.ingest.items import failure_of, known_hash
from embedkit.ingest.report import Progress, ProgressCallback
from embedkit.ingest.target import Target, columns_of
from embedkit.metadata.rows import KnownProduct, ProductWrite, ViewRow
from embedkit.types import FailureStage, Record
from embedkit.urls import redact

if TYPE_CHECKING:
    from embedkit.types import ByteArray, VectorArray

__all__ = ["STAGE", "Filled", "Filling", "fill"]

STAGE: FailureStage = "reindex"  # of the failures
_PAGE = 512  # products per question to the store
_COPIED = 512  # products per write where vectors are copied
_UNKNOWN = ""  # in place of a hash: the vectors were imported, and nobody has seen what they were made of
_NAMED = 100  # failures that a run remembers
_TICK = 0.1  # seconds between two calls of the progress callback, at least
_AHEAD = 3  # batches whose pictures are on their way


@dataclass(frozen=True, slots=True)
class Filling:
    """What is filled: `encoded` views by an encoder (`target.encoders`), `copied` ones from the view that serves."""

    encoded: Sequence[ViewRow]
    copied: Mapping[str, ViewRow]  # slot of the new view: the view that its vectors come from

    @property
    def slots(self) -> set[str]:
        return {view.slot for view in self.encoded} | set(self.copied)


@dataclass(slots=True)
class Filled:
    """Products of a run, by what became of them. `changed`: whose picture is no longer the one that was ingested.

    `lost`: key and reason of the first that failed.
    """

    seen: int = 0
    encoded: int = 0
    copied: int = 0
    skipped: int = 0
    changed: int = 0
    failed: int = 0
    lost: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Job:
    """A product and what it lacks: `hashes` by slot, of what was or will be encoded."""

    product: KnownProduct
    slots: tuple[str, ...]
    read: Future[_Read] | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Read:
    content_hash: str
    prepared: Mapping[str, ByteArray]


def fill(
    target: Target,
    filling: Filling,
    *,
    settings: IngestSettings,
    fetch: FetchSettings,
    progress: ProgressCallback | None = None,
) -> Filled:
    """Make every vector that the new views lack.

    A product that an ingest or a delete changes between the look at it and the write comes again. Raises what store and
    backend raise after retries, and Moved if the versions have changed; what was written stays.
    """
    with ExitStack() as stack:
        return _Fill(target, filling, settings, fetch, progress, stack).run()


class _Fill:
    def __init__(
        self,
        target: Target,
        filling: Filling,
        settings: IngestSettings,
        fetch: FetchSettings,
        progress: ProgressCallback | None,
        stack: ExitStack,
    ) -> None:
        self._target, self._filling, self._progress = target, filling, progress
        self._views = {slot: view for slot, view in target.views.items() if slot in filling.slots}
        self._serving = {view.name: view for view in target.row.views}
        self._size = settings.batch_size if filling.encoded else _COPIED
        self._fetcher = stack.enter_context(closing(Fetcher(fetch)))
        self._decode = ThreadPoolExecutor(settings.decode_threads or os.cpu_count() or 1, "embedkit-decode")
        stack.callback(self._decode.shutdown, cancel_futures=True)
        self._total = target.store.count_products(target.row.id)
        self._counts = Filled()
        self._again: set[str] = set()
        self._note, self._told = "", 0.0

    def run(self) -> Filled:
        self._tell()
        self._pass(self._target.store.key_pages(self._target.row.id, batch=_PAGE))
        while self._again:
            keys, self._again = sorted(self._again), set()
            self._pass(iter([keys]))
        self._tell(force=True)
        return self._counts

    def _pass(self, pages: Iterator[list[str]]) -> None:
        """Batches are made and written in turn, while the pictures of the next ones are read."""
        waiting: deque[list[_Job]] = deque()
        for batch in self._batches(pages):
            for job in batch:
                self._start(job)
            waiting.append(batch)
            if len(waiting) > _AHEAD:
                self._do(waiting.popleft())
        while waiting:
            self._do(waiting.popleft())

    def _batches(self, pages: Iterator[list[str]]) -> Iterator[list[_Job]]:
        batch: list[_Job] = []
        for keys in pages:
            known = self._target.store.known(self._target.row.id, keys)
            for product in known.values():
                slots = self._lacking(product)
                if not slots:
                    self._counts.seen += 1
                    self._counts.skipped += 1
                    continue
                batch.append(_Job(product, slots))
                if len(batch) == self._size:
                    yield batch
                    batch = []
            self._tell()
        if batch:
            yield batch

    def _lacking(self, product: KnownProduct) -> tuple[str, ...]:
        """Slots whose vector is not there, or of something else than the product is now."""
        return tuple(slot for slot, view in self._views.items() if self._lacks(product, slot, view))

    def _lacks(self, product: KnownProduct, slot: str, view: ViewRow) -> bool:
        wanted = self._wanted(product, slot, view)
        there = product.vectors.get(slot)
        if wanted is None or there is None:
            return wanted is not None
        made = (there.state, there.fingerprint) == ("live", view.fingerprint)
        return not made or (wanted != _UNKNOWN and there.content_hash != wanted)

    def _wanted(self, product: KnownProduct, slot: str, view: ViewRow) -> str | None:
        """The hash of what the vector is to be made of; None if the product has nothing for this view."""
        origin = self._filling.copied.get(slot)
        if origin is None:
            known, serving = known_hash(product, view), self._serving.get(view.name)
            imported = known is None and serving is not None and serving.slot in product.vectors
            return _UNKNOWN if imported else known
        old = product.vectors.get(origin.slot)
        return old.content_hash if old and (old.state, old.fingerprint) == ("live", view.fingerprint) else None

    # -- reading -------------------------------------------------------------------------------

    def _start(self, job: _Job) -> None:
        """Ask for the picture, if the product's vectors are made of it."""
        pictured = [slot for slot in job.slots if self._is_picture(slot)]
        uri = job.product.uri
        if not job.product.title:
            untitled = {slot for slot in job.slots if slot not in self._filling.copied and slot not in pictured}
            job.slots = tuple(slot for slot in job.slots if slot not in untitled)
            job.error = "it has no title" if untitled else ""
        if not pictured:
            return
        if uri is None:
            job.error = "the store does not know where its picture is"
        elif is_remote(uri):
            arriving = self._fetcher.submit(uri)
            job.read = self._decode.submit(lambda: self._prepared(arriving.result(), pictured))
        else:
            job.read = self._decode.submit(lambda: self._prepared(self._fetcher.read_local(uri), pictured))

    def _is_picture(self, slot: str) -> bool:
        return slot not in self._filling.copied and self._views[slot].modality == "image"

    def _prepared(self, fetched: FetchedImage, slots: Sequence[str]) -> _Read:
        if fetched.data is None or fetched.content_hash is None:
            raise FetchFailed("the host sent no picture")
        data = fetched.data
        networks = {slot: self._target.encoders[slot].network for slot in slots}
        ready = {key: network.prepare(data) for key, network in {id(one): one for one in networks.values()}.items()}
        return _Read(fetched.content_hash, {slot: ready[id(network)] for slot, network in networks.items()})

    # -- making --------------------------------------------------------------------------------

    def _do(self, batch: list[_Job]) -> None:
        made: dict[str, tuple[list[_Job], VectorArray]] = {}
        read = {job.product.key: self._read(job) for job in batch}
        of = {
            slot: [job for job in batch if slot in job.slots and not (job.error and self._is_picture(slot))]
            for slot in self._views
        }
        for slot in self._filling.copied.keys() & of.keys():
            made[slot] = self._copied(slot, of.pop(slot))
        for slots, jobs in sharing(of, self._target.encoders, self._views):
            made |= self._encoded(slots, jobs, read)
        retry(lambda: self._write(batch, made), Stop(), self._set_note)
        self._tell()

    def _read(self, job: _Job) -> _Read | None:
        if job.read is None:
            return None
        try:
            return job.read.result()
        except (BadInput, FetchFailed, FetchTimeout) as error:
            job.error = str(error)
            return None

    def _copied(self, slot: str, jobs: Sequence[_Job]) -> tuple[list[_Job], VectorArray]:
        origin = self._filling.copied[slot]
        by_id = {job.product.vectors[origin.slot].id: job for job in jobs}
        fetched = self._target.backend.fetch(origin.physical, np.fromiter(by_id, np.int64, len(by_id)))
        found = [by_id[vector_id] for vector_id in fetched.ids.tolist()]
        for job in found:
            job.hashes[slot] = job.product.vectors[origin.slot].content_hash
        for job in jobs:
            if slot not in job.hashes:
                job.error = f"its vector is not in {origin.physical!r}; run: embedkit verify --repair"
        return found, fetched.vectors

    def _encoded(
        self, slots: Sequence[str], jobs: Sequence[_Job], read: Mapping[str, _Read | None]
    ) -> dict[str, tuple[list[_Job], VectorArray]]:
        """For slots whose encoders have one network."""
        inputs: list[ByteArray | str] = []
        for job in jobs:
            picture = read[job.product.key] if self._is_picture(slots[0]) else None
            inputs.append(picture.prepared[slots[0]] if picture else str(job.product.title))
            for slot in slots:
                job.hashes[slot] = picture.content_hash if picture else known_hash(job.product, self._views[slot]) or ""
        every = make_vectors({slot: self._target.encoders[slot] for slot in slots}, self._views, inputs)
        for slot, made in every.items():
            for place, reason in made.errors.items():
                del jobs[place].hashes[slot]
                jobs[place].error = reason
        return {slot: ([jobs[place] for place in made.places], made.vectors) for slot, made in every.items()}

    # -- writing -------------------------------------------------------------------------------

    def _write(self, batch: Sequence[_Job], made: Mapping[str, tuple[list[_Job], VectorArray]]) -> None:
        """As an ingest writes, but alone, and only what is still as it was when it was looked at."""
        target, cid = self._target, self._target.row.id
        with target.writing():
            now = target.store.known(cid, [job.product.key for job in batch])
            same = [job for job in batch if _alike(now.get(job.product.key), job.product)]
            good = {job.product.key: job for job in same if job.hashes}
            writes = [_write_of(job, self._views) for job in good.values()]
            issued = target.store.begin(cid, writes) if writes else []
            ids = {write.key: by_slot for write, by_slot in zip(writes, issued, strict=True)}
            for slot, (jobs, vectors) in made.items():
                rows = [(row, job) for row, job in enumerate(jobs) if job.product.key in good]
                if rows:
                    target.backend.upsert(
                        self._views[slot].physical,
                        np.array([ids[job.product.key][slot] for _, job in rows], np.int64),
                        vectors[[row for row, _ in rows]],
                        [_columns(job.product) for _, job in rows],
                    )
            failures = [failure_of(_record(job.product), STAGE, job.error) for job in same if job.error]
            target.store.commit_vectors(cid, writes, failures, stage=STAGE)
        kept = {job.product.key for job in same}
        self._again |= {job.product.key for job in batch if job.product.key in now} - kept
        self._counted(same)

    def _counted(self, jobs: Sequence[_Job]) -> None:
        counts, copying = self._counts, set(self._filling.copied)
        for job in jobs:
            counts.seen += 1
            counts.encoded += bool(job.hashes.keys() - copying)
            counts.copied += bool(job.hashes) and not job.hashes.keys() - copying
            counts.changed += any(
                self._is_picture(slot) and content_hash != job.product.content_hash
                for slot, content_hash in job.hashes.items()
            )
            counts.failed += bool(job.error)
            if job.error and len(counts.lost) < _NAMED:
                counts.lost.append((job.product.key, job.error))

    def _set_note(self, note: str) -> None:
        self._note = note

    def _tell(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if self._progress is None or (now - self._told < _TICK and not force):
            return
        self._told, counts = now, self._counts
        done = counts.encoded + counts.copied
        self._progress(Progress(self._total, counts.seen, done, counts.skipped, counts.failed, self._note))


def _alike(now: KnownProduct | None, then: KnownProduct) -> bool:
    """Whether a product is still what was looked at, apart from the vectors that are being made."""
    return now is not None and (now.title, now.uri, now.attributes, now.content_hash) == (
        then.title,
        then.uri,
        then.attributes,
        then.content_hash,
    )


def _columns(product: KnownProduct) -> Mapping[str, object]:
    return columns_of(product.key, product.title, product.attributes)


def _record(product: KnownProduct) -> Record:
    locator = redact(product.uri or product.key)
    return Record(product.key, locator, product.uri, product.title, product.attributes)


def _write_of(job: _Job, views: Mapping[str, ViewRow]) -> ProductWrite:
    product = job.product
    vectors = {slot: (content_hash, views[slot].fingerprint) for slot, content_hash in job.hashes.items()}
    return ProductWrite(product.key, product.title, product.uri, product.attributes, vectors=vectors)
