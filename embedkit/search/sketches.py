"""Sketches as questions: whether an encoder has learned what they stand for."""

from __future__ import annotations

import logging

from embedkit.encoders.folder import read_manifest
from embedkit.encoders.load import folder_behind

__all__ = ["reads_sketches", "warn_unless_trained"]

_log = logging.getLogger(__name__)


def reads_sketches(encoder: str) -> bool:
    """Whether an encoder, a spec string or a model folder, was trained with sketches beside pictures."""
    folder = folder_behind(encoder)
    recipe = read_manifest(folder).training.get("recipe") if folder is not None else None
    return recipe is not None and recipe.get("sampler") == "domains"


def warn_unless_trained(encoder: str) -> None:
    """Log a warning where hits of a sketch may be poor."""
    if not reads_sketches(encoder):
        _log.warning(
            "The encoder %r was not trained for sketches, so the hits may be poor; train one as the recipe "
            "openmoji-sketch does, with sampler = 'domains'",
            encoder,
        )
