"""How vectors of each kind lie in Milvus, and what becomes of them on the way in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.backends.contract import Capabilities, CollectionSpec
from embedkit.codes import packed, signs
from embedkit.types import VectorKind

if TYPE_CHECKING:
    from embedkit.types import FloatArray, VectorArray

__all__ = ["LAYOUTS", "Layout", "layout_of"]


class Layout:
    """Floats as they are. `type`: pymilvus's name for it. `metrics`, `indexes`: Milvus's names, by ours."""

    kind: VectorKind = "float"
    field = "vector"
    type = "FLOAT_VECTOR"
    metrics: Mapping[str, str] = {"cosine": "COSINE", "ip": "IP", "l2": "L2"}
    indexes: Mapping[str, str] = {
        "flat": "FLAT",
        "hnsw": "HNSW",
        "hnsw + sq8": "HNSW_SQ",
        "hnsw + pq": "HNSW_PQ",
        "ivf": "IVF_FLAT",
        "ivf + sq8": "IVF_SQ8",
        "ivf + pq": "IVF_PQ",
        "ivf + pq4fs": "SCANN",
        "ivf + rabitq": "IVF_RABITQ",
        "diskann": "DISKANN",
        "cagra": "GPU_CAGRA",
    }

    def row_bytes(self, spec: CollectionSpec) -> int:
        """What a vector takes of a message."""
        return 4 * spec.dim

    def given(self, rows: VectorArray, spec: CollectionSpec) -> list[Any]:
        """Queries for a search."""
        del spec
        return list(rows)

    def put(self, field: Any, rows: VectorArray, spec: CollectionSpec) -> None:
        """Rows into a ``schema.VectorField`` of an upsert."""
        field.dim = spec.dim
        field.float_vector.data.extend(rows.ravel().tolist())

    def taken(self, values: Sequence[Any], spec: CollectionSpec) -> VectorArray:
        """Rows ``(n, spec.width)`` from an answer."""
        rows: VectorArray = np.array(values, np.float32).reshape(len(values), spec.dim)
        return rows

    def distances(self, native: FloatArray, spec: CollectionSpec) -> FloatArray:
        """The raw metric from what Milvus calls the distance."""
        del spec
        return native


class _Bits(Layout):
    """Packed bits, where Milvus has them."""

    kind: VectorKind = "binary"
    type = "BINARY_VECTOR"
    metrics: Mapping[str, str] = {"hamming": "HAMMING"}
    indexes: Mapping[str, str] = {"flat": "BIN_FLAT", "ivf": "BIN_IVF_FLAT"}

    def row_bytes(self, spec: CollectionSpec) -> int:
        return spec.width

    def given(self, rows: VectorArray, spec: CollectionSpec) -> list[Any]:
        del spec
        return [row.tobytes() for row in rows]

    def put(self, field: Any, rows: VectorArray, spec: CollectionSpec) -> None:
        field.dim = spec.dim
        field.binary_vector = rows.tobytes()

    def taken(self, values: Sequence[Any], spec: CollectionSpec) -> VectorArray:
        codes = b"".join(value if isinstance(value, bytes) else value[0] for value in values)
        return np.frombuffer(codes, np.uint8).reshape(len(values), spec.width)


class _Signs(Layout):
    """Bits as floats of 1 and -1, whose inner product is the number of bits minus twice the Hamming distance."""

    kind: VectorKind = "binary"
    field = "signs"
    metrics: Mapping[str, str] = {"hamming": "IP"}

    def given(self, rows: VectorArray, spec: CollectionSpec) -> list[Any]:
        return list(signs(rows.view(np.uint8), spec.dim))

    def put(self, field: Any, rows: VectorArray, spec: CollectionSpec) -> None:
        super().put(field, signs(rows.view(np.uint8), spec.dim), spec)

    def taken(self, values: Sequence[Any], spec: CollectionSpec) -> VectorArray:
        return packed(np.array(values, np.float32).reshape(len(values), spec.dim))

    def distances(self, native: FloatArray, spec: CollectionSpec) -> FloatArray:
        bits: FloatArray = np.rint((spec.dim - native) / 2)
        return bits


_FLOATS, _BITS, _SIGNS = Layout(), _Bits(), _Signs()
LAYOUTS = (_FLOATS, _BITS, _SIGNS)


def layout_of(kind: VectorKind, able: Capabilities) -> Layout:
    """The layout of a kind of vectors: what Milvus Lite lacks is emulated."""
    if kind == "float":
        return _FLOATS
    return _SIGNS if "binary" in able.emulated else _BITS
