"""The contract of a vector backend, and what it may declare about itself.

A backend is a connection to a place that holds *physical collections*: named sets of
``(id, vector, columns)`` rows. Ids are 64-bit integers of 0 or more that the metadata store
issues; a backend never makes up an id and never exposes a position.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from embedkit.backends.indexes import IndexSpec, SearchParams
from embedkit.filters import Filter
from embedkit.types import Attributes, Metric, VectorKind

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray, VectorArray

__all__ = [
    "ALL_OPERATORS",
    "BackendFactory",
    "BackendOptions",
    "Capabilities",
    "CollectionSpec",
    "Fetched",
    "IndexSpec",
    "IndexUse",
    "SearchParams",
    "SearchResult",
    "VectorBackend",
    "scores_of",
]

ALL_OPERATORS = frozenset({"==", "!=", "<", "<=", ">", ">=", "in", "like", "is null", "and", "or", "not", "nested"})


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do; the only place where it is written down.

    `emulated` maps a capability to the named strategy that stands in for it, so that a
    user can see it: ``{"update_columns": "fetch the vectors and upsert them again"}``.
    `index_families`: the shapes of indexes over floats (`IndexSpec.shape`), `binary_families` of those over codes.
    `optional_families`: of these, those that only some servers build (newer ones, ones with a GPU).
    `refines`: what may stand in ``refine(…)``. `rescores`: hits of an index whose codes lose something are always put
    in order by the vectors themselves, which costs nothing to keep. `ties_by_id`: a flat search of codes gives,
    of those at the distance of the k-th, the ones with the lowest ids; without it any of them.
    `build_copies`: while an index is built, the rows are copied, and what another process writes meanwhile may be lost,
    so writers have to wait.
    """

    name: str
    metrics: tuple[Metric, ...]
    vector_kinds: tuple[VectorKind, ...]
    index_families: tuple[str, ...]
    binary_families: tuple[str, ...] = ()
    optional_families: tuple[str, ...] = ()
    refines: tuple[str, ...] = ()
    rescores: bool = False
    ties_by_id: bool = False
    filter_operators: frozenset[str] = ALL_OPERATORS
    max_dim: int = 32_768
    max_k: int = 16_384
    max_columns_bytes: int = 65_536
    alias_switch: bool = False
    many_processes: bool = False
    build_copies: bool = False
    durable: bool = True
    emulated: Mapping[str, str] = field(default_factory=dict)

    def families(self, kind: VectorKind) -> tuple[str, ...]:
        """The index families for vectors of a kind."""
        return self.binary_families if kind == "binary" else self.index_families


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a physical collection holds. `name` matches ``[A-Za-z_][A-Za-z0-9_]{0,199}``.

    A ``cosine`` collection stores vectors scaled to unit length, and `fetch` gives those back.
    A ``binary`` one is measured by ``hamming``; its `dim` counts bits, a multiple of 8, packed into bytes, the
    most significant first.
    """

    name: str
    dim: int
    metric: Metric = "cosine"
    kind: VectorKind = "float"
    index: IndexSpec = field(default_factory=IndexSpec)

    @property
    def width(self) -> int:
        """Numbers in a stored row: floats, or bytes."""
        return self.dim // 8 if self.kind == "binary" else self.dim

    @property
    def dtype(self) -> Literal["float32", "uint8"]:
        """Of a stored row."""
        return "uint8" if self.kind == "binary" else "float32"


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Columnar answer for `n` queries: all arrays are ``(n, k')`` with ``k' <= k``, best first.

    `ids` int64, padded with -1 where a query found fewer; `distances` float32 raw metric
    (cosine similarity, inner product, *squared* Euclidean, bits); `scores` float32, higher is
    better (the similarity itself, or minus the distance). Both are NaN in the padding.
    Rows at the same distance in bits come in the order of their ids.
    """

    ids: IdArray
    distances: FloatArray
    scores: FloatArray


def scores_of(metric: Metric, distances: FloatArray) -> FloatArray:
    """Higher is better: the similarity itself, or minus the distance (of 0, no -0)."""
    return 0 - distances if metric in ("l2", "hamming") else distances


@dataclass(frozen=True, slots=True)
class Fetched:
    """The rows that exist, in the order asked for: ids ``(m,)``, vectors ``(m, spec.width)``, columns of length m."""

    ids: IdArray
    vectors: VectorArray
    columns: tuple[Attributes, ...]


@dataclass(frozen=True, slots=True)
class IndexUse:
    """Rows that a search could return, and how many of them the index covers; the others are scanned exactly.

    `bytes`: what the index takes in memory beside the vectors, None where the store does not tell.
    """

    rows: int
    covered: int
    bytes: int | None = None


class VectorBackend(ABC):
    """A connection to one vector store. Safe to use from several threads.

    Every method may raise BackendUnavailable (Transient). Driver errors never escape.
    A collection that is not there raises CollectionNotFound. `columns` are JSON objects;
    None stands for an empty object for every row.
    """

    capabilities: Capabilities
    url: str  # without a password

    @abstractmethod
    def create(self, spec: CollectionSpec) -> None:
        """Make an empty collection. Raises CollectionExists, UnsupportedByBackend."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Remove a collection and its files; one that is not there is no error."""

    @abstractmethod
    def list(self) -> tuple[str, ...]:
        """Names of the physical collections, sorted."""

    @abstractmethod
    def describe(self, name: str) -> CollectionSpec:
        """The spec as stored now, with the parameters of its index where the store tells them.

        What a backend remembers of a collection is renewed by it: another process may have built another index.
        """

    @abstractmethod
    def upsert(
        self, name: str, ids: IdArray, vectors: VectorArray, columns: Sequence[Attributes] | None = None
    ) -> None:
        """Write rows, replacing those with the same id (vector and columns). Idempotent.

        ids ``(n,)`` int64, unique in the call; vectors ``(n, dim)`` float32, finite, or ``(n, dim / 8)`` uint8.
        When it returns, a search sees the rows, and they survive a kill of this process.
        Raises DimensionMismatch, BadInput, DiskFull.
        """

    @abstractmethod
    def update_columns(self, name: str, ids: IdArray, columns: Sequence[Attributes]) -> None:
        """Replace the columns of existing rows, keeping their vectors. Ids that are not there are left out."""

    @abstractmethod
    def delete(self, name: str, ids: IdArray) -> None:
        """Remove rows; ids that are not there are no error. A later search does not return them."""

    @abstractmethod
    def search(
        self,
        name: str,
        queries: VectorArray,
        k: int,
        where: Filter | None = None,
        params: SearchParams | None = None,
    ) -> SearchResult:
        """The k nearest rows of each query, best first, among those that `where` admits.

        queries ``(n, dim)`` float32, or ``(n, dim / 8)`` uint8. Raises BadInput, DimensionMismatch.
        """

    @abstractmethod
    def fetch(self, name: str, ids: IdArray) -> Fetched:
        """Rows by id."""

    @abstractmethod
    def scan_ids(self, name: str, batch: int = 10_000) -> Iterator[IdArray]:
        """Every id once, in batches, in no promised order."""

    @abstractmethod
    def count(self, name: str) -> int:
        """Rows that a search could return."""

    @abstractmethod
    def flush(self, name: str) -> None:
        """Make everything written so far durable against a power cut."""

    @abstractmethod
    def build_index(self, name: str, spec: IndexSpec) -> None:
        """Build or replace the index; returns when searches use it. Raises UnsupportedByBackend, ConfigError."""

    def index_use(self, name: str) -> IndexUse:
        """How far the index has come."""
        rows = self.count(name)
        return IndexUse(rows, rows)

    @abstractmethod
    def switch_alias(self, alias: str, name: str) -> None:
        """Point `alias` at a collection in one step; every method takes an alias for a name.

        Raises UnsupportedByBackend where `capabilities.alias_switch` is false.
        """

    @abstractmethod
    def close(self) -> None:
        """Release files and connections. Twice is no error; any other call then raises BackendUnavailable."""


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """What a URL does not say. Secrets come from here (or the URL) and are never logged."""

    timeout: float = 30.0
    user: str | None = None
    password: str | None = None
    token: str | None = None
    tls: bool = False
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_server_name: str | None = None
    partitions: int = 1  # of a new collection, where the backend has them
    replicas: int = 1


class BackendFactory(Protocol):
    """The cheap half of a backend: capabilities and a way to open it, with no driver imported."""

    def capabilities(self, url: str) -> Capabilities:
        """What a backend at that URL can do, without connecting."""

    def open(self, url: str, options: BackendOptions) -> VectorBackend:
        """Connect. Raises BackendUnavailable, ConfigError, MissingExtra."""
