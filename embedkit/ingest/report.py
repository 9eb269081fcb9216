"""What an ingest tells while it runs and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeAlias

from embedkit.metadata.rows import RunCounts

__all__ = ["IngestReport", "Progress", "ProgressCallback"]


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a run. `total`: records of the catalog, None while it is not known."""

    total: int | None
    seen: int
    encoded: int
    skipped: int
    failed: int
    note: str = ""


ProgressCallback: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class IngestReport:
    """How a run ended.

    `seen` records = `encoded` (at least one vector made) + `updated` (title, place or attributes
    changed, no vector made) + `skipped` (nothing changed) + `failed`. `duplicates`: products of this
    run whose picture another one of the collection has too, byte by byte; a key that comes again is a failure of the
    stage ``duplicate`` instead. `interrupted`: stopped by Ctrl-C;
    the next run goes on.
    """

    seen: int
    encoded: int
    updated: int
    skipped: int
    failed: int
    deleted: int
    duplicates: int
    seconds: float
    interrupted: bool = False
    dry_run: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def images_per_second(self) -> float:
        """Products encoded per second of the whole run."""
        return self.encoded / self.seconds if self.seconds > 0 else 0.0

    def after(self, before: Sequence[RunCounts]) -> IngestReport:
        """The report of the whole run, of which parts were done before versions of the collection changed."""
        return replace(
            self,
            seen=self.seen + sum(one.seen for one in before),
            encoded=self.encoded + sum(one.encoded for one in before),
            updated=self.updated + sum(one.updated for one in before),
            skipped=self.skipped + sum(one.skipped for one in before),
            failed=self.failed + sum(one.failed for one in before),
        )

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        values = asdict(self)
        values["seconds"] = round(self.seconds, 3)
        values["images_per_second"] = round(self.images_per_second, 2)
        values["warnings"] = list(self.warnings)
        return values
