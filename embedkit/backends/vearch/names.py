"""Which space a collection's name stands for.

A collection is a space of its name. Once its index has been replaced it is a space ``name__i<8 hex digits>``, to which
an alias leads. Aliases belong to the whole cluster, and the document API looks for one before it looks for a space; so
ours carry the database: ``database__name``.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable

from embedkit.backends.vearch.client import VearchClient
from embedkit.errors import BackendUnavailable, ConfigError

__all__ = ["Names", "collection_of"]

_REBUILT = re.compile(r"(.+)__i[0-9a-f]{8}")
_TRIES = 3
_PAUSE = 0.2  # seconds


def collection_of(space: str) -> str:
    """The collection whose rows a space holds.

    >>> collection_of("shoes__i0123abcd"), collection_of("shoes")
    ('shoes', 'shoes')
    """
    match = _REBUILT.fullmatch(space)
    return match[1] if match else space


class Names:
    """Of the collections of one database."""

    def __init__(self, client: VearchClient) -> None:
        self._client = client

    def check(self, name: str) -> None:
        """Raises ConfigError for a name that Vearch does not take, or that means something here."""
        if name.startswith("_"):
            raise ConfigError(f"{name!r} cannot name a collection in Vearch, whose names start with a letter")
        if collection_of(name) != name:
            raise ConfigError(
                f"{name!r} cannot name a collection in Vearch: rebuilt ones end like this; choose another"
            )

    def alias(self, name: str) -> str:
        """What an alias, or a rebuilt collection, is called in Vearch."""
        return f"{self._client.db}__{name}"

    def rebuilt(self, name: str) -> str:
        """A space for a new index."""
        return f"{name}__i{secrets.token_hex(4)}"

    def resolved(self, name: str) -> tuple[str, str]:
        """The name for the document API, which follows the alias when it is asked, and the space now."""
        alias = self.alias(name)
        space = self._client.alias(alias)
        return (name, name) if space is None else (alias, space)

    def collections(self) -> tuple[str, ...]:
        return tuple(sorted({collection_of(space) for space in self._client.spaces()}))

    def spaces_of(self, name: str) -> list[str]:
        """Every space of a collection, also those that an interrupted `build_index` left."""
        return [space for space in self._client.spaces() if collection_of(space) == name]

    def aliases_to(self, spaces: Iterable[str]) -> list[str]:
        """Vearch's names of the aliases of some spaces."""
        spaces = set(spaces)
        return [alias for alias, space in self._client.aliases().items() if space in spaces]

    def point(self, alias: str, space: str) -> None:
        """Let an alias (by Vearch's name) lead to a space, and read it back: a server may say it did and have not."""
        for attempt in range(_TRIES):
            before = self._client.alias(alias)
            if before != space:
                self._client.put_alias(alias, space, new=before is None)
            now = self._client.alias(alias)
            if now == space:
                return
            time.sleep(_PAUSE * (attempt + 1))
        raise BackendUnavailable(
            f"Vearch at {self._client.url} says that the alias {alias!r} was switched to {space!r}, yet it leads to "
            f"{now!r}; look at the log of its master, then run the same command again"
        )
