"""What a benchmark of indexes found, and where it is kept while it goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.errors import ConfigError, DiskFull, disk_is_full

__all__ = ["AnnPoint", "AnnReport", "AnnRow", "read_report", "read_truth", "write_report", "write_truth"]

if TYPE_CHECKING:
    from embedkit.types import IdArray

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class AnnPoint:
    """One setting. By k: the share of the k nearest that is found, and queries a second when all ask at once.

    `p50`, `p99`: milliseconds of a query that asks alone, for the k in the middle.
    """

    params: Mapping[str, int]
    recalls: Mapping[int, float]
    qps: Mapping[int, float]
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class AnnRow:
    """An index in a backend. `bytes`: of the index beside the vectors, None where the store does not tell.

    `refused`: why it was not built, '' if it was.
    """

    backend: str
    spec: str
    build_seconds: float = 0.0
    bytes: int | None = None
    points: Sequence[AnnPoint] = ()
    refused: str = ""

    def cheapest(self, recall: float, k: int) -> AnnPoint | None:
        """The point with the most queries a second of those that reach a recall at k."""
        reaching = [point for point in self.points if point.recalls[k] >= recall]
        return max(reaching, key=lambda point: point.qps[k], default=None)


@dataclass(frozen=True, slots=True)
class AnnReport:
    """`filled`: seconds in which each backend took the vectors. `recall`: the one that is wanted, at `k`."""

    name: str
    fingerprint: str
    vectors: int
    dim: int
    metric: str
    queries: int
    ks: Sequence[int]
    recall: float
    machine: str
    filled: Mapping[str, float]
    rows: Sequence[AnnRow]

    @property
    def k(self) -> int:
        """The k in the middle, by which settings are compared."""
        return sorted(self.ks)[len(self.ks) // 2]

    def row(self, backend: str, spec: str) -> AnnRow | None:
        """What was measured of an index in a backend."""
        return next((row for row in self.rows if (row.backend, row.spec) == (backend, spec)), None)

    def with_row(self, row: AnnRow) -> AnnReport:
        """With one more, in the place of the one that was there."""
        others = [one for one in self.rows if (one.backend, one.spec) != (row.backend, row.spec)]
        return replace(self, rows=(*others, row))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def write_report(path: Path, report: AnnReport) -> None:
    """Keep what is known so far. Raises ConfigError, DiskFull."""
    with _whole(path) as draft:
        draft.write_text(json.dumps({"format": _FORMAT, **report.as_dict()}, indent=1) + "\n", encoding="utf-8")


def write_truth(path: Path, truth: IdArray) -> None:
    """True neighbours. Raises ConfigError, DiskFull."""
    with _whole(path) as draft, draft.open("wb") as file:
        np.save(file, truth)


def read_truth(path: Path) -> IdArray | None:
    """What `write_truth` wrote, None where there is nothing, or no whole file."""
    try:
        return np.asarray(np.lib.format.open_memmap(path, mode="r"), np.int64)
    except (OSError, ValueError):
        return None


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A draft to write, which is the file in one step, so that a kill leaves the last whole one.

    Raises ConfigError, DiskFull.
    """
    draft = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        os.replace(draft, path)
    except OSError as error:
        if disk_is_full(error):
            raise DiskFull(
                f"The disk of {str(path)!r} is full; free some space and run the same again: what was measured is kept"
            ) from error
        raise ConfigError(f"The results {str(path)!r} cannot be written: {error.strerror or error}") from error


def read_report(path: Path) -> AnnReport | None:
    """What an earlier run kept, None if there is nothing. Raises ConfigError for what is no such file."""
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != _FORMAT:
            raise ValueError
        rows = [_row(row) for row in values.pop("rows")]
        return AnnReport(**{**values, "ks": tuple(values["ks"]), "rows": tuple(rows)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{str(path)!r} is no result of embedkit bench ann; move it away, or name another folder"
        ) from error


def _row(values: dict[str, Any]) -> AnnRow:
    points = [
        AnnPoint(**{**point, **{name: {int(k): v for k, v in point[name].items()} for name in ("recalls", "qps")}})
        for point in values.pop("points")
    ]
    return AnnRow(**{**values, "points": tuple(points)})
