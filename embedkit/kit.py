"""`connect` and `Kit`: where an application starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from embedkit import plugins
from embedkit.arguments import check_kind, check_texts
from embedkit.backends.url import parse_url
from embedkit.collection import Collection, check_name
from embedkit.config import Settings, load_settings
from embedkit.errors import BadInput
from embedkit.resources import Resources
from embedkit.urls import redact

if TYPE_CHECKING:
    from embedkit.backends.contract import Capabilities
    from embedkit.bench.ann import BenchProgress
    from embedkit.bench.report import AnnReport
    from embedkit.encoders.contract import EncoderSpec
    from embedkit.ingest.report import ProgressCallback
    from embedkit.living.backup import RestoreReport
    from embedkit.living.imports import ImportReport
    from embedkit.search.rules import IndexAdvice
    from embedkit.training.datasets.open import DataSetCheck
    from embedkit.training.datasets.registry import DataSetInfo
    from embedkit.types import Metric

__all__ = [
    "BackendInfo",
    "CollectionInfo",
    "EncoderInfo",
    "Kit",
    "advise_indexes",
    "check_dataset",
    "connect",
    "describe_encoder",
    "export_encoder",
    "list_backends",
    "list_datasets",
    "list_encoders",
]


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A line of `Kit.collections`. `views`: encoder by view."""

    name: str
    backend: str
    products: int
    views: dict[str, str]


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """A line of `list_backends`. `capabilities` is None while a package is missing."""

    name: str
    summary: str
    extra: str
    installed: bool
    capabilities: Capabilities | None


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """A line of `list_encoders`."""

    name: str
    summary: str
    extra: str
    installed: bool


class Kit:
    """A connection to one backend and one metadata store. A context manager; `close` is enough otherwise.

    Several threads may share one. A process that forks connects again in the child: there a kit that was opened
    before raises ConfigError.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._resources = Resources(settings)

    def __repr__(self) -> str:
        return f"Kit(backend={self._resources.backend_url!r}, store={redact(self.settings.store)!r})"

    def __reduce__(self) -> NoReturn:
        self._resources.__reduce__()

    def collection(self, name: str) -> Collection:
        """A collection by name, whether it exists yet or not. Raises ConfigError for a bad name."""
        return Collection(check_name(name), self._resources)

    def collections(self) -> tuple[CollectionInfo, ...]:
        """Every collection of this backend. Raises ConfigError for a file in the place of a backend's folder."""
        store = self._resources.store
        found = tuple(
            CollectionInfo(
                row.name, row.backend_url, store.count_products(row.id), {view.name: view.encoder for view in row.views}
            )
            for row in store.collections(self._resources.backend_url)
        )
        if not found:
            self._resources.check_folder()
        return found

    def restore(
        self,
        folder: str | Path,
        *,
        collection: str | None = None,
        index: str | None = None,
        progress: ProgressCallback | None = None,
    ) -> RestoreReport:
        """Make a collection of a backup: the same keys, titles, attributes and vectors.

        `collection`: its name, if not that of the one backed up. `index`: another one than it had. The checksums of the
        files are compared first, what was restored with the files afterwards. Killed, it goes on with the next call.

        Raises BackendUnavailable, BadInput, CollectionExists, DataCorrupt, DimensionMismatch, DiskFull,
        UnsupportedByBackend; a collection that is there is not touched.
        """
        from embedkit.living.backup import restore

        check_kind(folder, str | Path, "A backup is a folder")
        name = check_name(collection) if collection is not None else None
        return restore(self._resources, Path(folder), name=name, index=index, progress=progress)

    def import_vectors(
        self,
        source: str | Path,
        *,
        collection: str,
        keys: str | Path | None = None,
        map: Mapping[str, str] | None = None,
        vectors: str | None = None,
        from_collection: str | None = None,
        view: str = "image",
        encoder: str | None = None,
        metric: Metric | None = None,
        index: str = "flat",
        progress: ProgressCallback | None = None,
    ) -> ImportReport:
        """Make a collection of vectors that there are already; nothing is encoded.

        `source`: a Parquet file (`vectors`: its column, if it has several; the others are key, title, picture and
        attributes, by `map` as in an ingest), an npy file ``(n, dim)`` with `keys` (an npy of ids, a CSV or a Parquet
        table in the same order), a FAISS index (its ids are the keys, unless `keys` are given), a folder of
        clip-retrieval (``img_emb/``, ``metadata/``), or a Milvus URL with `from_collection`.

        `encoder`: the one that made them, and that will make those of questions; without one, vectors and products
        ask. `metric`: that of an index, else cosine, for which vectors are scaled to length 1. Killed, it goes on with
        the next call.

        Raises BadInput, BadRecord, BadSource, CollectionExists, DataCorrupt, DimensionMismatch, UnsupportedByBackend.
        """
        from embedkit.ingest.sources.mapping import ColumnMapping
        from embedkit.living.given import open_given
        from embedkit.living.imports import import_given

        name = check_name(collection)
        check_kind(source, str | Path, "What holds the vectors is a path or a URL")
        check_kind(keys, str | Path | None, "What holds the keys is a path")
        check_texts(map, 'map is a mapping such as {"key": "sku", "image": "photo"}')
        check_kind(view, str, "A view is a text such as 'image'")
        check_kind(encoder, str | None, "encoder is a text such as 'effnet-lite0'")
        check_kind(index, str, "index is a text such as 'hnsw(m=32)'")
        if not view.isidentifier():
            raise BadInput(f"{view!r} is no name for a view; use letters, digits and _")
        given = open_given(
            str(source),
            keys=str(keys) if keys is not None else None,
            mapping=ColumnMapping.from_dict(dict(map or {})),
            vectors=vectors,
            collection=from_collection,
            options=self._resources.backend_options,
        )
        return import_given(
            self._resources, name, given, view=view, encoder=encoder, metric=metric, index=index, progress=progress
        )

    def bench_ann(
        self,
        dataset: str | Path,
        *,
        out: str | Path | None = None,
        backends: Sequence[str] = (),
        specs: Sequence[str] = (),
        queries: str | Path | None = None,
        truth: str | Path | None = None,
        metric: Metric | None = None,
        size: int | None = None,
        most_queries: int = 1_000,
        ks: Sequence[int] = (1, 10, 100),
        recall: float = 0.95,
        progress: Callable[[BenchProgress], None] | None = None,
    ) -> AnnReport:
        """Measure indexes on a data set of nearest neighbours: recall, queries a second, build time, memory.

        `dataset`: an ann-benchmarks HDF5 file, a folder with base, queries and true neighbours as TEXMEX (.fvecs,
        .bvecs, .ivecs) or big-ann (.fbin, .u8bin, .ibin) lay it out, or a file of vectors; `queries` and `truth` name
        files of their own, and what nobody tells is held out and computed. `metric`: that of the HDF5 file, else l2.
        `size`: only so many of the first vectors. `backends`: URLs; FAISS in a folder of `out` if none. `specs`: one of
        every family if none. `out`, ``bench/NAME`` if unset, keeps every row as it comes: the same call goes on after a
        kill.

        Raises BackendUnavailable, BadInput, BadSource, ConfigError, DiskFull, MissingExtra.
        """
        from embedkit.bench.ann import bench_ann
        from embedkit.bench.sets import open_ann_set

        check_kind(dataset, str | Path, "A data set is a path")
        found = open_ann_set(
            Path(dataset),
            queries=Path(queries) if queries is not None else None,
            truth=Path(truth) if truth is not None else None,
            metric=metric,
            size=size,
            most_queries=most_queries,
        )
        folder = Path("bench") / found.name if out is None else Path(out)
        return bench_ann(
            found,
            folder,
            backends=backends or [f"faiss:///{(folder / 'faiss').resolve()}"],
            options=self._resources.backend_options,
            specs=specs,
            ks=ks,
            recall=recall,
            progress=progress,
        )

    def close(self) -> None:
        """Release files, connections and runtimes, for good; what is asked afterwards raises ConfigError."""
        self._resources.close()

    def __enter__(self) -> Kit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(config: str | Path | None = None, *, backend: str | None = None, home: str | Path | None = None) -> Kit:
    """Open a kit from a config file, ``EMBEDKIT_…`` variables and arguments.

    Without any, everything lies under ``./.embedkit``. Nothing is opened until it is needed; relative paths of backend
    and store stay those of the working directory of this call. Raises BadInput, ConfigError, UnknownName (no such
    backend).
    """
    check_kind(config, str | Path | None, "A config file is a path")
    check_kind(backend, str | None, "A backend is a URL such as 'faiss:///folder'")
    check_kind(home, str | Path | None, "home is a path")
    settings = load_settings(config, backend=backend, home=home)
    plugins.find("backends", parse_url(settings.backend).scheme)
    return Kit(settings)


def advise_indexes(
    n: int,
    dim: int,
    *,
    recall: float = 0.95,
    memory: int | str | None = None,
    latency: float | None = None,
    backend: str = "faiss:///",
) -> IndexAdvice:
    """Which indexes would do for `n` vectors of `dim` floats, by rule, the quickest that fits first.

    `memory`: bytes, or text such as ``2GB``. `latency`: milliseconds of a query. `backend`: the URL of the one that
    shall build it. `Collection.advise` measures instead. Raises BadInput, UnknownName.
    """
    from embedkit.backends.open import capabilities
    from embedkit.search.rules import by_rule, parse_bytes

    check_kind(n, Integral, "n is a whole number")
    check_kind(dim, Integral, "dim is a whole number")
    check_kind(recall, Real, "recall is a number")
    check_kind(latency, Real | None, "latency is a number of milliseconds")
    room = None if memory is None else parse_bytes(memory)
    return by_rule(n, dim, capabilities(backend), recall=recall, memory=room, latency=latency)


def list_backends() -> tuple[BackendInfo, ...]:
    """Every backend that can be named in a URL, with what it can do."""
    from embedkit.backends.open import capabilities

    found = []
    for name in plugins.names("backends"):
        plug_in = plugins.find("backends", name)
        able = capabilities(f"{name}:///local" if name != "oracle" else "oracle://memory")
        found.append(BackendInfo(name, plug_in.summary, plug_in.extra, installed=True, capabilities=able))
    return tuple(found)


def list_encoders() -> tuple[EncoderInfo, ...]:
    """Every family of encoders that a spec string can name."""
    from importlib.util import find_spec

    return tuple(
        EncoderInfo(name, plug_in.summary, plug_in.extra, not plug_in.extra or find_spec("torch") is not None)
        for name in plugins.names("encoders")
        for plug_in in (plugins.find("encoders", name),)
    )


def describe_encoder(spec: str) -> EncoderSpec:
    """What an encoder makes, by its spec string. Raises UnknownName, MissingExtra."""
    from embedkit.encoders.load import describe_encoder as describe

    return describe(spec)


def export_encoder(spec: str, out: str | Path, *, fit: str | Path | None = None, overwrite: bool = False) -> Path:
    """Write an encoder as a model folder that runs without torch; the folder's path.

    `fit`: a catalog whose pictures (a sample, the same one every time) the pooling or the bits are fitted to; for
    ``pooling=netvlad``, ``pooling=rmac`` with whitened regions, ``dim=``, and ``bits=`` with ``hash=``.
    Raises BadSource, ConfigError, MissingExtra, UnknownName.
    """
    from embedkit.encoders.export import export_encoder as export

    if fit is None:
        return export(spec, Path(out), overwrite=overwrite)
    from embedkit.ingest.sample import sample_pictures
    from embedkit.ingest.sources.open import open_source

    with closing(open_source(str(fit))) as source, closing(sample_pictures(source)) as pictures:
        return export(spec, Path(out), fit=pictures, overwrite=overwrite)


def list_datasets() -> tuple[DataSetInfo, ...]:
    """Every data set that is read with its official splits, and any folder or table of pictures."""
    from embedkit.training.datasets.registry import DATASETS

    return DATASETS


def check_dataset(path: str | Path, *, name: str | None = None) -> DataSetCheck:
    """What of a data set lies at a path, against its official numbers, and what is missing. Downloads nothing.

    `name`: which one, if its files do not tell. Raises BadSource, UnknownName.
    """
    from embedkit.training.datasets.open import check_dataset as check

    return check(path, name=name)
