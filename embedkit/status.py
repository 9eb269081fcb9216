"""What a collection holds, as the store counts it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from embedkit.types import Metric

if TYPE_CHECKING:
    from embedkit.metadata.rows import CollectionRow, RunRow
    from embedkit.metadata.store import MetadataStore

__all__ = ["Status", "status_of"]


@dataclass(frozen=True, slots=True)
class Status:
    """What a collection holds, by view: `vectors` live ones, `encoders` spec strings, `metrics`.

    `version` is the one that serves. `versions`: others, by what they are: ``building``, ``built``, ``kept``.
    """

    name: str
    backend: str
    products: int
    vectors: Mapping[str, int]
    encoders: Mapping[str, str]
    metrics: Mapping[str, Metric]
    failures: int
    duplicates: int
    last_run: RunRow | None
    version: int = 1
    versions: Mapping[int, str] = field(default_factory=dict)

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


def status_of(store: MetadataStore, row: CollectionRow) -> Status:
    """What a collection holds now, and how its last run ended."""
    return Status(
        name=row.name,
        backend=row.backend_url,
        products=store.count_products(row.id),
        vectors={view.name: store.count_vectors(row.id, view.slot) for view in row.views},
        encoders={view.name: view.encoder for view in row.views},
        metrics={view.name: view.metric for view in row.views},
        failures=store.failure_count(row.id),
        duplicates=store.duplicate_count(row.id),
        last_run=store.last_run(row.id),
        version=row.version,
        versions={other.version: other.state for other in row.others},
    )
