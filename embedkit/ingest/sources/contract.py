"""The contract of a source: a catalog that can be read from any record on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from embedkit.types import Record

__all__ = ["RecordError", "Source"]


@dataclass(frozen=True, slots=True)
class RecordError:
    """A row that cannot be read. It takes its place in the order, so that offsets stay true."""

    key: str | None
    locator: str
    reason: str


class Source(ABC):
    """Yields records in one and the same order every time it is read unchanged.

    `name`: what the user typed, without a password. `empty_hint`: what to say when there is no record in it.
    """

    name: str
    empty_hint: str = "it has no rows"

    @abstractmethod
    def fingerprint(self) -> str | None:
        """Changes when the catalog changes, so that a run is resumed only in the same catalog.

        None if that cannot be told; then a run starts from the beginning, and skips what it finds unchanged.
        """

    @abstractmethod
    def count(self) -> int | None:
        """How many records there are, None if counting would cost a reading."""

    @abstractmethod
    def records(self, start: int = 0) -> Iterator[Record | RecordError]:
        """The records from the `start`-th on. Raises BadSource if the catalog as a whole fails."""

    def close(self) -> None:  # noqa: B027  most sources hold nothing open
        """Release files and connections."""
