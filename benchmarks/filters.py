"""A filter over an index: how many of the true neighbours are found, and how fast, the fewer rows it admits.

Beside embedkit the bare FAISS index of the same factory, asked with the same `ef` or `nprobe` and told the rows by
FAISS's own selector (a bitmap, made once). The rows that a filter admits are drawn by chance. Queries are asked one by
one, as shoppers ask, both sides in turn; the vectors are those of `indexes.py`.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from indexes import K, bare, filled, material, options_of, recall

from embedkit.backends.contract import IndexSpec, VectorBackend
from embedkit.filters import F

SPECS, SHARES = ("hnsw(m=16)", "ivf"), (0.001, 0.01, 0.03, 0.1, 0.3, 0.9)
EF, ROUNDS = 64, 3


def told(spec: IndexSpec, lists: int, rows: np.ndarray, count: int) -> tuple[Any, Any]:
    """FAISS's parameters of a search among some rows, and the memory that they need."""
    mask = np.zeros(count, np.bool_)
    mask[rows] = True
    bits = np.packbits(mask, bitorder="little")
    chosen = faiss.IDSelectorBitmap(count, faiss.swig_ptr(bits))
    if spec.family == "hnsw":
        return faiss.SearchParametersHNSW(efSearch=EF, sel=chosen), (bits, chosen)
    return faiss.SearchParametersIVF(nprobe=round(lists**0.5), sel=chosen), (bits, chosen)


def timed(ask: Any, queries: np.ndarray) -> tuple[float, np.ndarray]:
    """Milliseconds of a query, one by one, and what was found."""
    begun = time.perf_counter()
    found = [ask(query[None]) for query in queries]
    return (time.perf_counter() - begun) / len(queries) * 1000, np.concatenate(found)


def compared(backend: VectorBackend, spec: IndexSpec, vectors: np.ndarray, queries: np.ndarray) -> None:
    """A line for each share."""
    numbers = np.random.default_rng(1).permutation(len(vectors))
    ids = np.arange(len(vectors))
    backend.update_columns("c", ids, [{"number": int(number)} for number in numbers])
    backend.build_index("c", spec)
    index, core, _ = bare(spec, vectors)
    for share in SHARES:
        count = round(share * len(vectors))
        rows = np.flatnonzero(numbers < count)
        right = rows[faiss.knn(queries, vectors[rows], K, metric=faiss.METRIC_INNER_PRODUCT)[1]]
        params, _kept = told(spec, getattr(core, "nlist", 0), rows, len(vectors))
        where = F("number") < count

        def ours(query: np.ndarray, where: Any = where) -> np.ndarray:
            return backend.search("c", query, K, where).ids

        def theirs(query: np.ndarray, params: Any = params) -> np.ndarray:
            return np.asarray(index.search(query, K, params=params)[1])

        ours(queries[:1])
        runs = [(timed(ours, queries), timed(theirs, queries)) for _ in range(ROUNDS)]
        (mine, found), (other, elsewhere) = (min(side, key=lambda run: run[0]) for side in zip(*runs, strict=True))
        print(
            f"| {spec} | {share:g} | {recall(found, right):.3f} | {recall(elsewhere, right):.3f} "
            f"| {mine:.2f} | {other:.2f} |",
            flush=True,
        )


def main() -> None:
    """Print a table."""
    options = options_of(__doc__).parse_args()
    queries, vectors, _ = material(options)
    print(f"{len(vectors):,} vectors of {vectors.shape[1]} numbers, {len(queries):,} queries, k = {K}\n")
    print("| index | rows admitted | recall | bare FAISS | ms | bare FAISS |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="embedkit-filters-") as name:
        backend = filled(Path(name), vectors)
        for text in SPECS:
            compared(backend, IndexSpec.parse(text), vectors, queries)
        backend.close()


if __name__ == "__main__":
    main()
