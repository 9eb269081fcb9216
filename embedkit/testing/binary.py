"""The part of the backend contract that is about binary codes; `BackendContract` holds it and has the fixtures."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from embedkit.backends.contract import CollectionSpec, IndexSpec, SearchParams, SearchResult, VectorBackend
from embedkit.backends.open import open_backend
from embedkit.errors import BadInput, ConfigError, DimensionMismatch, UnsupportedByBackend
from embedkit.filters import F, Filter
from embedkit.testing.compare import assert_same_answer
from embedkit.testing.rows import columns_of, ids_of
from embedkit.testing.strategies import filters

if TYPE_CHECKING:
    from embedkit.types import ByteArray

__all__ = ["BinaryContract"]

_BITS = 24


def _codes(count: int, bits: int = _BITS, seed: int = 0) -> ByteArray:
    """Random codes, every third one a bit or two away from another: ties at all distances, and equal codes."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (count, bits // 8), dtype=np.uint8)
    near = codes[rng.integers(0, count, len(codes[::3]))]
    near[:, 0] ^= rng.choice(np.array([0, 1, 2, 3], np.uint8), len(near))
    codes[::3] = near
    return codes


def _spec(name: str, bits: int = _BITS) -> CollectionSpec:
    return CollectionSpec(name, bits, "hamming", "binary")


def _assert_agrees(backend: VectorBackend, found: SearchResult, exact: SearchResult) -> None:
    """Distances to the bit; equal ones by id; ids exactly, where the backend promises whom a tie leaves out."""
    np.testing.assert_array_equal(found.distances, exact.distances)
    np.testing.assert_array_equal(found.scores, -found.distances)
    if backend.capabilities.ties_by_id:
        np.testing.assert_array_equal(found.ids, exact.ids)
    assert_same_answer(found, exact)
    assert found.distances.dtype == np.float32
    for ids, distances in zip(found.ids, found.distances, strict=True):
        there = ids >= 0
        pairs = list(zip(distances[there].tolist(), ids[there].tolist(), strict=True))
        assert pairs == sorted(pairs)


class BinaryContract:
    """Every backend that holds codes gives the oracle's answers; one that does not says so."""

    @pytest.fixture
    def coded(self, backend: VectorBackend, oracle: VectorBackend, name: str) -> Callable[..., None]:
        """Puts the same codes into the backend and the oracle."""

        def fill(bits: int = _BITS, count: int = 60) -> None:
            if "binary" not in backend.capabilities.vector_kinds:
                with pytest.raises(UnsupportedByBackend, match="binary"):
                    backend.create(_spec(name, bits))
                pytest.skip(f"{backend.capabilities.name} declares that it holds no binary codes")
            for one in (backend, oracle):
                one.create(_spec(name, bits))
                one.upsert(name, ids_of(count), _codes(count, bits), columns_of(count))

        return fill

    def test_a_collection_of_codes_is_described(
        self, backend: VectorBackend, name: str, coded: Callable[..., None]
    ) -> None:
        coded()
        assert backend.describe(name) == _spec(name)
        for bad in (
            CollectionSpec(f"{name}_x", 12, "hamming", "binary"),
            CollectionSpec(f"{name}_x", 16, "cosine", "binary"),
            CollectionSpec(f"{name}_x", 16, "hamming", "float"),
            CollectionSpec(f"{name}_x", 8 * (backend.capabilities.max_dim // 8 + 1), "hamming", "binary"),
        ):
            with pytest.raises(ConfigError):
                backend.create(bad)
        with pytest.raises(UnsupportedByBackend, match="binary"):
            backend.create(CollectionSpec(f"{name}_x", 16, "hamming", "binary", IndexSpec("no_such_index")))
        assert f"{name}_x" not in backend.list()

    @pytest.mark.parametrize("bits", [8, 64, 136])
    def test_the_nearest_codes_are_those_of_the_oracle(
        self, backend: VectorBackend, oracle: VectorBackend, name: str, coded: Callable[..., None], bits: int
    ) -> None:
        coded(bits)
        queries = np.concatenate([_codes(60, bits)[:3], _codes(4, bits, seed=1)])
        for k in (1, 10, 60, 100):
            _assert_agrees(backend, backend.search(name, queries, k), oracle.search(name, queries, k))

    def test_codes_are_fetched_as_they_were_written(
        self, backend: VectorBackend, name: str, coded: Callable[..., None]
    ) -> None:
        coded()
        ids, codes = ids_of(60), _codes(60)
        fetched = backend.fetch(name, np.array([ids[7], 424_242, ids[0], ids[3]]))
        assert fetched.ids.tolist() == [ids[7], ids[0], ids[3]]
        assert fetched.vectors.dtype == np.uint8
        np.testing.assert_array_equal(fetched.vectors, codes[[7, 0, 3]])
        assert fetched.columns == tuple(columns_of(60)[row] for row in (7, 0, 3))
        assert backend.fetch(name, np.array([424_242])).vectors.shape == (0, _BITS // 8)

    def test_any_order_of_written_codes_ends_like_the_oracle(
        self, backend: VectorBackend, oracle: VectorBackend, name: str, coded: Callable[..., None]
    ) -> None:
        coded()
        chance, ids, codes = random.Random(7), ids_of(60), _codes(60)
        for step in range(15):
            rows = np.array(chance.sample(range(60), chance.randint(1, 20)))
            action = chance.choice(("upsert", "upsert", "delete", "update"))
            for one in (backend, oracle):
                if action == "upsert":
                    one.upsert(name, ids[rows], codes[rows] ^ np.uint8(step), [{"price": step} for _ in rows])
                elif action == "delete":
                    one.delete(name, ids[rows])
                else:
                    one.update_columns(name, ids[rows], [{"price": -step} for _ in rows])
        assert backend.count(name) == oracle.count(name)
        for where in (None, F("price") > 5, F("price") < 0):
            for k in (5, 60):
                found = backend.search(name, codes[:8], k, where)
                _assert_agrees(backend, found, oracle.search(name, codes[:8], k, where))
        there = oracle.fetch(name, ids)
        np.testing.assert_array_equal(backend.fetch(name, ids).vectors, there.vectors)
        assert backend.fetch(name, ids).columns == there.columns

    def test_what_is_no_code_of_the_collection_is_refused(
        self, backend: VectorBackend, name: str, coded: Callable[..., None]
    ) -> None:
        coded()
        one = np.array([1])
        for wrong in (np.ones((1, _BITS), np.float32), np.ones((1, _BITS // 8), np.int64)):
            for call in (
                lambda wrong=wrong: backend.search(name, wrong, 1),
                lambda w=wrong: backend.upsert(name, one, w),
            ):
                with pytest.raises(BadInput, match=f"{name}.*holds codes of {_BITS} bits"):
                    call()
        for width in (_BITS, _BITS // 8 + 1):
            with pytest.raises(DimensionMismatch, match=f"{_BITS} bits in {_BITS // 8} bytes"):
                backend.search(name, np.ones((1, width), np.uint8), 1)
        assert backend.count(name) == 60

    def test_a_filter_admits_the_same_codes_everywhere(
        self, backend: VectorBackend, oracle: VectorBackend, name: str, coded: Callable[..., None]
    ) -> None:
        coded()
        query = _codes(1, seed=2)

        @settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(where=filters())
        def check(where: Filter) -> None:
            _assert_agrees(backend, backend.search(name, query, 9, where), oracle.search(name, query, 9, where))

        check()

    @pytest.mark.parametrize("family", ["flat", "hnsw", "ivf", "multihash"])
    def test_an_index_of_codes_finds_what_the_oracle_finds(
        self, backend: VectorBackend, oracle: VectorBackend, name: str, coded: Callable[..., None], family: str
    ) -> None:
        count = 300
        coded(64, count)
        text = {"flat": "flat", "hnsw": "hnsw(m=24)", "ivf": "ivf(nlist=8)", "multihash": "multihash(tables=4)"}[family]
        if family not in backend.capabilities.binary_families:
            with pytest.raises(UnsupportedByBackend, match=family):
                backend.build_index(name, IndexSpec.parse(text))
            return
        backend.build_index(name, IndexSpec.parse(text))
        made = backend.describe(name).index
        assert made == IndexSpec.parse(text)
        ids, codes = ids_of(count), _codes(count, 64)
        thorough = SearchParams(ef=count, nprobe=count)
        for one in (backend, oracle):
            one.delete(name, ids[:100])
            one.upsert(name, ids[:50], codes[100:150] ^ np.uint8(1), columns_of(50))
        for where in (None, F("price") < 50, F("price") == 80):
            right = oracle.search(name, codes[:20], 10, where)
            found = backend.search(name, codes[:20], 10, where, thorough)
            if family in ("flat", "multihash"):
                _assert_agrees(backend, found, right)
            assert np.mean(found.distances == right.distances) >= 0.95

    def test_codes_outlive_the_connection(self, url: str, name: str) -> None:
        backend = open_backend(url)
        if not backend.capabilities.durable or "binary" not in backend.capabilities.vector_kinds:
            backend.close()
            return
        backend.create(_spec(name))
        backend.upsert(name, ids_of(20), _codes(20))
        backend.flush(name)
        backend.close()
        again = open_backend(url)
        try:
            assert again.describe(name) == _spec(name)
            np.testing.assert_array_equal(again.fetch(name, ids_of(20)).vectors, _codes(20))
            assert again.search(name, _codes(20)[5:6], 1).distances.tolist() == [[0.0]]
        finally:
            again.drop(name)
            again.close()
