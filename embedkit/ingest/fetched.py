"""What reading a picture gives, whatever it was read from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

__all__ = ["FetchedImage", "content_hash_of", "fetched", "too_large"]


@dataclass(frozen=True, slots=True)
class FetchedImage:
    """`data` None: it is what it was when `validator` was told.

    `validator`: an ETag, a date or the times of a file, to ask with next time; None where nothing tells.
    """

    data: bytes | None
    validator: str | None
    content_hash: str | None


def content_hash_of(data: bytes) -> str:
    """blake2b-128 in hex."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def fetched(data: bytes, validator: str | None = None) -> FetchedImage:
    """A picture whose bytes arrived."""
    return FetchedImage(data, validator, content_hash_of(data))


def too_large(name: str, size: int, limit: int) -> str:
    """Why a picture is not read."""
    return f"{name}: the file has {size:,} bytes or more; fetch.max_bytes allows {limit:,}"
