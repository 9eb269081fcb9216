"""How vectors of each kind lie in Vearch, and what becomes of them on the way in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.backends.contract import CollectionSpec
from embedkit.codes import packed, signs
from embedkit.types import VectorKind

if TYPE_CHECKING:
    from embedkit.types import FloatArray, VectorArray

__all__ = ["LAYOUTS", "Layout", "layout_of"]


class Layout:
    """Floats as they are. The name of the field is the mark of the layout.

    `metrics`: Vearch's names, by ours; `indexes`: index types, by our shapes.
    """

    kind: VectorKind = "float"
    field = "vector"
    metrics: Mapping[str, str] = {"cosine": "InnerProduct", "ip": "InnerProduct", "l2": "L2"}
    indexes: Mapping[str, str] = {
        "flat": "FLAT",
        "hnsw": "HNSW",
        "ivf": "IVFFLAT",
        "ivf + pq": "IVFPQ",
        "ivf + rabitq": "IVFRABITQ",
    }

    def numbers(self, rows: VectorArray, spec: CollectionSpec) -> VectorArray:
        """Rows as Vearch takes them: ``(n, dim)`` float32, or ``(n, dim / 8)`` uint8."""
        del spec
        return rows

    def written(self, rows: VectorArray, spec: CollectionSpec) -> list[str]:
        """Rows as JSON. Nine digits tell a float32 from every other, and a zero keeps its sign."""
        numbers = self.numbers(rows, spec)
        digits = "%.8e" if np.signbit(numbers[numbers == 0]).any() else "%.9g"
        form = f"[{','.join([digits] * numbers.shape[1])}]"
        return [form % tuple(row) for row in numbers.tolist()]

    def taken(self, values: list[Any], spec: CollectionSpec) -> VectorArray:
        """Rows ``(n, spec.width)`` from an answer."""
        rows: VectorArray = np.array(values, np.float32).reshape(len(values), spec.dim)
        return rows

    def distances(self, native: FloatArray, spec: CollectionSpec) -> FloatArray:
        """The raw metric from what Vearch calls the score."""
        del spec
        return native

    def own_score(self, row: VectorArray, spec: CollectionSpec) -> float:
        """What a row scores for itself, in Vearch's terms."""
        return 0.0 if spec.metric == "l2" else float(row @ row)


class _Signs(Layout):
    """Bits as floats of 1 and -1, whose inner product is the number of bits minus twice the Hamming distance."""

    kind: VectorKind = "binary"
    field = "signs"
    metrics: Mapping[str, str] = {"hamming": "InnerProduct"}
    indexes: Mapping[str, str] = {"flat": "FLAT", "hnsw": "HNSW"}

    def numbers(self, rows: VectorArray, spec: CollectionSpec) -> VectorArray:
        return signs(rows.view(np.uint8), spec.dim)

    def taken(self, values: list[Any], spec: CollectionSpec) -> VectorArray:
        return packed(np.array(values, np.float32).reshape(len(values), spec.dim))

    def distances(self, native: FloatArray, spec: CollectionSpec) -> FloatArray:
        bits: FloatArray = np.rint((spec.dim - native) / 2)
        return bits

    def own_score(self, row: VectorArray, spec: CollectionSpec) -> float:
        del row
        return float(spec.dim)


class _Codes(Layout):
    """Packed bits in BINARYIVF, which measures in bits."""

    kind: VectorKind = "binary"
    field = "codes"
    metrics: Mapping[str, str] = {"hamming": "L2"}  # sorts the shortest distance first
    indexes: Mapping[str, str] = {"ivf": "BINARYIVF"}

    def taken(self, values: list[Any], spec: CollectionSpec) -> VectorArray:
        return np.array(values, np.uint8).reshape(len(values), spec.width)

    def own_score(self, row: VectorArray, spec: CollectionSpec) -> float:
        del row, spec
        return 0.0


_FLOATS, _SIGNS, _CODES = Layout(), _Signs(), _Codes()
LAYOUTS = (_FLOATS, _SIGNS, _CODES)


def layout_of(spec: CollectionSpec) -> Layout:
    """The layout of a collection, which its kind and its index decide."""
    return next(one for one in LAYOUTS if one.kind == spec.kind and spec.index.shape in one.indexes)
