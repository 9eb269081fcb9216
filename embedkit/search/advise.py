"""How short codes may be, and how many candidates a second stage needs, measured on the vectors of a collection."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedkit.codes import hamming, packed
from embedkit.encoders.projections import directions
from embedkit.errors import BadInput, ConfigError
from embedkit.search.samples import sampled
from embedkit.search.truth import neighbours

if TYPE_CHECKING:
    from embedkit.backends.contract import VectorBackend
    from embedkit.metadata.rows import CollectionRow, ViewRow
    from embedkit.metadata.store import MetadataStore
    from embedkit.types import ByteArray, FloatArray, IdArray

__all__ = ["Advice", "CodeAdvice", "advise_codes"]

OVER_FETCH = (1, 2, 5, 10, 20, 50, 100)
_BITS = (32, 64, 128, 256, 512)
_LEAST = 200  # vectors of which something can be said
_FITTED = 10_000  # vectors that ITQ sees
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CodeAdvice:
    """What codes of one kind keep of the k nearest. `recalls`: the share of them among ``k * factor`` candidates.

    `view`: of the collection, or empty where ITQ would make the codes out of the floats. `candidates`: the fewest
    measured that reach the recall that was asked for, None if none do.
    """

    bits: int
    view: str
    recalls: Mapping[int, float]
    candidates: int | None


@dataclass(frozen=True, slots=True)
class Advice:
    """Codes for the floats of `view`, shortest first; measured by `queries` among `vectors` of the collection."""

    view: str
    encoder: str
    dim: int
    k: int
    recall: float
    vectors: int
    queries: int
    codes: Sequence[CodeAdvice]

    @property
    def chosen(self) -> CodeAdvice | None:
        """The shortest codes that reach the recall."""
        return next((one for one in self.codes if one.candidates is not None), None)

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        chosen = self.chosen
        return {**asdict(self), "chosen": asdict(chosen) if chosen else None}


def advise_codes(
    store: MetadataStore,
    backend: VectorBackend,
    row: CollectionRow,
    view: ViewRow,
    *,
    k: int,
    recall: float,
    sample: int,
    queries: int,
    seed: int = 0,
) -> Advice:
    """Measure codes in the place of the floats of a view, with the floats as the second stage.

    Of `sample` products by chance, `queries` ask for their k nearest others. Their exact neighbours are what the codes'
    candidates are held to; the floats then order these exactly, so nothing else is lost. The codes are ITQ of the
    floats (Gong & Lazebnik 2011), and those of the other views of the collection. Among more vectors than were
    measured the same recall takes more candidates. Raises BadInput.
    """
    if view.kind != "float":
        raise BadInput(f"The view {view.name!r} of {row.name!r} holds codes; name one that holds floats")
    coded = [other for other in row.views if other.kind == "binary" and other.modality == view.modality]
    vectors, *stored = sampled(store, backend, row, [view, *coded], sample, np.random.default_rng(seed))
    floats: FloatArray = vectors.astype(np.float32, copy=False)
    if len(floats) < max(_LEAST, k + 1):
        raise BadInput(
            f"{row.name!r} has {len(floats)} products with a vector in {' and '.join([view.name, *_names(coded)])}; "
            f"to advise takes {max(_LEAST, k + 1)} or more"
        )
    asked = np.random.default_rng(seed).permutation(len(floats))[:queries]
    near = neighbours(floats, asked, k, metric=view.metric)
    found = []
    for name, codes in zip(_names(coded), stored, strict=True):
        found.append(_measured(codes.view(np.uint8), asked, near, k, recall, view=name))
    centred = floats - floats.mean(axis=0)
    for bits in (bits for bits in _BITS if bits <= min(view.dim, len(floats) // 2)):
        try:
            axes = directions(centred[:_FITTED], bits, "itq", seed=seed)
        except ConfigError as error:  # alike pictures have no more directions than this
            _log.info("No codes of %d bits and more: %s", bits, error)
            break
        found.append(_measured(packed(centred @ axes.T), asked, near, k, recall))
    ordered = sorted(found, key=lambda one: (one.bits, not one.view))
    return Advice(view.name, view.encoder, view.dim, k, recall, len(floats), len(asked), ordered)


def _names(views: Sequence[ViewRow]) -> list[str]:
    return [view.name for view in views]


def _measured(
    codes: ByteArray, asked: IdArray, near: Sequence[IdArray], k: int, recall: float, *, view: str = ""
) -> CodeAdvice:
    """Where the k nearest rows stand among the codes; of those at one distance, the first come first."""
    places = np.empty((len(asked), k), np.int64)
    for query, row in enumerate(asked):
        bits = hamming(codes[row : row + 1], codes)[0].astype(np.int16)
        bits[row] = np.iinfo(np.int16).max
        order = np.argsort(bits, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        places[query] = np.sort(rank[near[query]])[:k]  # any of those at the k-th distance
    recalls = {factor: float((places < k * factor).mean()) for factor in OVER_FETCH if k * factor < len(codes)}
    enough = [k * factor for factor, share in recalls.items() if share >= recall]
    return CodeAdvice(8 * codes.shape[1], view, recalls, enough[0] if enough else None)
