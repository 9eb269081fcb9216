"""What a training needs to go on: written beside its place and moved there whole, and never unpickled as code."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from embedkit.errors import DataCorrupt, DiskFull, disk_is_full

__all__ = ["CHECKPOINT", "Checkpoint", "read_checkpoint", "write_checkpoint"]

CHECKPOINT = "checkpoint.pt"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`step` batches were learned from in `seconds`; `objective`, `optimiser`, `average` are state dicts.

    `best`: the best figure of a validation so far and how many came since, where the recipe watches one; `chosen`:
    the weights that had it. `scaler`: of the gradients, with fp16. `centres`: class means ``(classes, dim)`` for the
    mining of hard classes, `mined`: as they were at the start of the epoch. `start`: the figures before training.
    `failures`: reasons by path. `processes`: how many share the batches. `prepared`: seconds before the first batch.
    `learned_from`: the fingerprint of the training split; empty in checkpoints of before.
    """

    step: int
    seconds: float
    objective: Mapping[str, Any]
    optimiser: Mapping[str, Any]
    average: Mapping[str, Any] | None = None
    scaler: Mapping[str, Any] | None = None
    best: tuple[float, int] | None = None
    chosen: Mapping[str, Any] | None = None
    centres: torch.Tensor | None = None
    mined: torch.Tensor | None = None
    start: Mapping[str, float] | None = None
    failures: Mapping[str, str] | None = None
    processes: int = 1
    prepared: float = 0.0
    learned_from: str = ""


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint; a crash leaves the old one. Raises DiskFull."""
    path, draft = folder / CHECKPOINT, folder / f".{CHECKPOINT}"
    values = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    try:
        with open(draft, "wb") as file:
            torch.save({"format": _FORMAT, **values}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except (OSError, RuntimeError) as error:
        draft.unlink(missing_ok=True)
        if disk_is_full(error):
            raise DiskFull(
                f"The disk of {str(folder)!r} is full; free some space and go on from the checkpoint before: --resume"
            ) from error
        raise


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """None where there is none. Raises DataCorrupt, also for a pickle that holds more than tensors and numbers."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        if values.pop("format") != _FORMAT:
            raise ValueError("it is of another version of embedkit")
        return Checkpoint(**values)
    except (
        pickle.UnpicklingError,
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
    ) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataCorrupt(
            f"{path}: this is no checkpoint that embedkit wrote, and nothing in it is run ({reason[:160]}); "
            "remove the folder and train again"
        ) from error
