"""Value types that cross folders: frozen, typed, without behaviour of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

    FloatArray: TypeAlias = npt.NDArray[np.float32]
    IdArray: TypeAlias = npt.NDArray[np.int64]
    ByteArray: TypeAlias = npt.NDArray[np.uint8]
    VectorArray: TypeAlias = FloatArray | ByteArray

__all__ = [
    "STAGES",
    "Attributes",
    "FailureStage",
    "Hit",
    "Metric",
    "Modality",
    "Product",
    "Question",
    "Record",
    "VectorKind",
]

Attributes: TypeAlias = Mapping[str, Any]
"""A JSON object: str, int, float, bool, None, list and nested objects."""

Metric = Literal["cosine", "ip", "l2", "hamming"]
Modality = Literal["image", "text"]
VectorKind = Literal["float", "binary"]
FailureStage = Literal["read", "fetch", "decode", "encode", "duplicate", "reindex"]

STAGES: tuple[FailureStage, ...] = get_args(FailureStage)  # at which a record can fail


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a catalog, as a source yields it, before anything is fetched.

    `locator` is where a person finds it (a file path, or ``products.csv row 17``).
    `image` is a path or any fsspec URL, or None for a product without a picture.
    `key` takes at most 1,024 bytes of UTF-8.
    """

    key: str
    locator: str
    image: str | None = None
    title: str | None = None
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Product:
    """A product as the metadata store knows it."""

    key: str
    title: str | None
    uri: str | None
    attributes: Attributes
    content_hash: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What a search is asked by: one part, or several together, as the arguments of `Collection.search`."""

    image: str | Path | bytes | Image | None = None
    sketch: str | Path | bytes | Image | None = None
    text: str | None = None
    keywords: str | None = None
    vector: npt.ArrayLike | None = None
    product: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer of a search.

    `score`: higher is better, on every backend. `distance`: the raw metric of the
    backend (cosine similarity, inner product, squared Euclidean distance, or bits). Of several parts
    together, and of keywords, both are the score that the order goes by. `view`: which was asked, ``keywords`` where
    words were; `vector_id` is -1 where no vector was.
    """

    product: Product
    score: float
    distance: float
    vector_id: int
    view: str

    @property
    def key(self) -> str:
        return self.product.key
