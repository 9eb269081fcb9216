"""Hiding the password of a URL, before it reaches a message, a log or a table."""

from __future__ import annotations

__all__ = ["redact"]


def redact(url: str) -> str:
    """Any URL without its password, even one that does not parse.

    >>> redact("postgresql://me:secret@db/x")
    'postgresql://me:***@db/x'
    """
    scheme, separator, rest = url.partition("://")
    authority, slash, tail = rest.partition("/")
    credentials, at, host = authority.rpartition("@")
    if not at or ":" not in credentials:
        return url
    return f"{scheme}{separator}{credentials.partition(':')[0]}:***@{host}{slash}{tail}"
