"""Codes in the files of the FAISS backend: the same upkeep as floats, and ties that go by id."""

from __future__ import annotations

import os
import random
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from embedkit.backends.contract import CollectionSpec, IndexSpec, SearchParams
from embedkit.backends.faiss import bits as faiss_bits
from embedkit.backends.faiss import collection as faiss_collection
from embedkit.backends.open import open_backend
from embedkit.errors import ConfigError
from embedkit.filters import F
from tests.integration.test_faiss import settle

BITS = 32
SPEC = CollectionSpec("c", BITS, "hamming", "binary")
INDEXES = ["flat", "hnsw(m=24)", "ivf(nlist=2)", "multihash(tables=2)", "multihash(tables=4)"]
ORDERS = ["ids ascend", "ids in any order", "a few are replaced"]
THOROUGH = SearchParams(ef=1_000, nprobe=1_000)


def codes_of(count, seed=0):
    """Clusters of near codes, so that the last place of an answer is nearly always tied."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (8, BITS // 8), dtype=np.uint8)[rng.integers(0, 8, count)]
    codes[:, 1] ^= rng.choice(np.array([0, 1, 3, 64], np.uint8), count)
    return codes


def same(found, exact):
    np.testing.assert_array_equal(found.distances, exact.distances)
    np.testing.assert_array_equal(found.ids, exact.ids)


@pytest.fixture
def oracle():
    opened = open_backend("oracle://x")
    yield opened
    opened.close()


@pytest.fixture
def eager(monkeypatch):
    """Compaction and index building start with a handful of rows, and a multi-hash is probed before any scan."""
    monkeypatch.setattr(faiss_collection, "_SOME", 20)
    monkeypatch.setattr(faiss_bits, "_PROBE", 0)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("index", INDEXES)
def test_every_index_answers_with_deaths_filters_and_rows_beside_it(backend, oracle, eager, monkeypatch, index, order):
    monkeypatch.setattr(faiss_collection, "_SOME", 10**9)  # no upkeep: what lies beside the index stays there
    codes = codes_of(300)
    ids = np.random.default_rng(1).permutation(300) if order == "ids in any order" else np.arange(300) * 3
    for one in (backend, oracle):
        one.create(SPEC)
        one.upsert("c", ids[:250], codes[:250], [{"n": n % 100} for n in range(250)])
        if one is backend:
            one.build_index("c", IndexSpec.parse(index))
        one.upsert("c", ids[250:], codes[250:], [{"n": n % 100} for n in range(250, 300)])
        for row in (200, 3, 260) if order == "a few are replaced" else ():
            one.upsert("c", ids[[row]], codes[[row]], [{"n": row % 100}])
    assert (backend._get("c")._state.order is None) == (order == "ids ascend")
    for dead in ([], ids[[0, 100, 299, 57]]):
        for one in (backend, oracle):
            one.delete("c", np.array(dead, np.int64))
        for bound in (None, 0, 1, 20, 60, 100):
            where = F("n") < bound if bound is not None else None
            for queries, k in ((codes[:1], 7), (codes[:3] ^ np.uint8(5), 400), (codes_of(9, seed=2), 25)):
                found = backend.search("c", queries, k, where, THOROUGH)
                exact = oracle.search("c", queries, k, where)
                if index.startswith(("flat", "multihash")):
                    same(found, exact)
                elif index.startswith("ivf"):  # all lists are searched, so only ties at the end are open
                    np.testing.assert_array_equal(found.distances, exact.distances)
                else:
                    assert np.count_nonzero(found.distances == exact.distances) >= 0.95 * exact.distances.size


@pytest.mark.parametrize("order", ORDERS)
def test_a_filter_that_leaves_out_the_nearest_is_answered_exactly(backend, oracle, order, monkeypatch):
    """At first more rows are asked for than k, untested; here none of them may pass."""
    if order == "a few are replaced":  # which never takes a second pass over all rows
        monkeypatch.setattr(faiss_bits, "_closer", None)
    codes = np.random.default_rng(0).integers(0, 256, (4_000, BITS // 8), dtype=np.uint8)
    codes[:1_000] = codes[0] ^ np.random.default_rng(1).integers(0, 4, (1_000, BITS // 8), dtype=np.uint8)
    ids = np.random.default_rng(1).permutation(4_000) if order == "ids in any order" else np.arange(4_000)
    for one in (backend, oracle):
        one.create(SPEC)
        one.upsert("c", ids, codes, [{"n": n} for n in range(4_000)])
        for row in (950, 3_000, 1_001) if order == "a few are replaced" else ():
            one.upsert("c", ids[[row]], codes[[row]], [{"n": row}])
    for where in (F("n") >= 1_000, F("n") >= 900, F("n") != 0):
        for queries in (codes[:1], codes[[0, 2_000, 3_000]]):
            same(backend.search("c", queries, 10, where), oracle.search("c", queries, 10, where))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_scan_on_several_cores_breaks_ties_as_one_does(backend, oracle, monkeypatch, threads):
    monkeypatch.setattr(faiss_collection.kernel, "_SPLIT", 0)
    monkeypatch.setattr(faiss_collection.kernel, "_THREADS", threads)
    for one in (backend, oracle):
        one.create(SPEC)
        one.upsert("c", np.arange(200), codes_of(200))
    for k in (1, 5, 90, 300):
        same(backend.search("c", codes_of(2, seed=3), k), oracle.search("c", codes_of(2, seed=3), k))


@pytest.mark.parametrize("room", [0, 60_000], ids=["a heap", "a few queries at a time"])
@pytest.mark.parametrize("where", [None, F("n") < 150])
def test_the_nearest_are_the_same_however_they_are_kept(backend, oracle, monkeypatch, room, where):
    """By how many there are at each distance, which takes room, for some queries at a time, or by a heap."""
    monkeypatch.setattr(faiss_bits, "_COUNTED", room)
    codes, ids = codes_of(300), np.arange(300) * 7 % 300
    for side in (backend, oracle):
        side.create(SPEC)
        side.upsert("c", ids, codes, [{"n": int(n)} for n in ids])
    same(backend.search("c", codes[:50], 12, where), oracle.search("c", codes[:50], 12, where))


@pytest.mark.parametrize("seed", [0, 1])
def test_two_connections_stay_in_step_through_any_order_of_writes(url, oracle, eager, seed):
    ours = [open_backend(url), open_backend(url)]
    chance, ids, codes = random.Random(seed), 5 + 3 * np.arange(120), codes_of(120)
    for one in (ours[0], oracle):
        one.create(SPEC)
    for step in range(10):
        rows = np.array(chance.sample(range(120), chance.randint(1, 40)))
        action = chance.choice(("upsert", "upsert", "upsert", "delete", "update", "build"))
        for one in (ours[step % 2], oracle):
            if action == "upsert":
                one.upsert("c", ids[rows], codes[rows] ^ np.uint8(step), [{"n": step} for _ in rows])
            elif action == "delete":
                one.delete("c", ids[rows])
            elif action == "update":
                one.update_columns("c", ids[rows], [{"n": -step} for _ in rows])
            elif one is not oracle:
                one.build_index("c", IndexSpec.parse(chance.choice(("flat", "multihash(tables=2)"))))
        for one in ours:
            assert one.count("c") == oracle.count("c")
            for where in (None, F("n") < 0, F("n") >= step - 3):
                same(one.search("c", codes[:4], 30, where), oracle.search("c", codes[:4], 30, where))
    for one in ours:
        one.close()


def test_a_compaction_gives_the_space_back_and_the_index_follows(backend, eager, tmp_path, caplog):
    backend.create(CollectionSpec("c", BITS, "hamming", "binary", IndexSpec.parse("multihash(tables=2)")))
    backend.upsert("c", np.arange(1_000), codes_of(1_000))
    for start in range(0, 500, 100):
        backend.delete("c", np.arange(start, start + 100))
    settle(backend)
    backend.build_index("c", IndexSpec.parse("multihash(tables=2)"))
    there = tmp_path / "faiss" / "c"
    assert [path.stat().st_size for path in there.glob("vectors-*.u8")] == [500 * BITS // 8]
    assert backend._get("c")._state.covered == 500
    assert sorted(i for page in backend.scan_ids("c") for i in page.tolist()) == list(range(500, 1_000))
    again = open_backend(backend.url)
    assert again.search("c", codes_of(1_000)[700:701], 1).distances.tolist() == [[0.0]]
    again.close()
    (index,) = there.glob("index-*.faiss")
    os.truncate(index, 20)
    broken = open_backend(backend.url)
    assert broken.search("c", codes_of(1_000)[700:701], 1).distances.tolist() == [[0.0]]
    assert "build it again" in caplog.text
    broken.close()


def test_a_multihash_gives_all_its_rows_though_one_is_out_of_order(backend, oracle):
    codes = codes_of(40)
    for one in (backend, oracle):
        one.create(SPEC)
        one.upsert("c", np.array([*range(1, 40), 0]), codes)
        one.build_index("c", IndexSpec.parse("multihash(tables=2)" if one is backend else "flat"))
        one.delete("c", np.array([7]))
    for k in (39, 40, 41, 100):
        same(backend.search("c", codes[:5], k), oracle.search("c", codes[:5], k))


def test_a_multihash_is_asked_by_several_threads_at_once(backend, eager):
    """How far it is probed lies in the index itself."""
    codes = np.random.default_rng(0).integers(0, 256, (3_000, 8), dtype=np.uint8)
    backend.create(CollectionSpec("c", 64, "hamming", "binary"))
    backend.upsert("c", np.arange(3_000), codes)
    queries = [codes[5:6], codes[6:7] ^ np.uint8(1), ~codes[7:8]]
    exact = [backend.search("c", query, 5) for query in queries]
    backend.build_index("c", IndexSpec.parse("multihash(tables=8)"))
    wrong = []

    def ask(number):
        for _ in range(10):
            found = backend.search("c", queries[number % 3], 5)
            if found.ids.tolist() != exact[number % 3].ids.tolist():
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_searches_of_a_multihash_run_side_by_side_and_none_is_looked_up_less_than_it_asks():
    index, probing = SimpleNamespace(nflip=0), faiss_bits._Probing()
    together = threading.Barrier(3)
    seen = {}

    def probe(flips):
        with probing.up_to(index, flips):
            together.wait(10)  # passed by all three at once, or by none
            seen[flips] = index.nflip
            together.wait(10)

    threads = [threading.Thread(target=probe, args=(flips,)) for flips in (2, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {0: 2, 1: 2, 2: 2}
    with probing.up_to(index, 1):
        assert index.nflip == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("multihash(hashes=2)", "no option 'hashes'; known: tables"),
        ("multihash(tables=0.5)", "not a whole number"),
        ("ivf(nlist=-1)", "not a whole number"),
    ],
)
def test_a_bad_parameter_of_an_index_of_codes_is_named(backend, text, message):
    backend.create(SPEC)
    with pytest.raises(ConfigError, match=message):
        backend.build_index("c", IndexSpec.parse(text))
