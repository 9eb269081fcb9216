"""How the folder of a collection comes and goes, each in one step: it is filled, or emptied, under a hidden name."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

__all__ = ["Mark", "laid_out", "mark_of", "removed", "sweep"]

Mark: TypeAlias = tuple[int, int]
_LEFT = 3_600.0  # seconds after which a draft, which takes milliseconds, is taken for a killed process's


def mark_of(path: Path) -> Mark | None:
    """Which file it is, None if there is none; as long as one is open, no other gets its mark."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


@contextmanager
def laid_out(folder: Path) -> Iterator[Path]:
    """A draft to be filled; at the end it gets its name, with which it exists."""
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.part")
    draft.mkdir(parents=True)
    try:
        yield draft
        os.replace(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def removed(folder: Path) -> None:
    """Remove a folder; from the first moment on it is not there."""
    grave = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.dropped")
    os.replace(folder, grave)
    shutil.rmtree(grave, ignore_errors=True)


def sweep(root: Path) -> None:
    """Remove what killed processes have left. Where nothing may be removed, it stays."""
    with contextlib.suppress(OSError):
        drafts = (draft for draft in root.glob(".*.part") if time.time() - draft.stat().st_mtime > _LEFT)
        for path in (*root.glob(".*.dropped"), *drafts):
            shutil.rmtree(path, ignore_errors=True)
