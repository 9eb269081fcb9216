"""A collection as a folder of files: Parquet of everything it holds, and a manifest with checksums."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.errors import (
    BadInput,
    CollectionExists,
    CollectionNotFound,
    ConfigError,
    DataCorrupt,
    DimensionMismatch,
    DiskFull,
    disk_is_full,
)
from embedkit.ingest.report import Progress, ProgressCallback
from embedkit.ingest.target import Moved, Target
from embedkit.living.copy import new_views
from embedkit.living.rows import PAGE, Rows, Vectors, check_equal, pages_of, put, rows_of
from embedkit.metadata.rows import ProductWrite, ViewRow
from embedkit.views import ensure_physical

if TYPE_CHECKING:
    from embedkit.metadata.rows import CollectionRow
    from embedkit.resources import Resources

__all__ = ["BackupReport", "RestoreReport", "back_up", "restore"]

_FORMAT = 1
_ROWS, _MANIFEST = "rows.parquet", "manifest.json"


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What lies in the folder now; `vectors` by view."""

    collection: str
    folder: str
    products: int
    vectors: Mapping[str, int]
    bytes: int
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {**asdict(self), "seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was made of a backup; `skipped` products were there already, from a run that was killed."""

    collection: str
    backend: str
    products: int
    restored: int
    skipped: int
    vectors: Mapping[str, int]
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {**asdict(self), "seconds": round(self.seconds, 3)}


# -- writing -----------------------------------------------------------------------------------


def back_up(resources: Resources, name: str, folder: Path, *, progress: ProgressCallback | None) -> BackupReport:
    """Write the folder; it gets its name when everything is in it. See `Collection.backup`."""
    begun, store = time.monotonic(), resources.store
    row = store.collection(name, resources.backend_url)
    if not folder.name:
        raise BadInput(
            f"A backup is a new folder with a name of its own, not {str(folder)!r}; give {name + '-backup'!r}"
        )
    try:
        with _draft_of(folder) as draft:
            counts = _write(resources, row, draft / _ROWS, progress)
            _write_manifest(draft, row, counts)
            if folder.exists():
                folder.rmdir()
            os.replace(draft, folder)
    except OSError as error:
        if disk_is_full(error):
            raise DiskFull(
                f"The disk of {str(folder)!r} has no room for the backup; free some and try again"
            ) from error
        raise ConfigError(f"The backup {str(folder)!r} cannot be written: {error.strerror or error}") from error
    return BackupReport(
        collection=name,
        folder=str(folder),
        products=counts[""],
        vectors={view.name: counts[view.name] for view in row.views},
        bytes=sum(file.stat().st_size for file in folder.iterdir()),
        seconds=time.monotonic() - begun,
    )


@contextmanager
def _draft_of(folder: Path) -> Iterator[Path]:
    """Where a backup is written until all is in it, by one process at a time. Raises BadInput."""
    draft, lock = (folder.with_name(f".{folder.name}.{end}") for end in ("part", "lock"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(
                f"Another backup is being written to {str(folder)!r}; wait for its end, or give another folder"
            ) from None
        try:
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise BadInput(f"{str(folder)!r} is there already; give a folder that is not, or remove it")
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _write(resources: Resources, row: CollectionRow, path: Path, progress: ProgressCallback | None) -> dict[str, int]:
    """Every page as one row group; how many vectors by view, and products under the empty name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(row.views)
    total = resources.store.count_products(row.id)
    counts = dict.fromkeys(["", *(view.name for view in row.views)], 0)
    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for page in pages_of(resources.store, resources.backend, row):
                writer.write_table(pa.Table.from_arrays(_columns(page, row.views), schema=schema))
                counts[""] += len(page.products)
                for name, part in page.views.items():
                    counts[name] += len(part.places)
                if progress is not None:
                    progress(Progress(total, counts[""], counts[""], 0, 0))
        file.flush()
        os.fsync(file.fileno())
    return counts


def _schema(views: Sequence[ViewRow]) -> Any:
    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("key", "title", "uri", "attributes", "content_hash", "validator")]
    return pa.schema(
        texts
        + [
            part
            for view in views
            for part in (
                (f"{view.name}.id", pa.int64()),
                (f"{view.name}.hash", pa.string()),
                (f"{view.name}.vector", _vector_type(view)),
            )
        ]
    )


def _vector_type(view: ViewRow) -> Any:
    import pyarrow as pa

    return pa.binary(view.dim // 8) if view.kind == "binary" else pa.list_(pa.float32(), view.dim)


def _columns(page: Rows, views: Sequence[ViewRow]) -> list[Any]:
    import pyarrow as pa

    products = page.products
    columns = [
        pa.array([product.key for product in products], pa.string()),
        pa.array([product.title for product in products], pa.string()),
        pa.array([product.uri for product in products], pa.string()),
        pa.array([json.dumps(product.attributes, ensure_ascii=False) for product in products], pa.string()),
        pa.array([product.content_hash for product in products], pa.string()),
        pa.array([product.validator for product in products], pa.string()),
    ]
    for view in views:
        part = page.views[view.name]
        there = dict(zip(part.places, range(len(part.places)), strict=True))
        rows = [there.get(place) for place in range(len(products))]
        columns.append(pa.array([None if row is None else part.ids[row] for row in rows], pa.int64()))
        columns.append(pa.array([None if row is None else part.hashes[row] for row in rows], pa.string()))
        if view.kind == "binary":
            codes = [None if row is None else part.vectors[row].tobytes() for row in rows]
            columns.append(pa.array(codes, _vector_type(view)))
        else:
            whole = np.zeros((len(products), view.dim), np.float32)
            whole[list(part.places)] = part.vectors
            missing = pa.array([row is None for row in rows])
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(whole.reshape(-1)), view.dim, mask=missing))
    return columns


def _write_manifest(draft: Path, row: CollectionRow, counts: Mapping[str, int]) -> None:
    manifest = {
        "format": _FORMAT,
        "collection": row.name,
        "made_at": datetime.now(timezone.utc).isoformat(),
        "products": counts[""],
        "vectors": {view.name: counts[view.name] for view in row.views},
        "views": [asdict(view) for view in row.views],
        "keywords": list(row.keywords),
        "files": {_ROWS: {"bytes": (draft / _ROWS).stat().st_size, "sha256": _sha256(draft / _ROWS)}},
    }
    (draft / _MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _slow(file)


def _slow(file: Any) -> str:  # Python 3.10
    found = hashlib.sha256()
    while block := file.read(1 << 20):
        found.update(block)
    return found.hexdigest()


# -- reading -----------------------------------------------------------------------------------


def restore(
    resources: Resources, folder: Path, *, name: str | None, index: str | None, progress: ProgressCallback | None
) -> RestoreReport:
    """Make a collection of a backup, and compare the two; see `Kit.restore`."""
    begun, store = time.monotonic(), resources.store
    manifest, views = _read_manifest(folder)
    name = name or str(manifest["collection"])
    source = f"backup {manifest['files'][_ROWS]['sha256'][:16]}"
    row = _made(resources, name, new_views(name, views, index), manifest.get("keywords", ()), source)
    run = store.start_run(row.id, source=source, source_fingerprint=None)
    target = Target(store, resources.backend, row, {})
    try:
        counts = put(target, _pages(folder, views), run_id=run.id, total=int(manifest["products"]), progress=progress)
    except Moved:
        raise CollectionNotFound(f"The collection {name!r} was changed while it was restored") from None
    checked = check_equal(
        _pages(folder, views),
        lambda keys: rows_of(store, resources.backend, row, keys),
        what=f"{name!r}, restored from {str(folder)!r}",
    )
    store.finish_run(run.id, "complete", counts)
    return RestoreReport(
        collection=name,
        backend=resources.backend_url,
        products=store.count_products(row.id),
        restored=counts.encoded,
        skipped=counts.skipped,
        vectors={one.view: one.vectors for one in checked},
        seconds=time.monotonic() - begun,
    )


def _made(
    resources: Resources, name: str, views: tuple[ViewRow, ...], keywords: Sequence[str], source: str
) -> CollectionRow:
    """The collection to restore into: a new one, or what a killed restore of the same backup has left."""
    store = resources.store
    found = store.find_collection(name, resources.backend_url)
    if found is None:
        ensure_physical(resources, views, None)
        return store.create_collection(name, backend_url=resources.backend_url, views=views, keywords=keywords)
    for new in views:
        for old in found.views:
            if old.name == new.name and (old.dim, old.kind) != (new.dim, new.kind):
                raise DimensionMismatch(
                    f"The view {old.name!r} of {name!r} holds {old.dim} dimensions ({old.kind}), and the backup "
                    f"{new.dim} ({new.kind}); nothing was restored. Give a collection of another name"
                )
    last = store.last_run(found.id)
    empty = last is None and not store.count_products(found.id)
    if not empty and (last is None or last.source != source or last.state == "complete"):
        raise CollectionExists(
            f"{resources.backend_url} has a collection {name!r} already; nothing was restored. "
            "Give another name, or drop it first"
        )
    ensure_physical(resources, found.views, found)
    return found


def _read_manifest(folder: Path) -> tuple[dict[str, Any], tuple[ViewRow, ...]]:
    """The manifest of a folder whose files are as they were written. Raises BadInput, DataCorrupt."""
    path = folder / _MANIFEST
    if not path.is_file():
        raise BadInput(
            f"{str(folder)!r} is no backup: it has no {_MANIFEST}; give a folder that a backup was written to"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] > _FORMAT:
            raise BadInput(
                f"The backup {str(folder)!r} was written by a newer embedkit; upgrade embedkit to restore it"
            )
        views = tuple(ViewRow(**view) for view in manifest["views"])
        files = dict(manifest["files"])
        wanted = {name: str(entry["sha256"]) for name, entry in files.items()}
        int(manifest["products"]), str(manifest["collection"]), wanted[_ROWS]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataCorrupt(f"{path}: the manifest cannot be read ({error!r}); take another backup") from error
    for name, checksum in wanted.items():
        if not (folder / name).is_file():
            raise DataCorrupt(f"The backup {str(folder)!r} lacks the file {name!r}; take another backup")
        if _sha256(folder / name) != checksum:
            raise DataCorrupt(
                f"The file {name!r} of the backup {str(folder)!r} is not the one that was written: its checksum "
                "differs. Take another backup"
            )
    return manifest, views


def _pages(folder: Path, views: Sequence[ViewRow]) -> Iterator[Rows]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(folder / _ROWS) as file:
            for batch in file.iter_batches(batch_size=PAGE):
                yield _rows(batch, views)
    except (pa.ArrowException, OSError) as error:
        raise DataCorrupt(f"{folder / _ROWS}: the file cannot be read ({error}); take another backup") from error


def _rows(batch: Any, views: Sequence[ViewRow]) -> Rows:
    texts = zip(
        *(
            batch.column(name).to_pylist()
            for name in ("key", "title", "uri", "attributes", "content_hash", "validator")
        ),
        strict=True,
    )
    products = [
        ProductWrite(key, title, uri, json.loads(attributes), content_hash, validator)
        for key, title, uri, attributes, content_hash, validator in texts
    ]
    found = {}
    for view in views:
        column = batch.column(f"{view.name}.vector")
        there = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)).tolist()
        ids, hashes = (batch.column(f"{view.name}.{name}").to_pylist() for name in ("id", "hash"))
        if view.kind == "binary":
            codes = [column[place].as_py() for place in there]
            vectors: Any = np.frombuffer(b"".join(codes), np.uint8).reshape(len(there), view.dim // 8)
        else:
            vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(there), view.dim)
        found[view.name] = Vectors(there, vectors, [hashes[place] for place in there], [ids[place] for place in there])
    return Rows(products, found)
