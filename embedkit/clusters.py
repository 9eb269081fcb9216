"""Clusters of a collection's products by k-means on their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import BadInput
from embedkit.filters import Filter, Path
from embedkit.matching import value_at
from embedkit.search.ranks import attributes_of, group_of
from embedkit.search.stored import as_unit, every_vector
from embedkit.training.evaluation.clustering import cluster, normalized_mutual_information
from embedkit.types import Hit

if TYPE_CHECKING:
    from embedkit.metadata.rows import CollectionRow, ViewRow
    from embedkit.resources import Resources

__all__ = ["Cluster", "ClusterReport", "find_clusters"]

_PAGE = 5_000


@dataclass(frozen=True, slots=True)
class Cluster:
    """Products of one cluster, nearest to its mean first.

    `score` of a hit: its cosine similarity to the mean, or minus the squared distance.
    `number` counts from 1, the largest cluster first.
    """

    number: int
    members: Sequence[Hit]


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """`nmi`: how well the clusters agree with the values of `labels` that `labelled` products have; None without."""

    view: str
    clusters: Sequence[Cluster]
    labels: str | None = None
    labelled: int = 0
    nmi: float | None = None

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "view": self.view,
            "labels": self.labels,
            "labelled": self.labelled,
            "nmi": self.nmi,
            "clusters": [
                {"number": one.number, "size": len(one.members), "keys": [hit.key for hit in one.members]}
                for one in self.clusters
            ],
        }


def find_clusters(
    resources: Resources, row: CollectionRow, view: ViewRow, k: int, *, where: Filter | None, labels: Path | None
) -> ClusterReport:
    """k-means of FAISS from greedy k-means++ seeds, the same every time, on unit vectors; for ``l2`` as they are.

    Codes count as their signs. Raises BadInput where there are fewer products than clusters.
    """
    ids, stored = every_vector(resources.store, resources.backend, row, view, where)
    if len(ids) < k:
        admitted = " that the filter admits" if where is not None else ""
        raise BadInput(
            f"{row.name!r} has {len(ids)} products with a vector in {view.name!r}{admitted}, less than k={k}"
        )
    vectors = np.asarray(stored, np.float32) if view.metric == "l2" else as_unit(stored)
    places = cluster(vectors, k)
    hits = _hits(resources, row, view, ids, _closeness(vectors, places, k, squared=view.metric == "l2"))
    members: dict[int, list[Hit]] = {}
    for place, hit in zip(places.tolist(), hits, strict=True):
        if hit is not None:
            members.setdefault(place, []).append(hit)
    for some in members.values():
        some.sort(key=lambda hit: (-hit.score, hit.key))
    ordered = sorted(members.values(), key=lambda some: (-len(some), some[0].key))
    clusters = [Cluster(number, some) for number, some in enumerate(ordered, 1)]
    if labels is None:
        return ClusterReport(view.name, clusters)
    name = ".".join(labels)
    found = {hit.vector_id: value_at(attributes_of(hit.product), labels) for hit in hits if hit is not None}
    known = {one: group_of(value) for one, value in found.items() if value is not None}
    if not known:
        raise BadInput(f"No product of {row.name!r} that is clustered has the attribute {name!r}; name another one")
    numbers = {value: number for number, value in enumerate(sorted(set(known.values())))}
    rows = [place for place, one in enumerate(ids.tolist()) if one in known]
    classes = np.array([numbers[known[int(ids[place])]] for place in rows], np.int64)
    return ClusterReport(view.name, clusters, name, len(rows), normalized_mutual_information(classes, places[rows]))


def _closeness(vectors: np.ndarray, places: np.ndarray, k: int, *, squared: bool) -> list[float]:
    """How near each row is to the mean of its cluster."""
    sums = np.zeros((k, vectors.shape[1]), np.float64)
    np.add.at(sums, places, vectors)
    means = sums / np.maximum(np.bincount(places, minlength=k), 1)[:, None]
    if squared:
        near = -np.square(vectors - means[places]).sum(axis=1)
    else:
        lengths = np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        near = np.einsum("nd,nd->n", vectors, (means / lengths)[places])
    return [float(one) for one in near]


def _hits(
    resources: Resources, row: CollectionRow, view: ViewRow, ids: np.ndarray, scores: Sequence[float]
) -> list[Hit | None]:
    """A hit for each id; None for a product that has gone meanwhile."""
    hits: list[Hit | None] = []
    for start in range(0, len(ids), _PAGE):
        some = ids[start : start + _PAGE].tolist()
        products = resources.store.products_by_vector(row.id, view.slot, some)
        hits += [
            Hit(products[one], score, score, one, view.name) if one in products else None
            for one, score in zip(some, scores[start : start + _PAGE], strict=True)
        ]
    return hits
