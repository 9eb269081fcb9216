"""The oracle has no driver, so none of its errors need translating."""

from __future__ import annotations

from embedkit.errors import CollectionNotFound

__all__ = ["not_found"]


def not_found(name: str) -> CollectionNotFound:
    """The error for a collection that is not there."""
    return CollectionNotFound(f"The backend 'oracle' has no collection {name!r}; create it by ingesting into it")
