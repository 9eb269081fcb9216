"""Data sets of approximate nearest neighbours: vectors, queries and true neighbours, found in a file or folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.bench.formats import IDS, VECTORS, open_rows
from embedkit.errors import BadInput, BadSource, MissingExtra
from embedkit.types import Metric

if TYPE_CHECKING:
    import numpy.typing as npt

    from embedkit.types import FloatArray, IdArray

__all__ = ["AnnSet", "open_ann_set"]

_HDF5 = (".hdf5", ".h5")
_METRICS: dict[str, Metric] = {
    "euclidean": "l2",
    "l2": "l2",
    "angular": "cosine",
    "cosine": "cosine",
    "dot": "ip",
    "ip": "ip",
}
_PARTS = {"base": ("base",), "query": ("query", "queries"), "truth": ("groundtruth", "truth", "gt")}


@dataclass(frozen=True, slots=True)
class AnnSet:
    """`base` ``(n, dim)`` of any number type, mapped where the file allows; `queries` ``(q, dim)`` float32.

    `truth` ``(q, k)``: the places of the nearest rows, the nearest first; None where nobody says.
    """

    name: str
    base: npt.NDArray[Any]
    queries: FloatArray
    truth: IdArray | None
    metric: Metric

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return int(self.base.shape[1])

    def fingerprint(self) -> str:
        """Of what is measured: sizes, metric, some of the vectors, and the neighbours that somebody tells."""
        told = hashlib.sha256(f"{self.base.shape} {self.base.dtype} {self.queries.shape} {self.metric}".encode())
        for rows in (self.base[:100], self.base[-100:], self.queries):
            told.update(np.ascontiguousarray(rows).tobytes())
        if self.truth is not None:
            told.update(np.ascontiguousarray(self.truth).tobytes())
        return told.hexdigest()[:16]


def open_ann_set(
    path: Path,
    *,
    queries: Path | None = None,
    truth: Path | None = None,
    metric: Metric | None = None,
    size: int | None = None,
    most_queries: int = 1_000,
    seed: int = 0,
) -> AnnSet:
    """Open a data set: an ann-benchmarks HDF5 file, a folder as TEXMEX or big-ann lay it out, or a file of vectors.

    `queries`, `truth`: their files, where the set has others or none. A file without queries gives some of its own,
    drawn by chance, which are then no part of its base. `metric`: that of the HDF5 file, else l2. `size`: only so many
    of the first vectors, whose true neighbours are others than the set's. Raises BadInput, BadSource, MissingExtra.
    """
    if not path.exists():
        raise BadSource(f"There is no data set {str(path)!r}; name an .hdf5 file, a folder or a file of vectors")
    if path.suffix.lower() in _HDF5:
        found = _hdf5(path)
    elif path.is_dir():
        found = _folder(path)
    else:
        found = AnnSet(path.stem, _vectors(path), np.empty((0, 0), np.float32), None, "l2")
    if queries is not None:
        found = replace(found, queries=_floats(_vectors(queries)), truth=None)
    if truth is not None:
        found = replace(found, truth=np.asarray(_ids(truth), np.int64))
    if metric is not None and metric != found.metric:
        found = replace(found, metric=metric, truth=found.truth if truth is not None else None)
    if not len(found.queries):
        if found.truth is not None:
            raise BadInput(f"{str(path)!r} has true neighbours and no queries; name their file with queries")
        found = _with_own_queries(found, most_queries, seed)
    _check(found, path)
    return _cut(found, path, size, most_queries)


def _hdf5(path: Path) -> AnnSet:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("h5py", "bench", needed_for=f"Reading {str(path)!r}") from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise BadSource(f"{str(path)!r} is no HDF5 file, or not a whole one; fetch it again") from error
    with file:
        missing = [name for name in ("train", "test") if not isinstance(file.get(name), h5py.Dataset)]
        if missing:
            raise BadSource(f"{str(path)!r} lacks {' and '.join(map(repr, missing))}, which ann-benchmarks writes")
        told = str(file.attrs.get("distance", "euclidean"))
        if told not in _METRICS or file["train"].dtype.kind not in "fiu":
            raise BadSource(f"{str(path)!r} is measured by {told!r}; only {', '.join(_METRICS)} of numbers can be")
        truth = np.asarray(_table(path, file["neighbors"], "iu"), np.int64) if "neighbors" in file else None
        base, queries = _table(path, file["train"], "fiu"), _table(path, file["test"], "fiu")
        return AnnSet(path.stem, base, _floats(queries), truth, _METRICS[told])


def _table(path: Path, part: Any, kinds: str) -> npt.NDArray[Any]:
    """A part of an HDF5 file, read whole. `kinds`: those of its numbers. Raises BadSource."""
    name, shape, dtype = part.name.strip("/"), getattr(part, "shape", ()), getattr(part, "dtype", None)
    if dtype is None or dtype.kind not in kinds or len(shape) != 2:
        raise BadSource(
            f"{name!r} of {str(path)!r} is {dtype or 'a group'} of the shape {shape}, and not rows of numbers, "
            "as ann-benchmarks writes"
        )
    try:
        return np.asarray(part)
    except OSError as error:
        raise BadSource(f"{name!r} of {str(path)!r} cannot be read ({error}); fetch it again") from error


def _folder(path: Path) -> AnnSet:
    """``sift_base.fvecs``, ``sift_query.fvecs``, ``sift_groundtruth.ivecs``; ``base.10M.fbin``, ``query.public…``."""
    base, query = _named(path, "base", VECTORS), _named(path, "query", VECTORS)
    if base is None:
        raise BadSource(f"{str(path)!r} has no file of vectors with 'base' in its name, such as sift_base.fvecs")
    truth = _named(path, "truth", IDS)
    return AnnSet(
        path.name or "vectors",
        _vectors(base),
        _floats(_vectors(query)) if query else np.empty((0, 0), np.float32),
        np.asarray(_ids(truth), np.int64) if query and truth else None,
        "l2",
    )


def _named(folder: Path, part: str, kinds: Sequence[str]) -> Path | None:
    found = sorted(
        one
        for one in folder.iterdir()
        if one.suffix.lower() in kinds and any(word in one.stem.lower() for word in _PARTS[part])
    )
    if len(found) > 1:
        raise BadSource(
            f"{str(folder)!r} has several files of that part ({', '.join(one.name for one in found)}); "
            "name the file of vectors itself, and those of its queries and true neighbours"
        )
    return found[0] if found else None


def _vectors(path: Path) -> npt.NDArray[Any]:
    if path.suffix.lower() not in VECTORS:
        raise BadSource(f"{str(path)!r} is no file of vectors; known: .hdf5, {', '.join(VECTORS)}")
    return open_rows(path)


def _ids(path: Path) -> npt.NDArray[Any]:
    if path.suffix.lower() not in IDS:
        raise BadSource(f"{str(path)!r} is no file of true neighbours; known: {', '.join(IDS)}")
    rows = open_rows(path)
    if rows.dtype.kind == "f":
        raise BadSource(f"{str(path)!r} holds numbers with fractions, and true neighbours are places of vectors")
    return rows


def _floats(rows: npt.NDArray[Any]) -> FloatArray:
    return np.ascontiguousarray(rows, np.float32)


def _with_own_queries(found: AnnSet, count: int, seed: int) -> AnnSet:
    """Some rows by chance become the queries; never more than a tenth."""
    rows = len(found.base)
    count = min(count, rows // 10)
    if count < 1:
        raise BadInput(f"{found.name!r} has {rows} vectors, too few to take queries from; name a file of queries")
    chosen = np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))
    queries = _floats(found.base[chosen])
    return replace(found, base=np.delete(np.asarray(found.base), chosen, axis=0), queries=queries)


def _check(found: AnnSet, path: Path) -> None:
    """Whether the parts fit together, and the numbers are some."""
    if found.queries.shape[1] != found.dim:
        raise BadInput(
            f"The queries of {str(path)!r} have {found.queries.shape[1]} numbers and its vectors {found.dim}; "
            "they belong to another set"
        )
    if not np.isfinite(found.queries).all() or not np.isfinite(_floats(found.base[:1_000])).all():
        raise BadSource(f"{str(path)!r} holds numbers that are not finite; fetch it again")
    if found.truth is None:
        return
    rows, highest, lowest = len(found.truth), int(found.truth.max(initial=0)), int(found.truth.min(initial=0))
    if rows != len(found.queries):
        raise BadInput(
            f"The true neighbours of {str(path)!r} are those of {rows:,} queries, and there are "
            f"{len(found.queries):,}; they belong to another set"
        )
    if highest >= len(found.base) or lowest < 0:
        raise BadInput(
            f"The true neighbours of {str(path)!r} name vector {min(lowest, 0) or highest:,}, and there are "
            f"{len(found.base):,}, counted from 0; "
            "they belong to a set of another size: name theirs, or leave them out to have them computed"
        )


def _cut(found: AnnSet, path: Path, size: int | None, most_queries: int) -> AnnSet:
    if size is not None and size > len(found.base):
        raise BadInput(f"{str(path)!r} has {len(found.base):,} vectors; {size:,} are more")
    if size is not None and size < len(found.base):
        found = replace(found, name=f"{found.name}-{size}", base=found.base[:size], truth=None)
    truth = found.truth[:most_queries] if found.truth is not None else None
    return replace(found, queries=found.queries[:most_queries], truth=truth)
