"""Vectors that users have already: where they lie, whose they are, page by page."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embedkit.errors import BadSource
from embedkit.ingest.sources.cells import plain, typed
from embedkit.ingest.sources.mapping import ColumnMapping, unlike
from embedkit.types import Metric, Record
from embedkit.urls import redact

if TYPE_CHECKING:
    from embedkit.backends.contract import BackendOptions
    from embedkit.backends.milvus.backend import MilvusBackend
    from embedkit.backends.milvus.foreign import Foreign
    from embedkit.types import VectorArray

__all__ = ["Given", "GivenPage", "open_given"]

_PAGE = 1_000
_PRIMARY = "primary key"  # no field of Milvus has a space in its name
_TAKEN = (
    "a .parquet or .npy file, a FAISS index, a folder with img_emb/ and metadata/ (clip-retrieval), or a Milvus URL"
)
_EXACT = ("IndexFlat", "IndexFlatIP", "IndexFlatL2", "IndexHNSWFlat", "IndexIVFFlat")


@dataclass(frozen=True, slots=True)
class GivenPage:
    """Row i of `vectors`, ``(n, dim)`` float32 or ``(n, dim / 8)`` uint8, is that of ``records[i]``."""

    records: Sequence[Record]
    vectors: VectorArray


@dataclass(frozen=True, slots=True)
class Given:
    """`name`: what messages call it. `metric`: that of an index, if it tells. `warning`: what a user should know."""

    name: str
    pages: Iterator[GivenPage]
    metric: Metric | None = None
    warning: str = ""


def open_given(
    source: str,
    *,
    keys: str | None,
    mapping: ColumnMapping,
    vectors: str | None,
    collection: str | None,
    options: BackendOptions,
) -> Given:
    """Open what holds vectors: a Milvus URL, a folder of clip-retrieval, a Parquet or npy file, a FAISS index.

    `keys`: the ids of an npy file or an index: another npy, a CSV or a Parquet table. `vectors`: the column or field
    that holds them. `collection`: that of a Milvus. One of these where it means nothing is refused.
    Raises BadSource.
    """
    if source.lower().startswith("milvus://"):
        _refuse(source, "is a Milvus URL", keys=keys)
        return _milvus(source, collection, mapping, vectors, options)
    path = Path(source)
    if collection is not None:
        raise BadSource(f"{redact(source)!r} is no Milvus URL, so --from does not apply; leave it out")
    if (path / "img_emb").is_dir():
        _refuse(source, "is a folder of clip-retrieval", keys=keys, vectors=vectors)
        return Given(source, _clip_retrieval(path, mapping))
    if not path.is_file():
        raise BadSource(f"There is no {redact(source)!r} with vectors; give {_TAKEN}")
    if path.suffix == ".parquet":
        _refuse(source, "is a Parquet file, whose own columns name the products", keys=keys)
        return Given(source, _parquet(path, mapping, vectors))
    _refuse(source, "holds vectors alone", vectors=vectors)
    if path.suffix == ".npy":
        if keys is None:
            raise BadSource(f"{source!r} says nothing of whose vectors they are; give their keys: --keys FILE")
        return Given(source, _joined(path, _npy(path), _records(keys, mapping)))
    return _faiss(path, keys, mapping)


def _refuse(source: str, what: str, **options: str | None) -> None:
    """Raise BadSource for an option that was given and would be left out in silence."""
    for name, value in options.items():
        if value is not None:
            raise BadSource(f"{redact(source)!r} {what}, so --{name} does not apply; leave it out")


# -- files -------------------------------------------------------------------------------------


def _npy(path: Path) -> VectorArray:
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise BadSource(f"{str(path)!r} is no npy file of vectors: {error}") from error
    if found.ndim != 2 or found.dtype.kind not in "fu" or (found.dtype.kind == "u" and found.dtype != np.uint8):
        raise BadSource(
            f"{str(path)!r} holds {found.dtype} of the shape {found.shape}; "
            "vectors are rows of floats, codes rows of uint8"
        )
    return cast("VectorArray", found)


def _joined(path: Path, vectors: VectorArray, records: Iterator[Record]) -> Iterator[GivenPage]:
    """Rows and records in the same order. Raises BadSource if there are more of one than of the other."""
    for start in range(0, len(vectors), _PAGE):
        part = _numbers(vectors[start : start + _PAGE])
        page = [record for _, record in zip(range(len(part)), records, strict=False)]
        if len(page) < len(part):
            raise BadSource(
                f"{str(path)!r} has {len(vectors):,} vectors, and there are keys for {start + len(page):,}; "
                "the two must be in the same order and of the same number"
            )
        yield GivenPage(page, part)
    if next(records, None) is not None:
        raise BadSource(
            f"{str(path)!r} has {len(vectors):,} vectors, and there are more keys; the two must be in the same order "
            "and of the same number"
        )


def _numbers(vectors: VectorArray) -> VectorArray:
    array = np.ascontiguousarray(vectors)
    return cast("VectorArray", array if array.dtype == np.uint8 else array.astype(np.float32, copy=False))


def _records(keys: str, mapping: ColumnMapping) -> Iterator[Record]:
    """One a row of a table of keys, or of an npy of ids."""
    path = Path(keys)
    if not path.is_file():
        raise BadSource(f"There is no file of keys {redact(keys)!r}")
    if path.suffix == ".npy":
        try:
            ids = np.lib.format.open_memmap(path, mode="r")
        except (OSError, ValueError) as error:
            raise BadSource(f"{keys!r} is no npy file of ids: {error}") from error
        if ids.ndim != 1 or ids.dtype.kind not in "iuU":
            raise BadSource(f"{keys!r} holds {ids.dtype} of the shape {ids.shape}; ids are one row of numbers or texts")
        return (Record(str(one), f"{path.name} row {row}") for row, one in enumerate(ids.tolist(), 1))
    if path.suffix == ".parquet":
        return (record for batch in _batches(path) for record in _of_rows(batch.to_pylist(), path, mapping))
    return _csv(path, mapping)


def _csv(path: Path, mapping: ColumnMapping) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            for row in csv.DictReader(file):
                cells = {str(name): typed(cell) if isinstance(cell, str) else None for name, cell in row.items()}
                column = mapping.resolve(path.name, list(cells), strict=False).key
                if column in row:
                    cells[str(column)] = row[str(column)]  # 007 stays 007
                yield from _of_rows([cells], path, mapping)
        except (UnicodeDecodeError, csv.Error) as error:
            raise BadSource(f"{str(path)!r} is no CSV in UTF-8: {error}") from error


def _batches(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=_PAGE)
    except (pa.ArrowException, OSError) as error:
        raise BadSource(f"{str(path)!r} is no readable Parquet file: {error}") from error


def _of_rows(rows: Sequence[Mapping[str, Any]], path: Path, mapping: ColumnMapping) -> list[Record]:
    found = []
    for row in rows:
        mapping.check(path.name, list(row))
        columns = mapping.resolve(path.name, list(row), strict=False)
        if columns.key not in row and columns.image not in row:
            raise BadSource(
                f"{str(path)!r} has no column that names each product (it has {', '.join(row)}); "
                "name one: --map key=COLUMN"
            )
        try:
            found.append(
                columns.record(
                    {name: plain(value) for name, value in row.items()},
                    path.name,
                    lambda place: os.path.abspath(path.parent / place),
                )
            )
        except ValueError as error:
            raise BadSource(f"{str(path)!r}: {error}") from error
    return found


def _parquet(path: Path, mapping: ColumnMapping, asked: str | None) -> Iterator[GivenPage]:
    for batch in _batches(path):
        column = _vector_column(path, batch.schema, asked)
        unlike(str(path), batch.schema.names)
        vectors = _stacked(path, batch.column(column))
        rest = batch.select([name for name in batch.schema.names if name != column])
        yield GivenPage(_of_rows(rest.to_pylist(), path, mapping), vectors)


def _vector_column(path: Path, schema: Any, asked: str | None) -> str:
    import pyarrow as pa

    def is_vector(kind: Any) -> bool:
        listed = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind)
        return bool(pa.types.is_fixed_size_binary(kind) or (listed and pa.types.is_floating(kind.value_type)))

    there = [field.name for field in schema if is_vector(field.type)]
    if asked is not None and asked not in there:
        raise BadSource(f"{str(path)!r} has no column of vectors {asked!r}; it has {', '.join(there) or 'none'}")
    if asked is None and len(there) != 1:
        raise BadSource(
            f"{str(path)!r} has {len(there)} columns of vectors ({', '.join(there) or 'none'}); "
            "say which with --vectors COLUMN"
        )
    return asked or there[0]


def _stacked(path: Path, column: Any) -> VectorArray:
    import pyarrow as pa

    if column.null_count:
        raise BadSource(f"{str(path)!r} has rows without a vector; leave them out of the file")
    if pa.types.is_fixed_size_binary(column.type):
        return np.stack([np.frombuffer(code, np.uint8) for code in column.to_pylist()])
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    if len(flat) % max(len(column), 1) or len({len(one) for one in column}) > 1:
        raise BadSource(f"{str(path)!r} has vectors of several lengths in one column")
    return cast("VectorArray", flat.reshape(len(column), -1))


def _clip_retrieval(folder: Path, mapping: ColumnMapping) -> Iterator[GivenPage]:
    """``img_emb/img_emb_0.npy`` with ``metadata/metadata_0.parquet``, and so on; of ten files and more with a 00."""
    files = sorted((folder / "img_emb").glob("*.npy"), key=lambda file: int(_number(file)))
    if not files:
        raise BadSource(f"{str(folder / 'img_emb')!r} holds no .npy file")
    for file in files:
        table = folder / "metadata" / f"metadata_{_number(file)}.parquet"
        if not table.is_file():
            raise BadSource(f"{str(file)!r} has no {str(table)!r} beside it, so nobody knows whose vectors they are")
        yield from _joined(file, _npy(file), _records(str(table), mapping))


def _number(path: Path) -> str:
    """As it is written, with its zeros."""
    found: list[str] = re.findall(r"\d+", path.stem)
    return found[-1] if found else "0"


# -- indexes and servers -----------------------------------------------------------------------


def _faiss(path: Path, keys: str | None, mapping: ColumnMapping) -> Given:
    import faiss

    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise BadSource(
            f"{str(path)!r} is no FAISS index of floats that can be read; give {_TAKEN}. "
            "A catalog without vectors goes in with: embedkit ingest CATALOG"
        ) from error
    owner, ids = index, cast(Any, None)
    if isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):
        ids, index = faiss.vector_to_array(index.id_map), faiss.downcast_index(index.index)
    if isinstance(index, faiss.IndexIVF):
        try:
            index.make_direct_map()
        except RuntimeError as error:
            raise BadSource(
                f"{str(path)!r} is an inverted file with ids of its own inside, which cannot be read"
            ) from error
    if keys is None and ids is None:
        ids = np.arange(index.ntotal)
    records = _records(keys, mapping) if keys is not None else (Record(str(one), path.name) for one in ids.tolist())
    kind = type(index).__name__
    warning = (
        "" if kind in _EXACT else f"{str(path)!r} is an {kind}: its vectors are what it keeps of those it was given."
    )
    metrics: dict[int, Metric] = {faiss.METRIC_L2: "l2", faiss.METRIC_INNER_PRODUCT: "ip"}
    if index.metric_type not in metrics:
        warning += (
            f" {str(path)!r} is measured by neither cosine, ip nor l2; its vectors are now, by --metric or cosine."
        )
    return Given(
        str(path),
        _joined(path, cast("VectorArray", _Reconstructed(owner, index, path)), records),
        metrics.get(index.metric_type),
        warning.strip(),
    )


class _Reconstructed:
    """The vectors of an index, by slices. `owner`: the one that was read, which takes the inner one with it."""

    def __init__(self, owner: Any, index: Any, path: Path) -> None:
        self._owner, self._index, self._path = owner, index, path

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def __getitem__(self, part: slice) -> Any:
        start, stop, _ = part.indices(len(self))
        try:
            return self._index.reconstruct_n(start, stop - start)
        except RuntimeError as error:
            kind = type(self._index).__name__
            raise BadSource(f"{str(self._path)!r} is an {kind}, which does not give its vectors back") from error


def _milvus(
    url: str, collection: str | None, mapping: ColumnMapping, vectors: str | None, options: BackendOptions
) -> Given:
    if collection is None:
        raise BadSource(f"{redact(url)!r} is a whole database; say which collection: --from NAME")
    from embedkit.backends.milvus.connect import connect
    from embedkit.backends.milvus.foreign import foreign_collection
    from embedkit.backends.url import parse_url

    backend = connect(parse_url(url), options)
    try:
        there = foreign_collection(backend, collection, vector=vectors)
    except BaseException:
        backend.close()
        raise
    return Given(f"{redact(url)} {collection}", _milvus_pages(url, backend, there, mapping), there.metric)


def _milvus_pages(url: str, backend: MilvusBackend, there: Foreign, mapping: ColumnMapping) -> Iterator[GivenPage]:
    from embedkit.backends.milvus.foreign import foreign_pages

    collection = there.name
    try:
        for keys, array, rows in foreign_pages(backend, there):
            records = []
            for key, row in zip(keys, rows, strict=True):
                named = mapping if mapping.key is not None else replace(mapping, key=_PRIMARY)
                columns = named.resolve(collection, [*row, _PRIMARY], strict=False)
                try:
                    made = columns.record({**row, _PRIMARY: key}, collection, lambda place: place)
                except ValueError as error:
                    raise BadSource(f"The collection {collection!r} in {redact(url)}, key {key!r}: {error}") from error
                kept = {name: value for name, value in made.attributes.items() if name != _PRIMARY}
                records.append(replace(made, attributes=kept))
            yield GivenPage(records, array)
    finally:
        backend.close()
