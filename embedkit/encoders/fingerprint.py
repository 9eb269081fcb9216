"""The fingerprint: one hash over the weights and everything that is done around them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["fingerprint_of"]


def fingerprint_of(parts: Iterable[bytes | Path], recipe: Mapping[str, Any]) -> str:
    """blake2b-160 in hex over the bytes (or files) in order and the recipe as sorted JSON."""
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        else:
            digest.update(part)
        digest.update(b"\x00")
    digest.update(json.dumps(recipe, sort_keys=True, separators=(",", ":")).encode())
    return digest.hexdigest()
