"""First stage: records from the source, compared with the store, their pictures read and decoded.

Each picture is read once: hashed, compared, and decoded only if it changed. One whose file or host says that it is
what it was is not read at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from embedkit.errors import BadImage, BadInput, BadRecord, FetchFailed, FetchTimeout
from embedkit.ingest.channel import Channel, Stop, Stopped
from embedkit.ingest.fetch import FetchedImage, Fetcher, is_remote
from embedkit.ingest.items import Failed, Item, Picture, checked_record, decide, failure_of, is_plain_text, known_hash
from embedkit.ingest.sources.contract import RecordError
from embedkit.ingest.target import Target
from embedkit.metadata.rows import KnownProduct, ViewRow
from embedkit.types import FailureStage, Record
from embedkit.urls import redact

if TYPE_CHECKING:
    from embedkit.types import ByteArray

__all__ = ["CHUNK", "Reader", "Slot"]

CHUNK = 256  # records per question to the store
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of a record in the order of the source; `outcome` arrives later."""

    key: str | None
    outcome: Future[Item | Failed]


class Reader:
    """Runs in a thread of its own; puts one Slot a record into `slots`, in the order of the source.

    `finished`: the keys whose records are committed, told by the last stage. A key that comes
    again is a failure of the stage ``duplicate``, whether the first one is still under way or not.
    `checksum`: read every picture, whatever its file or host says.
    """

    def __init__(
        self,
        target: Target,
        *,
        run_id: int | None,
        pool: Executor,
        fetcher: Fetcher,
        slots: Channel[Slot],
        stop: Stop,
        max_attributes_bytes: int,
        checksum: bool,
    ) -> None:
        self._target = target
        self._run_id = run_id
        self._pool = pool
        self._fetcher = fetcher
        self._slots = slots
        self._stop = stop
        self._limit = max_attributes_bytes
        self._checksum = checksum
        self._following = target.row.following
        self._views = {
            slot: view for slot, view in target.views.items() if slot in target.encoders or slot not in self._following
        }
        self._image_views = [view for view in self._views.values() if view.modality == "image"]
        self._in_flight: set[str] = set()
        self.finished: SimpleQueue[str] = SimpleQueue()
        self.pictures = 0  # records that name one
        self.cleaned = 0  # records in which NaN became null
        self.unreadable = 0  # rows that could not be read at all
        self.seen = 0
        self.keys: set[str] = set()  # of a dry run, which leaves no mark at the products that it saw

    def run(self, records: Iterator[Record | RecordError]) -> None:
        """Read to the end; an error stops the run."""
        try:
            while chunk := list(islice(records, CHUNK)):
                self._chunk(chunk)
            self._slots.end()
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001  handed to the thread that called ingest, which raises it
            self._stop.set(error)

    def _chunk(self, chunk: list[Record | RecordError]) -> None:
        self._forget_finished()
        known = self._known([entry.key for entry in chunk if isinstance(entry, Record) and entry.key])
        for entry in chunk:
            self.seen += 1
            if isinstance(entry, RecordError):
                self.unreadable += 1
                self._slots.put(_done(self._unreadable(entry)))
            else:
                self._slots.put(self._slot(entry, known.get(entry.key)))

    def _forget_finished(self) -> None:
        """Done before the store is asked, so that a key is either in flight or known with this run's id."""
        while True:
            try:
                self._in_flight.discard(self.finished.get_nowait())
            except Empty:
                return

    def _known(self, keys: list[str]) -> Mapping[str, KnownProduct]:
        """What the store knows of the keys; of a collection that a dry run only imagines, nothing."""
        if self._run_id is None and self._target.row.id < 0:
            return {}
        return self._target.store.known(self._target.row.id, [key for key in keys if is_plain_text(key)])

    def _unreadable(self, entry: RecordError) -> Failed:
        row = Record(entry.key or entry.locator, entry.locator)
        return Failed(failure_of(row, "read", entry.reason, whole=False), known=False, unreadable=True)

    def _slot(self, record: Record, known: KnownProduct | None) -> Slot:
        if self._run_id is None:
            self.keys.add(record.key)
        if record.key in self._in_flight or (known and self._run_id is not None and known.last_run == self._run_id):
            reason = (
                f"{record.locator}: the key {redact(record.key)!r} came before in this catalog; the first one is kept"
            )
            return _done(Failed(failure_of(record, "duplicate", reason, whole=False), False))
        try:
            record, cleaned = checked_record(record, self._limit)
        except BadRecord as error:
            return _done(Failed(failure_of(record, "read", error, whole=False), known is not None))
        self.cleaned += cleaned
        self.pictures += record.image is not None
        self._in_flight.add(record.key)
        return Slot(record.key, self._outcome(record, known))

    def _outcome(self, record: Record, known: KnownProduct | None) -> Future[Item | Failed]:
        if record.image is None or not self._image_views:
            return _done(decide(record, known, None, self._views, self._following)).outcome
        asks = known is not None and not self._checksum and self._unchanged(record, known, known.content_hash)
        validator = known.validator if known and asks else None
        if not is_remote(record.image):
            return self._pool.submit(self._read_local, record, known, validator)
        fetched = self._fetcher.submit(record.image, validator)
        return _then(fetched, self._pool, lambda future: self._read(record, known, future.result))

    def _read_local(self, record: Record, known: KnownProduct | None, validator: str | None) -> Item | Failed:
        return self._read(record, known, lambda: self._fetcher.read_local(str(record.image), validator))

    def _read(self, record: Record, known: KnownProduct | None, fetch: Callable[[], FetchedImage]) -> Item | Failed:
        stage: FailureStage = "fetch"
        try:
            fetched = fetch()
            stage = "decode"
            picture = self._picture(record, known, fetched)
            return decide(record, known, picture, self._views, self._following)
        except (BadInput, FetchFailed, FetchTimeout) as error:
            return Failed(failure_of(record, stage, error), known is not None)

    def _picture(self, record: Record, known: KnownProduct | None, fetched: FetchedImage) -> Picture:
        if fetched.data is None:
            return Picture(None, fetched.validator)
        prepared: dict[str, ByteArray] = {}
        ready: dict[int, ByteArray] = {}  # by network, which several views may share
        for view in self._image_views:
            if view.slot in self._following and known_hash(known, view) == fetched.content_hash:
                continue
            if not (known and _is_current(known, view, fetched.content_hash)):
                network = self._target.encoders[view.slot].network
                try:
                    if id(network) not in ready:
                        ready[id(network)] = network.prepare(fetched.data)
                    prepared[view.slot] = ready[id(network)]
                except BadImage as error:
                    raise BadImage(f"{redact(str(record.image))}: {error}") from error
        return Picture(fetched.content_hash, fetched.validator, prepared)

    def _unchanged(self, record: Record, known: KnownProduct, content_hash: str | None) -> bool:
        serving = (view for view in self._image_views if view.slot not in self._following)
        return known.uri == record.image and all(_is_current(known, view, content_hash) for view in serving)


def _is_current(known: KnownProduct, view: ViewRow, content_hash: str | None) -> bool:
    vector = known.vectors.get(view.slot)
    return vector is not None and (vector.state, vector.content_hash, vector.fingerprint) == (
        "live",
        content_hash,
        view.fingerprint,
    )


def _done(outcome: Item | Failed) -> Slot:
    future: Future[Item | Failed] = Future()
    future.set_result(outcome)
    return Slot(None, future)


def _then(
    first: Future[FetchedImage], pool: Executor, work: Callable[[Future[FetchedImage]], Item | Failed]
) -> Future[Item | Failed]:
    """A future of what `work` makes, in `pool`, of a first one once that is done."""
    result: Future[Item | Failed] = Future()

    def finish() -> None:
        try:
            result.set_result(work(first))
        except BaseException as error:  # noqa: BLE001  kept for the thread that asks for the result
            result.set_exception(error)

    def start(_: Future[FetchedImage]) -> None:
        try:
            pool.submit(finish)
        except RuntimeError as error:  # the run has stopped, and the pool with it
            result.set_exception(error)

    first.add_done_callback(start)
    return result
