"""The map of a run: its pictures in the plane, near each other where their vectors are, as a page for any browser."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedkit import plugins
from embedkit.training.datasets.contract import Split
from embedkit.training.evaluation.nearest import nearest
from embedkit.training.plots.sprites import class_names, sheets_of

if TYPE_CHECKING:
    from embedkit.types import FloatArray, IdArray

    Places: TypeAlias = npt.NDArray[np.float64]

__all__ = ["chosen_rows", "places_of", "write_map"]

_TEMPLATE = "map_template.html"
_MARK = "__DATA__"  # in the template, where the data go
_NEEDED_FOR = "Drawing the map of a run"
_DIMENSIONS = 50  # that t-SNE is given, as van der Maaten and Hinton do (2008, sect. 4.2)
_PERPLEXITY = 30
_FEWEST = 5  # pictures that t-SNE is used for
_CLASSES = 20  # whole classes that a map should have, or else it takes from all
_NEAREST = 6  # pictures that the page shows beside one
_GRID = 10_000  # places are whole numbers up to it


def write_map(path: Path, split: Split, vectors: FloatArray, *, run: str, seed: int = 0, limit: int = 4_000) -> None:
    """Write the page, which needs nothing else: pictures, places and words are all in it."""
    rows = chosen_rows(split.labels, limit, seed)
    places, how = places_of(vectors[rows], seed)
    known, classes = np.unique(split.labels[rows], return_inverse=True)
    sheets = sheets_of(split, rows)
    data = {
        "run": run,
        "of": len(split),
        "how": how,
        "names": class_names(split, known),
        "classes": classes.tolist(),
        "x": _whole(places[:, 0]),
        "y": _whole(places[:, 1]),
        "files": [Path(split.paths[row]).name for row in rows],
        "near": _neighbours(vectors[rows]),
        "side": sheets.side,
        "columns": sheets.columns,
        "sizes": sheets.sizes,
        "sheets": sheets.uris,
    }
    template = files("embedkit.training.plots").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    path.write_text(template.replace(_MARK, _json(data)), encoding="utf-8")


def _json(data: Any) -> str:
    """JSON that cannot end the element it stands in, whatever a catalog's texts are."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _whole(values: Places) -> list[int]:
    numbers: list[int] = np.rint(values * _GRID).astype(np.int64).tolist()
    return numbers


def _neighbours(vectors: FloatArray) -> list[list[int]]:
    """The nearest of each picture on the map, by their vectors."""
    blocks = list(nearest(vectors, k=_NEAREST))
    return [ids for block in blocks for ids in block.ids.tolist()] or [[] for _ in vectors]


def chosen_rows(labels: IdArray, limit: int, seed: int = 0) -> IdArray:
    """At most `limit` rows: whole classes in an order drawn by chance, or rows of all where few classes would fit."""
    if len(labels) <= limit:
        return np.arange(len(labels))
    random = np.random.default_rng(seed)
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    room = limit
    kept = np.zeros(len(counts), np.bool_)
    for one in random.permutation(len(counts)):
        if counts[one] <= room:
            kept[one] = True
            room -= int(counts[one])
    if np.count_nonzero(kept) < min(_CLASSES, len(counts)):
        return np.sort(random.choice(len(labels), limit, replace=False))
    return np.flatnonzero(kept[places])


def places_of(vectors: FloatArray, seed: int = 0) -> tuple[Places, str]:
    """Places in the unit square, (n, 2), and how they were found: t-SNE, or PCA for a handful of pictures."""
    points = _principal(vectors, seed)
    spread = float(points[:, 0].std()) if len(points) else 0.0
    if spread < 1e-6:
        return _fitted(_spiral(len(vectors))), "Not placed: all vectors are the same"
    size = f"{vectors.shape[1]:,} dimensions"
    if len(vectors) < _FEWEST:
        return _fitted(points[:, :2]), f"Placed by PCA of {size}"
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    manifold = plugins.require("sklearn.manifold", "train", needed_for=_NEEDED_FOR, package="scikit-learn")
    limits = plugins.require("threadpoolctl", "train", needed_for=_NEEDED_FOR)  # scikit-learn brings it
    learner = manifold.TSNE(perplexity=perplexity, init=points[:, :2] / spread * 1e-4, random_state=seed)
    with limits.threadpool_limits(1):  # threads add up in any order, and would give another map each time
        places = learner.fit_transform(points)
    return _fitted(
        np.asarray(places, np.float64)
    ), f"Placed by t-SNE of {size}, perplexity {perplexity:.3g}, seed {seed}"


def _principal(vectors: FloatArray, seed: int) -> FloatArray:
    """The first principal components, two at least; of fewer dimensions or pictures the rest is 0."""
    count = min(_DIMENSIONS, *vectors.shape)
    points = np.zeros((len(vectors), max(2, count)), np.float32)
    if len(vectors) > 1:
        parts = plugins.require("sklearn.decomposition", "train", needed_for=_NEEDED_FOR, package="scikit-learn")
        limits = plugins.require("threadpoolctl", "train", needed_for=_NEEDED_FOR)
        with limits.threadpool_limits(1), np.errstate(invalid="ignore"):
            points[:, :count] = parts.PCA(count, random_state=seed).fit_transform(vectors)
    return points


def _spiral(count: int) -> Places:
    """A sunflower's seeds."""
    numbers = np.arange(count, dtype=np.float64)
    radius, angle = np.sqrt(numbers), numbers * np.pi * (3 - np.sqrt(5))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _fitted(points: Places | FloatArray) -> Places:
    """Moved and scaled, both axes alike, into the middle of the unit square."""
    places: Places = points.astype(np.float64)
    if not len(places):
        return places
    low, high = places.min(axis=0), places.max(axis=0)
    fitted: Places = (places - (low + high) / 2) / max(float((high - low).max()), 1e-12) + 0.5
    return fitted
