"""The checks that every backend makes on what it is handed, and of whether it is open, written once."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from embedkit.backends.contract import Capabilities, CollectionSpec, IndexSpec
from embedkit.backends.indexes import nearest_shapes
from embedkit.errors import BackendUnavailable, BadInput, ConfigError, DimensionMismatch, UnsupportedByBackend
from embedkit.filters import And, Compare, Filter, In, Like, Not, Or
from embedkit.types import Attributes, Metric, VectorKind

if TYPE_CHECKING:
    from embedkit.types import ByteArray, FloatArray, IdArray, VectorArray

__all__ = [
    "check_filter",
    "checked_columns",
    "checked_ids",
    "checked_k",
    "checked_queries",
    "checked_rows",
    "checked_spec",
    "closed",
    "unusable_rows",
]

_UNIT = 1e-6  # how far from 1 the length of a unit vector may be
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
# Made once: json.dumps with arguments makes one for every row.
_encoded = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def closed(url: str) -> BackendUnavailable:
    """The error for a call on a connection that was closed."""
    return BackendUnavailable(f"The connection to {url} is closed; open the backend again")


def checked_spec(spec: CollectionSpec, able: Capabilities) -> CollectionSpec:
    """Raise if the backend cannot hold such a collection; return it otherwise."""
    if not _NAME.fullmatch(spec.name):
        raise ConfigError(f"{spec.name!r} is no collection name; use letters, digits and _, at most 200")
    if spec.kind not in able.vector_kinds:
        raise UnsupportedByBackend(able.name, f"hold {spec.kind} vectors")
    if spec.metric not in able.metrics:
        raise UnsupportedByBackend(able.name, f"measure by {spec.metric!r} (it has {', '.join(able.metrics)})")
    if (spec.kind == "binary") != (spec.metric == "hamming"):
        wanted = "'hamming'" if spec.kind == "binary" else "'cosine', 'ip' or 'l2'"
        raise ConfigError(f"{spec.kind} vectors cannot be measured by {spec.metric!r}; choose the metric {wanted}")
    _check_index(spec.index, spec.kind, able)
    if not 1 <= spec.dim <= able.max_dim:
        raise ConfigError(f"{spec.dim} dimensions are outside 1 to {able.max_dim}, the range of {able.name!r}")
    if spec.kind == "binary" and spec.dim % 8:
        raise ConfigError(f"A code of {spec.dim} bits does not fill its bytes; choose a multiple of 8")
    return replace(spec)


def _check_index(index: IndexSpec, kind: VectorKind, able: Capabilities) -> None:
    """Raise UnsupportedByBackend, with the nearest there is, for an index that the backend does not build."""
    families = able.families(kind)
    if index.shape not in families:
        near = nearest_shapes(index.shape, families)
        nearest = f"the nearest it has is {' or '.join(map(repr, near))}; all: " if near else "it has "
        raise UnsupportedByBackend(
            able.name, f"build the index {index.shape!r} over {kind} vectors ({nearest}{', '.join(families)})"
        )
    if index.refine and index.codes is None:
        raise ConfigError(f"The index {str(index)!r} keeps the vectors themselves, so there is nothing to refine")
    if index.refine and index.refine not in able.refines:
        has = f"it has {' and '.join(f'refine({by})' for by in able.refines)}" if able.refines else "leave refine out"
        if able.rescores:
            has += (
                ", for the vectors themselves put hits in order; they are kept anyway, and a copy would save no memory"
            )
        raise UnsupportedByBackend(able.name, f"refine by {index.refine!r} ({has})")


def checked_ids(ids: IdArray) -> IdArray:
    """Ids as a contiguous int64 vector. Raises BadInput."""
    array = np.ascontiguousarray(ids)
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise BadInput(f"ids must be a one-dimensional integer array, not {array.dtype} of shape {array.shape}")
    if array.min() < 0:
        raise BadInput(f"the id {array.min()} is negative; ids are 0 or more, and -1 stands for no row")
    return array.astype(np.int64, copy=False)


def _checked_codes(spec: CollectionSpec, codes: VectorArray, what: str) -> ByteArray:
    array = np.atleast_2d(np.asarray(codes))
    if array.dtype != np.uint8:
        raise BadInput(
            f"{what} of {array.dtype} do not fit the collection {spec.name!r}, which holds codes of {spec.dim} bits; "
            f"give {spec.width} bytes of uint8, from the encoder that filled it"
        )
    if array.ndim != 2 or array.shape[1] != spec.width:
        raise DimensionMismatch(
            f"{what} of {array.shape[-1]} bytes do not fit the collection {spec.name!r}, "
            f"which holds {spec.dim} bits in {spec.width} bytes; encode with the encoder that filled it"
        )
    return np.ascontiguousarray(array)


def _checked_vectors(spec: CollectionSpec, vectors: VectorArray, what: str) -> VectorArray:
    if spec.kind == "binary":
        return _checked_codes(spec, vectors, what)
    array = np.atleast_2d(np.asarray(vectors))
    if array.dtype == np.uint8:
        raise BadInput(
            f"{what} of uint8 are binary codes and do not fit the collection {spec.name!r}, which holds "
            f"{spec.dim} floats; encode with the encoder that filled it"
        )
    if array.ndim != 2 or array.shape[1] != spec.dim:
        raise DimensionMismatch(
            f"{what} of {array.shape[-1]} dimensions do not fit the collection {spec.name!r}, "
            f"which holds {spec.dim}; encode with the encoder that filled it"
        )
    array = np.ascontiguousarray(array, dtype=np.float32)
    norms = np.sqrt(np.einsum("nd,nd->n", array, array))
    if spec.metric == "cosine" and np.abs(norms - 1.0).max() <= _UNIT:
        return array  # and finite, or its length would not be 1
    for row, reason in unusable_rows(array, spec.metric).items():
        raise BadInput(f"{what}: row {row} {reason}")
    if spec.metric != "cosine":
        return array
    unit: FloatArray = array / norms[:, None]
    return unit


def unusable_rows(vectors: VectorArray, metric: Metric) -> dict[int, str]:
    """What is wrong with rows of ``(n, dim)`` floats that `metric` cannot measure; codes are always right."""
    if vectors.dtype == np.uint8:
        return {}
    array = np.asarray(vectors, np.float32)
    norms = np.sqrt(np.einsum("nd,nd->n", array, array))
    finite = np.isfinite(norms)
    if not finite.all():
        finite = np.isfinite(array).all(axis=1)
    found = dict.fromkeys(np.flatnonzero(~finite).tolist(), "holds NaN or infinity")
    if metric == "cosine":
        found |= dict.fromkeys(np.flatnonzero(norms == 0).tolist(), "is all zero, which has no cosine")
        far = dict.fromkeys(
            np.flatnonzero(finite & np.isinf(norms)).tolist(), "is too long to have a cosine in float32"
        )
        found |= far
    return found


def checked_rows(spec: CollectionSpec, ids: IdArray, vectors: VectorArray) -> tuple[IdArray, VectorArray]:
    """Rows to be written: matching lengths, unique ids, right kind and dimension, finite, unit length for cosine."""
    ids = checked_ids(ids)
    if ids.size == 0:
        return ids, np.empty((0, spec.width), spec.dtype)
    rows = _checked_vectors(spec, vectors, "vectors")
    if len(ids) != len(rows):
        raise BadInput(f"{len(ids)} ids came with {len(rows)} vectors")
    if len(np.unique(ids)) != len(ids):
        raise BadInput("an id occurs twice in one call")
    return ids, rows


def checked_queries(spec: CollectionSpec, queries: VectorArray) -> VectorArray:
    """Queries as ``(n, dim)`` float32, unit length for cosine, or as ``(n, dim / 8)`` uint8."""
    return _checked_vectors(spec, queries, "query vectors")


def checked_columns(columns: Sequence[Attributes] | None, n: int, able: Capabilities) -> list[str]:
    """The columns as JSON texts, one a row. Raises BadInput on a wrong count, NaN or too large an object."""
    if columns is None:
        return ["{}"] * n
    if len(columns) != n:
        raise BadInput(f"{n} ids came with {len(columns)} rows of columns")
    try:
        texts = list(map(_encoded, columns))
    except (TypeError, ValueError) as error:
        raise BadInput(f"columns must be JSON objects without NaN: {error}") from error
    for row, text in enumerate(texts):
        if len(text) * 4 > able.max_columns_bytes and len(text.encode()) > able.max_columns_bytes:
            raise BadInput(
                f"the columns of row {row} take {len(text.encode())} bytes; "
                f"{able.name!r} holds at most {able.max_columns_bytes}"
            )
    return texts


def checked_k(k: int, able: Capabilities) -> int:
    """A number of hits the backend can give. Raises BadInput."""
    if not 1 <= k <= able.max_k:
        raise BadInput(f"k={k} is outside 1 to {able.max_k}, the range of {able.name!r}")
    return k


def check_filter(node: Filter, able: Capabilities) -> None:
    """Raise UnsupportedByBackend for the first operator that the backend lacks."""
    for operator in _operators(node):
        if operator not in able.filter_operators:
            raise UnsupportedByBackend(able.name, f"filter with {operator!r}")


def _operators(node: Filter) -> set[str]:
    if isinstance(node, And | Or):
        own = {"and" if isinstance(node, And) else "or"}
        return own.union(*(_operators(part) for part in node.parts))
    if isinstance(node, Not):
        return {"not"} | _operators(node.part)
    own = {"nested"} if len(node.path) > 1 else set()
    if isinstance(node, Compare):
        return own | {node.op}
    return own | {"in" if isinstance(node, In) else "like" if isinstance(node, Like) else "is null"}
