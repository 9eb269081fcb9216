"""The contract of a vector backend, as tests.

    class TestMine(BackendContract):
        @pytest.fixture
        def url(self, tmp_path):
            return f"mine:///{tmp_path}"

Every answer is compared with the exact ``oracle`` backend.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from embedkit.backends.contract import CollectionSpec, IndexSpec, SearchParams, VectorBackend
from embedkit.backends.indexes import CODES, FAMILIES
from embedkit.backends.open import capabilities, open_backend
from embedkit.errors import (
    BackendUnavailable,
    BadInput,
    CollectionExists,
    CollectionNotFound,
    ConfigError,
    DimensionMismatch,
    UnsupportedByBackend,
)
from embedkit.filters import F, Filter, parse_filter
from embedkit.testing.binary import BinaryContract
from embedkit.testing.compare import assert_same_answer
from embedkit.testing.filtered import FilteredContract
from embedkit.testing.rows import columns_of, ids_of, small_index
from embedkit.testing.strategies import filters

__all__ = ["BackendContract"]

DIM = 16
FILTERS = (
    "price < 80 and brand in ['acme', 'zeta']",
    "not (price < 80)",
    "price != 12",
    "price < 1e-10",
    "mixed == true",
    "mixed == 1",
    "mixed != 1",
    "mixed == '1'",
    "sizes.eu == 42",
    "sizes.eu is null",
    "sizes is not null",
    "title like '%shoes'",
    "title like '50\\%'",
    "brand like 'a%'",
    "not brand like 'a%'",
    "brand < 'b'",
    "never is null",
    "never == 1 or `odd name` >= 0",
    "brand == 'back\\\\slash' or title == 'quo\\'te' or title == 'dou\"ble'",
    "brand in []",
    "not brand in ['acme']",
)


def _rows(count: int, seed: int = 0) -> tuple[Any, Any, list[dict[str, Any]]]:
    """Ids, random vectors, columns."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, DIM)).astype(np.float32)
    return ids_of(count), vectors, columns_of(count)


def _refusal(backend: VectorBackend, name: str, spec: IndexSpec) -> str:
    """Build an index; what the backend says, if it cannot."""
    try:
        backend.build_index(name, spec)
    except UnsupportedByBackend as error:
        return str(error)
    return ""


class BackendContract(BinaryContract, FilteredContract):
    """Subclass it with a fixture `url`. Collections get names of their own, so a server may be shared."""

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError("define a fixture `url` that gives the URL of the backend to be tested")

    @pytest.fixture
    def backend(self, url: str) -> Iterator[VectorBackend]:
        backend = open_backend(url)
        before = set(backend.list())
        yield backend
        for name in set(backend.list()) - before:
            backend.drop(name)
        backend.close()

    @pytest.fixture
    def oracle(self) -> Iterator[VectorBackend]:
        oracle = open_backend("oracle://contract")
        yield oracle
        oracle.close()

    @pytest.fixture
    def name(self) -> str:
        return f"c_{uuid.uuid4().hex[:12]}"

    @pytest.fixture
    def filled(self, backend: VectorBackend, oracle: VectorBackend, name: str) -> Callable[..., None]:
        """Puts the same rows into the backend and the oracle."""

        def fill(metric: str = "cosine", count: int = 60, seed: int = 0) -> None:
            ids, vectors, columns = _rows(count, seed)
            for one in (backend, oracle):
                one.create(CollectionSpec(name, DIM, metric))  # type: ignore[arg-type]
                one.upsert(name, ids, vectors, columns)

        return fill

    # -- collections ---------------------------------------------------------------------------

    def test_capabilities_are_known_without_connecting(self, url: str, backend: VectorBackend) -> None:
        assert capabilities(url) == backend.capabilities

    def test_a_collection_is_created_described_listed_and_dropped(self, backend: VectorBackend, name: str) -> None:
        spec = CollectionSpec(name, DIM, "cosine")
        backend.create(spec)
        assert backend.describe(name) == spec
        assert name in backend.list()
        assert backend.count(name) == 0
        for where in (None, F("price") < 5):
            assert backend.search(name, np.ones((2, DIM), np.float32), 5, where).ids.shape == (2, 0)
        with pytest.raises(CollectionExists, match=name):
            backend.create(spec)
        backend.drop(name)
        assert name not in backend.list()
        backend.drop(name)

    def test_a_missing_collection_is_named(self, backend: VectorBackend) -> None:
        one = np.ones((1, DIM), np.float32)
        ids = np.ones(1, np.int64)
        for call in (
            lambda: backend.describe("nowhere"),
            lambda: backend.count("nowhere"),
            lambda: backend.upsert("nowhere", ids, one),
            lambda: backend.delete("nowhere", ids),
            lambda: backend.fetch("nowhere", ids),
            lambda: backend.search("nowhere", one, 1),
            lambda: list(backend.scan_ids("nowhere")),
            lambda: backend.flush("nowhere"),
        ):
            with pytest.raises(CollectionNotFound, match="nowhere"):
                call()

    def test_a_spec_the_backend_cannot_hold_is_refused(self, backend: VectorBackend, name: str) -> None:
        able = backend.capabilities
        if "float" not in able.vector_kinds:
            with pytest.raises(UnsupportedByBackend):
                backend.create(CollectionSpec(name, DIM))
        with pytest.raises(UnsupportedByBackend):
            backend.create(CollectionSpec(name, DIM, index=IndexSpec("no_such_index")))
        for bad in ("1x", "a b", "a/b", "", "x" * 300):
            with pytest.raises(ConfigError):
                backend.create(CollectionSpec(bad, DIM))
        with pytest.raises(ConfigError):
            backend.create(CollectionSpec(name, able.max_dim + 1))
        assert name not in backend.list()

    # -- writing -------------------------------------------------------------------------------

    @pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
    def test_search_agrees_with_the_oracle(
        self, backend: VectorBackend, oracle: VectorBackend, name: str, filled: Callable[..., None], metric: str
    ) -> None:
        filled(metric)
        queries = np.random.default_rng(1).standard_normal((5, DIM)).astype(np.float32)
        for k in (1, 10, 60, 100):
            assert_same_answer(backend.search(name, queries, k), oracle.search(name, queries, k))

    def test_what_was_written_is_seen_at_once(self, backend: VectorBackend, name: str) -> None:
        backend.create(CollectionSpec(name, DIM))
        for row in range(5):
            vector = np.zeros((1, DIM), np.float32)
            vector[0, row] = 2.0
            backend.upsert(name, np.array([row + 1]), vector)
            assert backend.search(name, vector, 1).ids.tolist() == [[row + 1]]
            assert backend.count(name) == row + 1

    def test_upsert_twice_is_upsert_once(self, backend: VectorBackend, name: str) -> None:
        backend.create(CollectionSpec(name, DIM, "l2"))
        ids, vectors, columns = _rows(20)
        for _ in range(3):
            backend.upsert(name, ids, vectors, columns)
        assert backend.count(name) == 20
        assert sorted(i for page in backend.scan_ids(name, 7) for i in page.tolist()) == sorted(ids.tolist())

    def test_upsert_replaces_vector_and_columns(self, backend: VectorBackend, name: str) -> None:
        backend.create(CollectionSpec(name, DIM, "l2"))
        ids, vectors, columns = _rows(10)
        backend.upsert(name, ids, vectors, columns)
        backend.upsert(name, ids[:1], vectors[1:2] + 5, [{"price": 99}])
        fetched = backend.fetch(name, ids[:1])
        np.testing.assert_allclose(fetched.vectors, vectors[1:2] + 5, atol=1e-5)
        assert fetched.columns == ({"price": 99},)
        assert backend.search(name, vectors[:1], 10, F("price") == 99).ids.tolist() == [[ids[0]]]

    def test_a_row_that_is_written_again_keeps_none_of_its_old_columns(self, backend: VectorBackend, name: str) -> None:
        backend.create(CollectionSpec(name, DIM, "l2"))
        ids, vectors, _ = _rows(10)
        backend.upsert(name, ids, vectors, [{"sale": True, "size": 1, "seller": {"name": "acme"}} for _ in ids])
        backend.upsert(name, ids[:2], vectors[:2], [{"size": "S"}, {}])
        backend.update_columns(name, ids[2:3], [{"seller": None}])
        for where in ("sale == true", "size == 1", "seller.name == 'acme'", "seller is not null"):
            found = backend.search(name, vectors[:1], 10, parse_filter(where)).ids
            assert sorted(found.ravel().tolist()) == sorted(ids[3:].tolist()), where
        assert backend.count(name) == 10

    def test_fetch_gives_rows_in_the_order_asked(self, backend: VectorBackend, name: str) -> None:
        backend.create(CollectionSpec(name, DIM, "ip"))
        ids, vectors, columns = _rows(12)
        backend.upsert(name, ids, vectors, columns)
        order = np.array([ids[7], 424_242, ids[0], ids[3]])
        fetched = backend.fetch(name, order)
        assert fetched.ids.tolist() == [ids[7], ids[0], ids[3]]
        np.testing.assert_allclose(fetched.vectors, vectors[[7, 0, 3]], atol=1e-5)
        assert fetched.columns == (columns[7], columns[0], columns[3])
        assert len(backend.fetch(name, np.array([424_242])).ids) == 0

    def test_update_columns_keeps_the_vector(self, backend: VectorBackend, name: str) -> None:
        backend.create(CollectionSpec(name, DIM, "l2"))
        ids, vectors, columns = _rows(10)
        backend.upsert(name, ids, vectors, columns)
        backend.search(name, vectors[:1], 3, F("price") < 50)
        backend.update_columns(name, np.array([ids[4], 31_337]), [{"price": 7}, {"price": 7}])
        fetched = backend.fetch(name, ids[4:5])
        np.testing.assert_allclose(fetched.vectors, vectors[4:5], atol=1e-5)
        assert fetched.columns == ({"price": 7},)
        assert backend.search(name, vectors[:1], 10, F("price") == 7).ids.tolist() == [[ids[4]]]
        assert backend.count(name) == 10

    def test_deleted_rows_are_gone_and_their_ids_free(self, backend: VectorBackend, name: str) -> None:
        backend.create(CollectionSpec(name, DIM, "l2"))
        ids, vectors, columns = _rows(30)
        backend.upsert(name, ids, vectors, columns)
        backend.delete(name, np.concatenate([ids[:10], [999_999]]))
        assert backend.count(name) == 20
        found = backend.search(name, vectors[:10], 30).ids
        assert not set(found.ravel().tolist()) & set(ids[:10].tolist())
        backend.upsert(name, ids[:10], vectors[:10], columns[:10])
        assert backend.search(name, vectors[:10], 1).ids[:, 0].tolist() == ids[:10].tolist()
        assert backend.count(name) == 30

    def test_any_order_of_writes_ends_like_the_oracle(
        self, backend: VectorBackend, oracle: VectorBackend, name: str
    ) -> None:
        chance = random.Random(7)
        ids, vectors, columns = _rows(60)
        for one in (backend, oracle):
            one.create(CollectionSpec(name, DIM))
        for _ in range(25):
            rows = np.array(chance.sample(range(60), chance.randint(1, 20)))
            action = chance.choice(("upsert", "upsert", "delete", "update"))
            shift = np.float32(chance.random())
            for one in (backend, oracle):
                if action == "upsert":
                    one.upsert(name, ids[rows], vectors[rows] + shift, [columns[row] for row in rows])
                elif action == "delete":
                    one.delete(name, ids[rows])
                else:
                    one.update_columns(name, ids[rows], [{"price": float(shift)} for _ in rows])
        assert backend.count(name) == oracle.count(name)
        assert_same_answer(backend.search(name, vectors[:8], 20), oracle.search(name, vectors[:8], 20))
        where = F("price") < 0.5
        assert_same_answer(backend.search(name, vectors[:8], 60, where), oracle.search(name, vectors[:8], 60, where))

    def test_bad_rows_are_refused_and_write_nothing(self, backend: VectorBackend, name: str) -> None:
        backend.create(CollectionSpec(name, DIM))
        one = np.ones((1, DIM), np.float32)
        with pytest.raises(DimensionMismatch, match=str(DIM)):
            backend.upsert(name, np.array([1]), np.ones((1, DIM + 1), np.float32))
        with pytest.raises(DimensionMismatch, match=name):
            backend.search(name, np.ones((1, DIM - 1), np.float32), 1)
        codes = np.ones((1, DIM), np.uint8)
        for call in (lambda: backend.search(name, codes, 1), lambda: backend.upsert(name, np.array([1]), codes)):
            with pytest.raises(BadInput, match=f"uint8 are binary codes.*{DIM} floats"):
                call()
        for ids, vectors, columns in (
            (np.array([1, 1]), np.ones((2, DIM), np.float32), None),
            (np.array([1, 2]), one, None),
            (np.array([-1]), one, None),
            (np.array([1]), one * np.nan, None),
            (np.array([1]), one * 0, None),
            (np.array([1]), one, [{"price": float("nan")}]),
            (np.array([1]), one, [{"text": "x" * (backend.capabilities.max_columns_bytes + 1)}]),
            (np.array([1]), one, []),
        ):
            with pytest.raises(BadInput):
                backend.upsert(name, ids, vectors, columns)
        for k in (0, -1, backend.capabilities.max_k + 1):
            with pytest.raises(BadInput):
                backend.search(name, one, k)
        assert backend.count(name) == 0

    def test_columns_as_large_as_promised_come_back(self, backend: VectorBackend, name: str) -> None:
        backend.create(CollectionSpec(name, DIM))
        room = backend.capabilities.max_columns_bytes - 20
        columns: list[dict[str, Any]] = [{"text": "ü" * (room // 2 - 4)}, {f"k{n}": n for n in range(room // 13)}]
        backend.upsert(name, np.array([1, 2]), np.ones((2, DIM), np.float32), columns)
        assert list(backend.fetch(name, np.array([1, 2])).columns) == columns

    # -- filters -------------------------------------------------------------------------------

    def test_a_filter_means_the_same_everywhere(
        self, backend: VectorBackend, oracle: VectorBackend, name: str, filled: Callable[..., None]
    ) -> None:
        filled()
        for where in FILTERS:
            try:
                self._same(backend, oracle, name, parse_filter(where))
            except AssertionError as error:
                raise AssertionError(f"{where}: {error}") from error

    def test_random_filters_mean_the_same_everywhere(
        self, backend: VectorBackend, oracle: VectorBackend, name: str, filled: Callable[..., None]
    ) -> None:
        filled()

        @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(where=filters())
        def check(where: Filter) -> None:
            self._same(backend, oracle, name, where)

        check()

    @staticmethod
    def _same(backend: VectorBackend, oracle: VectorBackend, name: str, where: Filter) -> None:
        query = np.ones((1, DIM), np.float32)
        assert_same_answer(backend.search(name, query, 60, where), oracle.search(name, query, 60, where))

    # -- indexes, aliases, lifetimes -------------------------------------------------------------

    @pytest.mark.parametrize("family", ["flat", "hnsw", "ivf"])
    def test_an_index_finds_what_the_oracle_finds(
        self, backend: VectorBackend, oracle: VectorBackend, name: str, filled: Callable[..., None], family: str
    ) -> None:
        if family not in backend.capabilities.index_families:
            backend.create(CollectionSpec(name, DIM))
            with pytest.raises(UnsupportedByBackend):
                backend.build_index(name, IndexSpec(family))
            return
        filled("l2", 400)
        ids, vectors, _ = _rows(400)
        text = {"flat": "flat", "hnsw": "hnsw(m=24)", "ivf": "ivf(nlist=8)"}[family]
        backend.build_index(name, IndexSpec.parse(text))
        made = backend.describe(name).index
        assert made == IndexSpec.parse(text)
        thorough = SearchParams(ef=400, nprobe=400)
        for one in (backend, oracle):
            one.delete(name, ids[:100])
            one.upsert(name, ids[:50], vectors[100:150] + np.float32(0.01))
        for where in (None, F("price") < 50):
            right = oracle.search(name, vectors[:20], 10, where)
            found = backend.search(name, vectors[:20], 10, where, thorough)
            hits = [len(set(a) & set(b)) for a, b in zip(found.ids.tolist(), right.ids.tolist(), strict=True)]
            assert np.mean(hits) >= 9.5

    def small_index(self, shape: str, *, refine: bool) -> str:
        """The text of an index for a few hundred rows; for a backend that takes other parameters."""
        return small_index(shape, refine=refine)

    def test_every_shape_of_index_is_built_or_refused_with_the_nearest(
        self, backend: VectorBackend, oracle: VectorBackend, name: str, filled: Callable[..., None]
    ) -> None:
        filled("cosine", 300)
        able, vectors = backend.capabilities, _rows(300)[1]
        right = oracle.search(name, vectors[:20], 10)
        thorough = SearchParams(ef=300, nprobe=300, k_factor=30)
        one_rotation = {shape for shape in able.index_families if "opq" in shape} - {"opq + ivf + pq4fs"}
        tried_elsewhere = {"flat", "hnsw", "ivf", "polysemous", *one_rotation}
        for shape in sorted({*able.index_families, *FAMILIES, *CODES} - tried_elsewhere):
            spec = IndexSpec.parse(self.small_index(shape, refine="pq4fs" in shape and bool(able.refines)))
            refusal = _refusal(backend, name, spec)
            if refusal:
                assert shape not in able.index_families or shape in able.optional_families, refusal
                assert "nearest it has is" in refusal
            else:
                made = backend.describe(name).index
                assert made.shape == shape
                assert not made.params or made == spec
            found = backend.search(name, vectors[:20], 10, None, thorough)
            same = [len(set(a) & set(b)) for a, b in zip(found.ids.tolist(), right.ids.tolist(), strict=True)]
            least = 9.5 if able.rescores or "pq" not in shape else 4
            assert np.mean(same) >= least, f"{spec}: {np.mean(same)} of 10 found"

    def test_a_bad_index_parameter_is_named(self, backend: VectorBackend, name: str) -> None:
        backend.create(CollectionSpec(name, DIM))
        if "hnsw" in backend.capabilities.index_families:
            with pytest.raises(ConfigError, match="mm"):
                backend.build_index(name, IndexSpec.parse("hnsw(mm=3)"))
        with pytest.raises(UnsupportedByBackend):
            backend.build_index(name, IndexSpec("no_such_index"))

    def test_an_alias_stands_for_a_collection_and_moves_in_one_step(self, backend: VectorBackend, name: str) -> None:
        one, alias = np.ones((1, DIM), np.float32), f"{name}_alias"
        for number in (1, 2):
            backend.create(CollectionSpec(f"{name}_{number}", DIM))
            backend.upsert(f"{name}_{number}", np.array([number]), one)
        if not backend.capabilities.alias_switch:
            with pytest.raises(UnsupportedByBackend):
                backend.switch_alias(alias, f"{name}_1")
            return
        for number in (1, 2, 1):
            backend.switch_alias(alias, f"{name}_{number}")
            assert backend.search(alias, one, 1).ids.tolist() == [[number]]
        assert alias not in backend.list()
        backend.drop(f"{name}_1")
        with pytest.raises(CollectionNotFound):
            backend.count(alias)

    def test_rows_outlive_the_connection(self, url: str, name: str) -> None:
        backend = open_backend(url)
        if not backend.capabilities.durable:
            return
        ids, vectors, columns = _rows(40)
        backend.create(CollectionSpec(name, DIM, "ip"))
        backend.upsert(name, ids, vectors, columns)
        backend.delete(name, ids[:5])
        backend.flush(name)
        backend.close()
        again = open_backend(url)
        try:
            assert again.describe(name) == CollectionSpec(name, DIM, "ip")
            assert sorted(i for page in again.scan_ids(name) for i in page.tolist()) == sorted(ids[5:].tolist())
            assert again.fetch(name, ids[5:6]).columns == (columns[5],)
        finally:
            again.drop(name)
            again.close()

    def test_who_is_closed_says_so_and_may_be_closed_twice(self, url: str, name: str) -> None:
        backend, one = open_backend(url), np.ones((1, DIM), np.float32)
        backend.create(CollectionSpec(name, DIM))
        backend.upsert(name, np.array([1]), one)
        backend.search(name, one, 1)
        if backend.capabilities.many_processes:
            backend.drop(name)
        backend.close()
        backend.close()
        for call in (
            backend.list,
            lambda: backend.create(CollectionSpec(f"{name}_b", DIM)),
            lambda: backend.count(name),
            lambda: backend.search(name, one, 1),
            lambda: backend.upsert(name, np.array([2]), one),
            lambda: backend.drop(name),
        ):
            with pytest.raises(BackendUnavailable, match="closed"):
                call()
