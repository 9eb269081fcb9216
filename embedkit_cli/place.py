"""Where this command works, as its options say, for the commands that it tells its user to run next."""

from __future__ import annotations

import re
import shlex
from contextvars import ContextVar
from pathlib import Path

from embedkit.urls import redact

__all__ = ["given", "with_place"]

_COMMAND = re.compile(  # what takes these options, and is followed by an argument
    r"\bembedkit (?:advise|backup|cluster|config|copy|dedup|delete|failures|gc|get|import|index (?:build|show|tune)|"
    r"ingest|reindex|restore|search|status|verify)(?= \S)"
)
_PLACE: ContextVar[tuple[Path | None, str | None]] = ContextVar("_PLACE", default=(None, None))


def given(config: Path | None, backend: str | None) -> None:
    """Remember the options that this command was given; None for one that it was not."""
    _PLACE.set((config, backend))


def with_place(line: str) -> str:
    """A line with these options in every command that it names, so that the command finds the same collection.

    Of a backend's URL with a password in it, the option alone is told: ``--backend URL``.

    >>> given(None, "faiss:///srv")
    >>> with_place("see why with: embedkit failures -c shoes")
    'see why with: embedkit failures --backend faiss:///srv -c shoes'
    """
    config, backend = _PLACE.get()

    def placed(command: re.Match[str]) -> str:
        options = ["--config", shlex.quote(str(config))] if config is not None else []
        if backend is not None and " --backend " not in line[command.end() :]:
            options += ["--backend", shlex.quote(backend) if redact(backend) == backend else "URL"]
        return " ".join([command[0], *options])

    return _COMMAND.sub(placed, line)
