"""Hiding the password of a URL, before it reaches a message, a log or a table; and telling one place from another."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

__all__ = ["anchored", "place_of", "redact"]

_NEXT = r"(?!::[\w+.-]+://)"  # where the next URL of a chain begins
_LINK = re.compile(rf"([\w+.-]+)://([^/:]*){_NEXT}:((?:{_NEXT}.)*)", re.DOTALL)  # scheme, user, rest
_PORT = re.compile(r"\d*(?:[/?#]|$)")
_OPTION = re.compile(r"(?i)([?&](?:password|passwd|sslpassword|secret|token)=)[^&#:]*")


def redact(url: str) -> str:
    """Any URL without its password, even one that does not parse, or a chain of them.

    A password may hold an ``@`` or a ``/`` that should have been escaped: rather too much is hidden than too little.

    >>> redact("postgresql://me:secret@db/x")
    'postgresql://me:***@db/x'
    >>> redact("postgresql://me:se@cr/et@db/x")
    'postgresql://me:***@db/x'
    >>> redact("sftp://me@corp:secret@host/x")
    'sftp://me@corp:***@host/x'
    >>> redact("zip://a.csv::https://me:secret@host/shop.zip")
    'zip://a.csv::https://me:***@host/shop.zip'
    >>> redact("postgresql://db/x?user=me&password=secret")
    'postgresql://db/x?user=me&password=***'
    """
    return _OPTION.sub(r"\1***", _LINK.sub(_hidden, url))


def _hidden(link: re.Match[str]) -> str:
    scheme, user, rest = link.groups()
    end = max(re.split(r"[?#]", rest, maxsplit=1)[0].rfind("@"), rest.partition("/")[0].rfind("@"))
    if end < 0 or (scheme.lower() in ("http", "https") and _PORT.match(rest)):  # a picture's path may hold an @
        return link[0]
    return f"{scheme}://{user}:***{rest[end:]}"


def place_of(url: str) -> str:
    """One text for one place, whoever asks: without user and password, the host in lower case, a path made absolute.

    It is computed and never stored, so it may change.

    >>> place_of("faiss:///srv/../srv/x") == place_of(f"faiss:///{os.getcwd()}/srv/x")
    True
    >>> place_of("milvus://root:secret@DB:19530/shop")
    'milvus://db:19530/shop'
    """
    scheme, _, rest = redact(url).partition("://")
    where, mark, options = rest.partition("?")
    host, slash, path = where.partition("/")
    if not host and path:
        return f"{scheme.lower()}:///{os.path.realpath(unquote(path))}{mark}{options}"
    options = "&".join(one for one in options.split("&") if not one.endswith("=***"))
    there = f"{host.rpartition('@')[2].lower()}{slash if path else ''}{path}"
    return f"{scheme.lower()}://{there}{'?' if options else ''}{options}"


def anchored(url: str, folder: Path) -> str:
    """A backend's URL with its path in `folder`, unless the path is absolute or there is a host.

    >>> anchored("faiss:///x", Path("/srv/my shop")), anchored("faiss:////x", Path("/srv"))
    ('faiss:////srv/my%20shop/x', 'faiss:////x')
    """
    scheme, relative, path = url.partition(":///")
    if not relative or not path or path.startswith("/") or "/" in scheme or folder == Path():
        return url
    return f"{scheme}:///{quote(folder.as_posix())}/{path}"
