"""What `embedkit advise` chooses beside the best that an exhaustive search of indexes and settings finds.

The vectors are those of `indexes.py`: patches of pixels of drawings, or any ``.npy`` of floats. A collection is made of
them; advice is measured on a sample of it, as a user gets it. Then every index that the backend builds is built over
all the vectors and asked with every setting of its knobs, on a grid twice as fine as the one of `embedkit bench ann`.
Of each that reaches the wanted recall the quickest setting counts. `ratio` is the advised index, tuned, over the best.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from indexes import K, filled, material, options_of, recall

import embedkit
from embedkit.backends.contract import IndexSpec, SearchParams
from embedkit.bench.ann import default_specs
from embedkit.search.measure import settings_of

ROUNDS, ENOUGH = 5, 0.999
Row = dict[str, Any]


def advised(vectors: np.ndarray, options: argparse.Namespace, home: Path) -> str:
    """The first choice for a collection of the vectors, measured on a sample of it."""
    np.save(home / "vectors.npy", vectors)
    np.save(home / "keys.npy", np.arange(len(vectors)))
    with embedkit.connect(backend=f"faiss:///{home / 'asked'}", home=home / "home") as kit:
        kit.import_vectors(home / "vectors.npy", keys=home / "keys.npy", collection="patches")
        begun = time.perf_counter()
        advice = kit.collection("patches").advise(recall=options.recall, k=K, sample=options.sample)
        taken = time.perf_counter() - begun
    print(f"Advice from {advice.measured:,} of {advice.n:,} vectors took {taken:.0f} s:\n")
    for one in advice.specs:
        print(f"- {one.spec}, {dict(one.params)}: {one.qps:,.0f} queries/s, {one.qps_at_n:,.0f} at n. {one.misses}")
    chosen = advice.chosen
    if chosen is None:
        raise SystemExit(f"nothing reaches a recall of {options.recall}")
    return chosen.spec


def quickest(backend: embedkit.VectorBackend, text: str, queries: np.ndarray, right: np.ndarray, wanted: float) -> Row:
    """Of every setting of an index that is built the one with the most queries a second for the wanted recall."""
    spec, found = IndexSpec.parse(text), []
    for path in settings_of(spec, backend.count("c"), spec.knobs(rescores=backend.capabilities.rescores)):
        for setting in path:
            params, times = SearchParams(**setting), []
            for _ in range(ROUNDS):
                begun = time.perf_counter()
                ids = backend.search("c", queries, K, None, params).ids
                times.append(time.perf_counter() - begun)
                if times[0] > 1:
                    break
            share = recall(ids, right)
            found.append({"params": dict(setting), "recall": share, "qps": len(queries) / min(times)})
            if share >= ENOUGH:
                break
    return max(found, key=lambda one: (one["recall"] >= wanted, one["qps" if one["recall"] >= wanted else "recall"]))


def main() -> None:
    """Print the advice, a line for each index, and the ratio."""
    parser = options_of(__doc__)
    parser.add_argument("--sample", type=int, default=50_000)
    parser.add_argument("--specs", nargs="*", help="one of every family if not given")
    options = parser.parse_args()
    queries, vectors, right = material(options)
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as folder:
        choice = advised(vectors, options, Path(folder))
        backend = filled(Path(folder) / "all", vectors)
        specs = options.specs or default_specs(len(vectors), vectors.shape[1], backend.capabilities)
        print(f"\n{len(vectors):,} vectors of {vectors.shape[1]}, {len(queries):,} queries at once, k={K}\n")
        print("| index | search with | recall | queries/s | built, s |\n|---|---|---|---|---|")
        best: dict[str, float] = {}
        for text in dict.fromkeys([choice, *specs]):
            begun = time.perf_counter()
            backend.build_index("c", IndexSpec.parse(text))
            built = time.perf_counter() - begun
            one = quickest(backend, text, queries, right, options.recall)
            if one["recall"] >= options.recall:
                best[text] = one["qps"]
            shown = ", ".join(f"{name}={value}" for name, value in one["params"].items())
            print(f"| {text} | {shown} | {one['recall']:.3f} | {one['qps']:,.0f} | {built:.1f} |", flush=True)
        backend.close()
    first = max(best, key=lambda text: best[text])
    ratio = best.get(choice, 0.0) / best[first]
    print(f"\nadvised: {choice}; best of all: {first}; ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
