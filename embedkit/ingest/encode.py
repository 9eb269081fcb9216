"""Encoding a batch so that one input cannot fail the others."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from embedkit.backends.validation import unusable_rows
from embedkit.encoders.contract import Encoder
from embedkit.errors import Terminal

if TYPE_CHECKING:
    from embedkit.metadata.rows import ViewRow
    from embedkit.types import ByteArray, VectorArray

__all__ = ["Made", "make_vectors", "sharing"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Made:
    """``vectors[i]`` is of the input ``places[i]``. `errors`: why another input has none, by its place."""

    vectors: VectorArray
    places: Sequence[int]
    errors: Mapping[int, str]


def sharing(
    chosen: Mapping[str, Sequence[T]], encoders: Mapping[str, Encoder], views: Mapping[str, ViewRow]
) -> list[tuple[tuple[str, ...], Sequence[T]]]:
    """Slots whose vectors one network makes of the same things, together with those; `chosen` has them by slot."""
    groups: dict[Hashable, tuple[tuple[str, ...], Sequence[T]]] = {}
    for slot, things in chosen.items():
        if things:
            name = (id(encoders[slot].network), views[slot].modality, tuple(map(id, things)))
            slots, _ = groups.get(name, ((), things))
            groups[name] = ((*slots, slot), things)
    return list(groups.values())


def make_vectors(
    encoders: Mapping[str, Encoder], views: Mapping[str, ViewRow], inputs: Sequence[ByteArray | str]
) -> dict[str, Made]:
    """For each slot the vectors of texts or of prepared pictures, by encoders of one network.

    Left out is what the network refuses, and what the metric of a slot's view cannot measure.
    """
    errors: dict[int, str] = {}
    try:
        rows, places = _rows(encoders, _stacked(inputs)), list(range(len(inputs)))
    except Terminal:
        _log.debug("a batch was refused; encoding its inputs one by one", exc_info=True)
        rows, places, errors = _one_by_one(encoders, inputs)
    return {slot: _usable(vectors, places, errors, encoders[slot], views[slot]) for slot, vectors in rows.items()}


def _rows(encoders: Mapping[str, Encoder], batch: ByteArray | list[str]) -> dict[str, VectorArray]:
    first, *others = encoders.values()
    if all(encoder is first for encoder in others):  # as in two versions of a view; not every encoder knows its numbers
        return dict.fromkeys(encoders, first.encode(batch))
    numbers = first.network.numbers(batch)
    return {slot: encoder.vectors_of(numbers) for slot, encoder in encoders.items()}


def _one_by_one(
    encoders: Mapping[str, Encoder], inputs: Sequence[ByteArray | str]
) -> tuple[dict[str, VectorArray], list[int], dict[int, str]]:
    found, places, errors = [], [], {}
    for place, one in enumerate(inputs):
        try:
            found.append(_rows(encoders, _stacked([one])))
            places.append(place)
        except Terminal as error:
            errors[place] = str(error)
    rows = {
        slot: np.concatenate([row[slot] for row in found]) if found else _no_rows(encoder)
        for slot, encoder in encoders.items()
    }
    return rows, places, errors


def _usable(
    vectors: VectorArray, places: Sequence[int], errors: Mapping[int, str], encoder: Encoder, view: ViewRow
) -> Made:
    bad = unusable_rows(vectors, view.metric)
    if not bad and not errors:
        return Made(vectors, places, {})
    every = dict(errors) | {
        places[row]: f"the vector that {encoder.spec.name!r} makes of it {reason}" for row, reason in bad.items()
    }
    good = [row for row, place in enumerate(places) if place not in every]
    return Made(vectors[good], [places[row] for row in good], every)


def _no_rows(encoder: Encoder) -> VectorArray:
    spec = encoder.spec
    return np.empty((0, spec.dim), np.float32) if spec.kind == "float" else np.empty((0, spec.dim // 8), np.uint8)


def _stacked(inputs: Sequence[ByteArray | str]) -> ByteArray | list[str]:
    texts = [one for one in inputs if isinstance(one, str)]
    return texts or np.stack([one for one in inputs if not isinstance(one, str)])
