"""The contract of a place: folders that list, files that open, and the address of each picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["Entry", "Place", "joined", "reason_of"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a folder.

    `mark` changes when the content does, None if nothing tells. `problem`: why it cannot be used.
    """

    name: str
    is_folder: bool
    mark: str | None
    problem: str = ""


class Place(ABC):
    """Paths have ``/`` between names. Every method raises OSError, whose text is fit for people.

    One thread uses a place at a time.
    """

    @abstractmethod
    def find(self, path: str) -> Entry | None:
        """What is there, None if nothing is."""

    @abstractmethod
    def entries(self, folder: str) -> list[Entry]:
        """What a folder holds, in any order."""

    @abstractmethod
    def open(self, path: str, *, seek: bool = False) -> BinaryIO:
        """The bytes of a file, read as they are needed. `seek`: the reader will jump about in it."""

    @abstractmethod
    def uri(self, path: str) -> str:
        """The address by which a Fetcher reads the file, whatever the working directory."""

    @abstractmethod
    def beside(self, path: str, reference: str) -> str:
        """The address of a picture that the table at `path` names. Raises ValueError if there can be none."""

    def identity(self, folder: str) -> Hashable:
        """The same for two paths that lead to one folder, None if that cannot be told."""
        del folder
        return None

    def close(self) -> None:  # noqa: B027  most places hold nothing open
        """Release files and connections."""


def joined(folder: str, name: str) -> str:
    """A path below a folder; the folder may be the root, ``''`` or ``/``.

    >>> joined("", "a"), joined("/", "a"), joined("x/y", "a")
    ('a', '/a', 'x/y/a')
    """
    if not folder or not name:
        return folder or name
    return f"{folder.rstrip('/')}/{name}"


def reason_of(error: BaseException) -> str:
    """What an error of the system says, in its own words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
