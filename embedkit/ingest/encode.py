"""Encoding a batch so that one input cannot fail the others."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedkit.backends.validation import unusable_rows
from embedkit.encoders.contract import Encoder
from embedkit.errors import Terminal

if TYPE_CHECKING:
    from embedkit.types import ByteArray, Metric, VectorArray

__all__ = ["Made", "make_vectors"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Made:
    """``vectors[i]`` is of the input ``places[i]``. `errors`: why another input has none, by its place."""

    vectors: VectorArray
    places: Sequence[int]
    errors: Mapping[int, str]


def make_vectors(encoder: Encoder, inputs: Sequence[ByteArray | str], metric: Metric) -> Made:
    """Vectors of texts or of prepared pictures, without what the encoder refuses and what `metric` cannot measure."""
    errors: dict[int, str] = {}
    try:
        vectors, places = encoder.encode(_stacked(inputs)), list(range(len(inputs)))
    except Terminal:
        _log.debug("a batch was refused; encoding its inputs one by one", exc_info=True)
        vectors, places, errors = _one_by_one(encoder, inputs)
    for row, reason in unusable_rows(vectors, metric).items():
        errors[places[row]] = f"the vector that {encoder.spec.name!r} makes of it {reason}"
    if not errors:
        return Made(vectors, places, errors)
    good = [row for row, place in enumerate(places) if place not in errors]
    return Made(vectors[good], [places[row] for row in good], errors)


def _one_by_one(encoder: Encoder, inputs: Sequence[ByteArray | str]) -> tuple[VectorArray, list[int], dict[int, str]]:
    vectors, places, errors = [], [], {}
    for place, one in enumerate(inputs):
        try:
            vectors.append(encoder.encode(_stacked([one]))[0])
            places.append(place)
        except Terminal as error:
            errors[place] = str(error)
    spec = encoder.spec
    none = np.empty((0, spec.dim), np.float32) if spec.kind == "float" else np.empty((0, spec.dim // 8), np.uint8)
    return np.stack(vectors) if vectors else none, places, errors


def _stacked(inputs: Sequence[ByteArray | str]) -> ByteArray | list[str]:
    texts = [one for one in inputs if isinstance(one, str)]
    return texts or np.stack([one for one in inputs if not isinstance(one, str)])
