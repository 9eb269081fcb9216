"""Hiding the password of a URL, before it reaches a message, a log or a table."""

from __future__ import annotations

import re

__all__ = ["redact"]

_PASSWORD = re.compile(r"(?<=://)([^/:]*):[^/]*@")
_OPTION = re.compile(r"(?i)([?&](?:password|passwd|sslpassword|secret|token)=)[^&#:]*")


def redact(url: str) -> str:
    """Any URL without its password, even one that does not parse, or a chain of them.

    >>> redact("postgresql://me:secret@db/x")
    'postgresql://me:***@db/x'
    >>> redact("sftp://me@corp:secret@host/x")
    'sftp://me@corp:***@host/x'
    >>> redact("zip://a.csv::https://me:secret@host/shop.zip")
    'zip://a.csv::https://me:***@host/shop.zip'
    >>> redact("postgresql://db/x?user=me&password=secret")
    'postgresql://db/x?user=me&password=***'
    """
    return _OPTION.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))
