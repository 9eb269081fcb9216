"""Where converted models are kept: ``~/.cache/embedkit``, or the setting ``cache_dir``."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["model_cache"]


def model_cache(given: Path | None = None) -> Path:
    """The folder; ``XDG_CACHE_HOME`` is honoured. It is made when something is written."""
    if given is not None:
        return given
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "embedkit"
