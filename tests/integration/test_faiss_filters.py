"""Filters on the FAISS backend: evaluated once for what does not change, remembered within bounds, and always exact."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from embedkit.backends.contract import CollectionSpec, IndexSpec, SearchParams
from embedkit.backends.faiss import collection as faiss_collection
from embedkit.backends.open import open_backend
from embedkit.filters import F
from embedkit.matching import matches
from embedkit.testing.compare import assert_same_answer
from tests.integration.test_faiss import DIM, vectors_of


def ids_of(backend, where, query=None, k=1_000):
    """The ids that a filter lets a search find."""
    query = np.ones((1, DIM), np.float32) if query is None else query
    return sorted(i for i in backend.search("c", query, k, where).ids[0].tolist() if i >= 0)


@pytest.fixture
def evaluations(monkeypatch):
    """The filters that were evaluated over the columns."""
    seen, mask = [], faiss_collection.ColumnCache.mask

    def counted(self, node, size):
        seen.append(node)
        return mask(self, node, size)

    monkeypatch.setattr(faiss_collection.ColumnCache, "mask", counted)
    return seen


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda b: b.upsert("c", np.array([50]), vectors_of(1), [{"n": 1}]), [0, 1, 2, 50]),
        (lambda b: b.upsert("c", np.array([1]), vectors_of(1), [{"n": 9}]), [0, 2]),
        (lambda b: b.delete("c", np.array([0])), [1, 2]),
        (lambda b: b.update_columns("c", np.array([2, 7]), [{"n": 9}, {"n": -1}]), [0, 1, 7]),
        (lambda b: b.build_index("c", IndexSpec.parse("hnsw(m=16)")), [0, 1, 2]),
        (lambda b: (b.delete("c", np.array([0, 5])), b.build_index("c", IndexSpec("flat"))), [1, 2]),
    ],
    ids=["new", "replaced", "deleted", "columns", "index", "compacted"],
)
@pytest.mark.parametrize("own", [True, False], ids=["own", "another's"])
def test_a_filter_is_evaluated_once_until_something_is_written(url, backend, evaluations, own, write, expected):
    backend.create(CollectionSpec("c", DIM))
    backend.upsert("c", np.arange(10), vectors_of(10), [{"n": n} for n in range(10)])
    for _ in range(3):
        assert ids_of(backend, F("n") < 3) == [0, 1, 2]
    assert len(evaluations) == 1
    other = backend if own else open_backend(url)
    write(other)
    for _ in range(3):
        assert ids_of(backend, F("n") < 3) == expected
    assert len(evaluations) == 2
    if not own:
        other.close()


def test_what_another_process_writes_changes_what_a_filter_admits(url, backend):
    backend.create(CollectionSpec("c", DIM))
    backend.upsert("c", np.arange(10), vectors_of(10), [{"n": n} for n in range(10)])
    assert ids_of(backend, F("n") < 3) == ids_of(backend, F("n") < 3) == [0, 1, 2]
    for line, expected in (
        ("delete('c', np.array([1]))", [0, 2]),
        ("update_columns('c', np.array([0, 5]), [{'n': 7}, {'n': 0}])", [2, 5]),
        ("upsert('c', np.array([30]), np.ones((1, 16), np.float32), [{'n': 2}])", [2, 5, 30]),
    ):
        code = f"import numpy as np\nfrom embedkit.backends.open import open_backend\nopen_backend({url!r}).{line}"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert ids_of(backend, F("n") < 3) == ids_of(backend, F("n") < 3) == expected


def test_filters_that_python_calls_equal_are_told_apart(backend, evaluations):
    backend.create(CollectionSpec("c", DIM))
    backend.upsert("c", np.arange(3), vectors_of(3), [{"n": 1}, {"n": True}, {"n": "1"}])
    for _ in range(2):
        assert ids_of(backend, F("n") == 1) == [0]
        assert ids_of(backend, F("n") == True) == [1]  # noqa: E712  a filter, not a test
        assert ids_of(backend, F("n") == "1") == [2]
    assert len(evaluations) == 3


def test_no_more_filters_are_remembered_than_memory_allows(backend, evaluations):
    backend.create(CollectionSpec("c", DIM))
    backend.upsert("c", np.arange(40), vectors_of(40), [{"n": n} for n in range(40)])
    for _ in range(2):
        for n in range(30):
            assert ids_of(backend, F("n") < n) == list(range(n))
    assert len(evaluations) == 60
    assert len(backend._get("c")._state.admitted) == faiss_collection._FILTERS


@pytest.mark.parametrize("split", [0, 10**9], ids=["both cores", "one core"])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("index", ["flat", "ivf(nlist=2)"])
def test_few_and_many_admitted_rows_give_the_exact_answer(url, backend, monkeypatch, split, metric, index):
    """Rows by position, rows by mask, none, all; with and without deaths; beside an index; one query and many."""
    monkeypatch.setattr(faiss_collection.kernel, "_SPLIT", split)
    monkeypatch.setattr(faiss_collection.kernel, "_THREADS", 3)
    oracle, vectors = open_backend("oracle://x"), vectors_of(300)
    for one in (backend, oracle):
        one.create(CollectionSpec("c", DIM, metric))
        one.upsert("c", np.arange(250), vectors[:250], [{"n": n % 100} for n in range(250)])
        if one is backend:
            one.build_index("c", IndexSpec.parse(index))
        one.upsert("c", np.arange(250, 300), vectors[250:], [{"n": n % 100} for n in range(250, 300)])
    for dead in ([], [0, 100, 299, 57]):
        for one in (backend, oracle):
            one.delete("c", np.array(dead, np.int64))
        for bound in (0, 1, 20, 26, 90, 100):
            for queries, k in ((vectors[:1], 7), (vectors[:2] + 1, 400), (vectors[:40], 5)):
                found = backend.search("c", queries, k, F("n") < bound, SearchParams(nprobe=2))
                assert_same_answer(found, oracle.search("c", queries, k, F("n") < bound))
    oracle.close()


def test_one_of_many_values_means_what_it_means_of_each():
    rows = ["a", "b", "1", 1, 1.5, -0.0, 0, 2**60, 10**400, True, False, None, ["a"], {"a": 1}]
    asked = ["a", "1", "absent", 1, 1.5, 0.0, -3, 2**53, True]
    cache = faiss_collection.ColumnCache()
    for values in (asked, asked[:3], asked[3:8], [True], [False, True], ["absent"], [7, "absent"]):
        node = F("n").isin(values)
        cache.load(node, enumerate({"n": value} for value in rows), len(rows))
        assert cache.mask(node, len(rows)).tolist() == [matches(node, {"n": value}) for value in rows], values
