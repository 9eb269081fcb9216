"""The part of the backend contract that is about filters over an index; `BackendContract` has the fixtures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from embedkit.backends.contract import CollectionSpec, IndexSpec, SearchParams, VectorBackend
from embedkit.codes import packed
from embedkit.errors import UnsupportedByBackend
from embedkit.filters import parse_filter
from embedkit.testing.rows import ids_of

if TYPE_CHECKING:
    from embedkit.types import FloatArray

__all__ = ["FilteredContract"]

_COUNT, _FAR, _DIM = 1_500, 40, 32
_FEW, _MANY = ("shelf == 'far'", "shelf == 'far' and price < 50", "price == 3"), "price < 20 and shelf == 'near'"


def _vectors() -> FloatArray:
    """Twenty clusters, and a handful of rows at the other end of the space."""
    chance = np.random.default_rng(0)
    middles = 2 + chance.standard_normal((20, _DIM))
    vectors = middles[chance.integers(20, size=_COUNT)] + 0.7 * chance.standard_normal((_COUNT, _DIM))
    vectors[:_FAR] = -3 + 0.7 * chance.standard_normal((_FAR, _DIM))
    return vectors.astype(np.float32)


class FilteredContract:
    """A search finds as many rows as there are, whatever the index, and under a filter those that it admits."""

    @pytest.mark.parametrize("kind", ["float", "binary"])
    @pytest.mark.parametrize("text", ["hnsw(m=24)", "ivf(nlist=32)"])
    def test_an_index_costs_no_hits(
        self, backend: VectorBackend, oracle: VectorBackend, name: str, text: str, kind: str
    ) -> None:
        index, codes = IndexSpec.parse(text), kind == "binary"
        able = backend.capabilities
        vectors = packed(_vectors()) if codes else _vectors()
        spec = CollectionSpec(name, _DIM, "hamming" if codes else "l2", "binary" if codes else "float")
        if index.shape not in (able.binary_families if codes else able.index_families):
            with pytest.raises(UnsupportedByBackend):
                backend.create(CollectionSpec(name, spec.dim, spec.metric, spec.kind, index))
            return
        columns = [{"shelf": "far" if row < _FAR else "near", "price": row % 100} for row in range(_COUNT)]
        for one in (backend, oracle):
            one.create(spec)
            one.upsert(name, ids_of(_COUNT), vectors, columns)
        backend.build_index(name, index)
        for where, least in (*((few, 0.99) for few in _FEW), (_MANY, 0.9)):
            asked = (vectors[100:130], 10, parse_filter(where))
            found, right = (one.search(name, *asked) for one in (backend, oracle))
            assert ((found.ids >= 0) == (right.ids >= 0)).all(), where
            assert np.mean(np.isclose(found.distances, right.distances, rtol=1e-3)) >= least, where
        many = _COUNT // 2  # more than lie in the lists that a search looks through
        assert (backend.search(name, vectors[:1], many, None, SearchParams(nprobe=1)).ids >= 0).sum() == many
