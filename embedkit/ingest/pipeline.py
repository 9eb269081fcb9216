"""The ingest: source, decode pool, encoder and commit, joined by bounded channels.

::

    reader thread ─▶ slots ─▶ this thread: batches ─▶ encode pool ─▶ batches ─▶ commit thread
      └ decode pool, fetcher                                                    └ store, backend

Whatever the order in which pictures arrive, batches are made and committed in the order of the
source, so the offset of a run says exactly what is in.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from itertools import islice
from typing import TypeVar

from embedkit.config import FetchSettings, IngestSettings
from embedkit.encoders.contract import Encoder
from embedkit.errors import CollectionNotFound, EmbedkitError
from embedkit.ingest.channel import Channel, Stop, Stopped
from embedkit.ingest.committer import Batch, Committer, Encoded, remove_vectors, retry
from embedkit.ingest.encode import Made, make_vectors, sharing
from embedkit.ingest.fetch import Fetcher
from embedkit.ingest.items import Failed, Item, record_of
from embedkit.ingest.prune import gone, prune
from embedkit.ingest.reader import CHUNK, Reader, Slot
from embedkit.ingest.report import IngestReport, Progress, ProgressCallback
from embedkit.ingest.same import same_pictures
from embedkit.ingest.sources.contract import RecordError, Source
from embedkit.ingest.target import Moved, Target
from embedkit.metadata.rows import RunCounts, RunRow, RunState, ViewRow
from embedkit.types import Record

__all__ = ["IngestOptions", "ingest", "retry_failed"]

T = TypeVar("T")
_log = logging.getLogger(__name__)
_TICK = 0.1  # seconds between two calls of the progress callback, at least
_NAMED = 5  # products that a dry run names of those that --prune would delete
_NOT_RETRIED = frozenset({"duplicate", "read"})


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """What the caller of an ingest may choose. `checksum`: read pictures whose file or host calls them unchanged."""

    limit: int | None = None
    dry_run: bool = False
    prune: bool = False
    checksum: bool = False
    progress: ProgressCallback | None = None


def ingest(
    target: Target, source: Source, *, settings: IngestSettings, fetch: FetchSettings, options: IngestOptions
) -> IngestReport:
    """Bring a collection in line with a source.

    An interrupted run of a source that has a fingerprint goes on where it stopped. Raises what the
    backend or store raises after retries, with everything committed so far kept; KeyboardInterrupt
    ends the run cleanly, with `interrupted` in the report.
    """
    with ExitStack() as held:
        run = None if options.dry_run else _open_run(target, source, held)
        return _ingest(target, source, run, settings=settings, fetch=fetch, options=options)


def _ingest(
    target: Target,
    source: Source,
    run: RunRow | None,
    *,
    settings: IngestSettings,
    fetch: FetchSettings,
    options: IngestOptions,
) -> IngestReport:
    start = run.offset if run else 0
    records = source.records(start)
    total = source.count()
    if options.limit is not None:
        records = _first(records, max(0, options.limit - start))
        total = min(options.limit, total) if total is not None else options.limit
    work = _Run(target, run, start, total, settings, fetch, options)
    report = work.execute(records)
    if report.seen == 0 and start == 0 and not report.interrupted:
        found = f"Nothing was found in {source.name!r}: {source.empty_hint}."
        report = replace(report, warnings=(*report.warnings, found))
    if not options.prune or report.interrupted:
        return report
    return _pruned(target, run, work, report, complete=options.limit is None)


def retry_failed(
    target: Target, *, settings: IngestSettings, fetch: FetchSettings, options: IngestOptions
) -> IngestReport:
    """Try every failed record again, from what the store kept of it."""
    records = [record_of(row.record) for row in target.store.failures(target.row.id) if row.stage not in _NOT_RETRIED]
    if options.limit is not None:
        records = records[: options.limit]
    run = None
    if not options.dry_run:
        with target.writing():
            remove_vectors(target)
        run = target.store.start_run(target.row.id, source="failures", source_fingerprint=None)
    return _Run(target, run, 0, len(records), settings, fetch, options).execute(iter(records))


def _open_run(target: Target, source: Source, held: ExitStack) -> RunRow:
    """The run to go on with, or a new one. `held` keeps it ours: another ingest of the source gets one of its own."""
    store, cid = target.store, target.row.id
    fingerprint = source.fingerprint()
    with target.writing():  # so that nobody takes a new run for one that was left behind before it is held
        remove_vectors(target)
        earlier = store.resumable_run(cid, fingerprint) if fingerprint else None
        if earlier is not None and held.enter_context(store.running(earlier.id)):
            again = store.resumable_run(cid, fingerprint or "")  # it may have gone on until it was let go of
            if again is not None:
                _log.info("Going on with run %d of %s at record %d", again.id, again.source, again.offset)
                store.reopen_run(again.id)
                return again
        run = store.start_run(cid, source=source.name, source_fingerprint=fingerprint)
        held.enter_context(store.running(run.id))
    return run


def _first(records: Iterator[Record | RecordError], limit: int) -> Iterator[Record | RecordError]:
    for index, record in enumerate(records):
        if index >= limit:
            return
        yield record


def _pruned(target: Target, run: RunRow | None, work: _Run, report: IngestReport, *, complete: bool) -> IngestReport:
    """Delete what the source no longer holds, unless something says that the source is not all there.

    A dry run counts it.
    """
    reason = ""
    if not complete:
        reason = "--limit left records out"
    elif unreadable := work.counts.unreadable:
        reason = f"{unreadable:,} of its rows could not be read, whose products may be among what seems to be gone"
    elif work.start + report.seen == 0:
        reason = "the catalog is empty, which looks like a mistake"
    if reason:
        return replace(report, warnings=(*report.warnings, f"Nothing was pruned: {reason}."))
    if run is not None:
        return replace(report, deleted=prune(target, run.id, begun=min(run.started_at, work.begun)))
    keys = gone(target, work.reader.keys)
    first = list(islice(keys, _NAMED))
    count = len(first) + sum(1 for _ in keys)
    if not count:
        return report
    named = f"{', '.join(map(repr, first))}{', …' if count > len(first) else ''}"
    return replace(
        report, deleted=count, warnings=(*report.warnings, f"{count:,} of the products would be deleted: {named}.")
    )


class _Run:
    """One pass over records: its threads, its counts, its end."""

    def __init__(
        self,
        target: Target,
        run: RunRow | None,
        start: int,
        total: int | None,
        settings: IngestSettings,
        fetch: FetchSettings,
        options: IngestOptions,
    ) -> None:
        self.target, self.run, self.start, self.total = target, run, start, total
        self.settings, self.fetch, self.options = settings, fetch, options
        self.stop = Stop()
        self.begun = datetime.now(timezone.utc)  # by this machine's clock; a run that goes on may have another one's
        self._note = ""
        self._told = 0.0
        self._dry = RunCounts()
        self._hashes: dict[str, str] = {}  # of the pictures of a dry run, by key
        self.committer: Committer
        self.reader: Reader

    def execute(self, records: Iterator[Record | RecordError]) -> IngestReport:
        begun = time.monotonic()
        self._tell(force=True)
        cores = os.cpu_count() or 1
        encoders = self.target.encoders.values()
        encode_threads = max((encoder.concurrency for encoder in encoders), default=1)
        batches: Channel[Batch] = Channel(encode_threads + 2, self.stop)
        window = max(4 * self.settings.batch_size, 2 * self.fetch.concurrency)
        slots: Channel[Slot] = Channel(window, self.stop)
        interrupted = False
        with ExitStack() as stack:
            fetcher = stack.enter_context(closing(Fetcher(self.fetch)))
            decode = stack.enter_context(_pool(self.settings.decode_threads or cores, "decode"))
            encode = stack.enter_context(_pool(encode_threads, "encode"))
            self.reader = Reader(
                self.target,
                run_id=self.run.id if self.run else None,
                pool=decode,
                fetcher=fetcher,
                slots=slots,
                stop=self.stop,
                max_attributes_bytes=min(
                    self.settings.max_attributes_bytes, self.target.backend.capabilities.max_columns_bytes
                ),
                checksum=self.options.checksum,
            )
            self.committer = self._committer()
            threads = [threading.Thread(target=self.reader.run, args=(records,), name="embedkit-reader", daemon=True)]
            if self.run:
                threads.append(
                    threading.Thread(target=self.committer.run, args=(batches,), name="embedkit-commit", daemon=True)
                )
            try:
                for thread in threads:
                    thread.start()
                self._batch(slots, batches, encode)
                self._join(threads)
            except Stopped:
                pass
            except KeyboardInterrupt:
                interrupted = True
            except BaseException as error:  # noqa: BLE001  raised again below, after the clean-up
                self.stop.set(error)
            self.stop.set()
            self._join(threads, tell=False)
            decode.shutdown(cancel_futures=True)
        if interrupted:
            _log.info("Stopped by the user; what was committed stays, and the next run goes on")
        return self._end(time.monotonic() - begun, interrupted)

    def _committer(self) -> Committer:
        return Committer(
            self.target,
            run_id=self.run.id if self.run else -1,
            unreadable=self.run.counts.unreadable if self.run else 0,
            finished=self.reader.finished,
            stop=self.stop,
            note=self._set_note,
        )

    def _set_note(self, note: str) -> None:
        self._note = note

    def _join(self, threads: Sequence[threading.Thread], *, tell: bool = True) -> None:
        for thread in threads:
            while thread.is_alive():
                thread.join(_TICK)
                if tell:
                    self._tell()

    def _batch(self, slots: Channel[Slot], batches: Channel[Batch], encode: ThreadPoolExecutor) -> None:
        """Gather outcomes in order into batches of `batch_size` encodings, or CHUNK records."""
        outcomes: list[Item | Failed] = []
        keys: list[str] = []
        offset, inputs = self.start, 0
        for slot in slots:
            outcome = self._await(slot.outcome)
            outcomes.append(outcome)
            offset += 1
            inputs += isinstance(outcome, Item) and bool(outcome.inputs)
            if slot.key is not None:
                keys.append(slot.key)
            if inputs >= self.settings.batch_size or len(outcomes) >= CHUNK:
                self._send(outcomes, keys, offset, batches, encode)
                outcomes, keys, inputs = [], [], 0
            self._tell()
        if outcomes:
            self._send(outcomes, keys, offset, batches, encode)
        if self.run:
            batches.end()

    def _await(self, outcome: Future[Item | Failed]) -> Item | Failed:
        while not outcome.done():
            if self.stop:
                raise Stopped
            wait([outcome], _TICK)  # `result` with a timeout raises errors that differ between Pythons
            self._tell()
        return outcome.result()

    def _send(
        self,
        outcomes: Sequence[Item | Failed],
        keys: Sequence[str],
        offset: int,
        batches: Channel[Batch],
        encode: ThreadPoolExecutor,
    ) -> None:
        items = [outcome for outcome in outcomes if isinstance(outcome, Item)]
        failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
        if self.run is None:
            for one in failed:
                where, why = one.failure.locator, one.failure.error
                _log.warning("%s", why if where in why else f"{where}: {why}")
            self._count_dry(items, failed)
            return
        encoders, views = self.target.encoders, self.target.views
        chosen = {slot: [item for item in items if slot in item.inputs] for slot in encoders}
        vectors = [
            encode.submit(_encode, {slot: encoders[slot] for slot in slots}, views, these)
            for slots, these in sharing(chosen, encoders, views)
        ]
        batches.put(Batch(_without_pixels(items), failed, vectors, keys, offset))

    def _count_dry(self, items: Sequence[Item], failed: Sequence[Failed]) -> None:
        encoded = sum(bool(item.inputs) for item in items)
        updated = sum(item.changed and not item.inputs for item in items)
        self._hashes.update((one.record.key, one.write.content_hash) for one in items if one.write.content_hash)
        old = self._dry
        self._dry = RunCounts(
            old.seen + len(items) + len(failed),
            old.encoded + encoded,
            old.updated + updated,
            old.skipped + len(items) - encoded - updated,
            old.failed + len(failed),
            unreadable=old.unreadable + sum(one.unreadable for one in failed),
        )

    @property
    def counts(self) -> RunCounts:
        return self.committer.counts if self.run and hasattr(self, "committer") else self._dry

    def _tell(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if self.options.progress is None or (now - self._told < _TICK and not force):
            return
        self._told = now
        counts = self.counts
        self.options.progress(
            Progress(self.total, self.start + counts.seen, counts.encoded, counts.skipped, counts.failed, self._note)
        )

    def _patiently(self, work: Callable[[], T]) -> T:
        """With retries, after the run has stopped."""
        return retry(work, Stop(), self._set_note)

    def _flush(self, counts: RunCounts) -> None:
        """What was written shall survive a power cut before the run counts as complete."""
        if counts.encoded or counts.updated:
            following = self.target.row.following
            for slot, view in self.target.views.items():
                with suppress(*([CollectionNotFound] if slot in following else [])):  # dropped by gc meanwhile
                    self._patiently(partial(self.target.backend.flush, view.physical))

    def _end(self, seconds: float, interrupted: bool) -> IngestReport:
        counts, error = self.counts, self.stop.error
        store, cid = self.target.store, self.target.row.id
        if self.run:
            state: RunState = "interrupted" if interrupted or error else "complete"
            try:
                if error is None:
                    self._flush(counts)
                store.finish_run(self.run.id, state, counts)
            except EmbedkitError as late:
                if error is None:
                    raise
                _log.warning("The end of the run could not be written: %s", late)
        if isinstance(error, Moved):
            error.counts = counts
        if error is not None:
            raise error
        self._tell(force=True)
        return IngestReport(
            seen=counts.seen,
            encoded=counts.encoded,
            updated=counts.updated,
            skipped=counts.skipped,
            failed=counts.failed,
            deleted=0,
            duplicates=store.duplicate_count(cid, run_id=self.run.id)
            if self.run
            else same_pictures(self.target, self._hashes),
            seconds=seconds,
            interrupted=interrupted,
            dry_run=self.run is None,
            warnings=self._warnings(interrupted),
        )

    def _warnings(self, interrupted: bool) -> tuple[str, ...]:
        found = []
        if self.start:
            found.append(f"Went on with an interrupted run at record {self.start}.")
        if self.reader.seen > self.reader.unreadable and not self.reader.pictures and self._sees:
            found.append("No record names a picture; if the catalog has a column of them, say: --map image=COLUMN.")
        if self.reader.cleaned:
            found.append(f"NaN or infinity became null in {self.reader.cleaned:,} of the records.")
        if self.run and not interrupted:
            found += self._counts_differ()
        return tuple(found)

    @property
    def _sees(self) -> bool:
        return any(view.modality == "image" for view in self.target.row.views)

    def _counts_differ(self) -> list[str]:
        target = self.target
        found = []
        for view in target.row.views:
            here, there = self._patiently(partial(_counted, target, view))
            if here != there:  # or somebody writes at this moment
                with target.store.writing(target.row.id):
                    here, there = self._patiently(partial(_counted, target, view))
            if here != there:
                found.append(
                    f"The view {view.name!r} has {here} vectors in the store and {there} in the backend; "
                    "run: embedkit verify --repair"
                )
        return found


def _counted(target: Target, view: ViewRow) -> tuple[int, int]:
    """The vectors of a view in the store, and in the backend."""
    return target.store.count_vectors(target.row.id, view.slot), target.backend.count(view.physical)


def _pool(threads: int, name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix=f"embedkit-{name}")


def _without_pixels(items: Sequence[Item]) -> list[Item]:
    """Only the names of the views that are encoded: the pixels live as long as the encode task."""
    return [replace(item, inputs=dict.fromkeys(item.inputs, "")) for item in items]


def _encode(
    encoders: Mapping[str, Encoder], views: Mapping[str, ViewRow], items: Sequence[Item]
) -> Mapping[str, Encoded]:
    """Vectors of a batch by slot, without the items that no vector can be made of."""
    first = next(iter(encoders))
    every = make_vectors(encoders, views, [item.inputs[first] for item in items])
    return {slot: _of_keys(made, [item.record for item in items]) for slot, made in every.items()}


def _of_keys(made: Made, records: Sequence[Record]) -> Encoded:
    return Encoded(
        made.vectors,
        [records[place].key for place in made.places],
        {records[place].key: f"{records[place].locator}: {reason}" for place, reason in made.errors.items()},
    )
