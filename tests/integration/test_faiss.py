"""The files of the FAISS backend: seen by every process, compacted behind one's back, never half-written."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import embedkit
from embedkit.backends.contract import CollectionSpec, IndexSpec, SearchParams
from embedkit.backends.faiss import collection as faiss_collection
from embedkit.backends.faiss import indexes as faiss_indexes
from embedkit.backends.faiss.errors import translated
from embedkit.backends.open import open_backend
from embedkit.errors import (
    BackendUnavailable,
    CollectionExists,
    CollectionNotFound,
    ConfigError,
    DataCorrupt,
    DiskFull,
    EmbedkitError,
)
from embedkit.filters import F
from embedkit.testing.compare import assert_same_answer

DIM = 16


def vectors_of(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


@pytest.fixture
def eager(monkeypatch):
    """Compaction and index building start with a handful of rows."""
    monkeypatch.setattr(faiss_collection, "_SOME", 20)


def settle(backend, name="c"):
    """Wait until no upkeep is under way."""
    deadline = time.monotonic() + 30
    while backend._get(name)._upkeep and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("seed", range(3))
def test_two_connections_stay_in_step_through_any_order_of_writes(url, eager, seed):
    """Each writes in turn, with compactions and index builds between; after every step both answer like the oracle."""
    ours, oracle = [open_backend(url), open_backend(url)], open_backend("oracle://x")
    chance, ids, vectors = random.Random(seed), 5 + 3 * np.arange(120), vectors_of(120)
    for one in (ours[0], oracle):
        one.create(CollectionSpec("c", DIM))
    for step in range(40):
        rows = np.array(chance.sample(range(120), chance.randint(1, 40)))
        action = chance.choice(("upsert", "upsert", "upsert", "delete", "update", "build"))
        for one in (ours[step % 2], oracle):
            if action == "upsert":
                one.upsert("c", ids[rows], vectors[rows] + np.float32(step / 9), [{"n": step} for _ in rows])
            elif action == "delete":
                one.delete("c", ids[rows])
            elif action == "update":
                one.update_columns("c", ids[rows], [{"n": -step} for _ in rows])
            elif one is not oracle:
                one.build_index("c", IndexSpec.parse(chance.choice(("flat", "ivf(nlist=2)"))))
        for one in ours:
            assert one.count("c") == oracle.count("c")
            for where in (None, F("n") < 0, F("n") >= step - 3):
                found = one.search("c", vectors[:4], 30, where, SearchParams(nprobe=2))
                assert_same_answer(found, oracle.search("c", vectors[:4], 30, where))
    for one in (*ours, oracle):
        one.close()


def test_a_collection_that_another_process_makes_after_it_was_looked_for_is_there_already(
    url, backend, tmp_path, monkeypatch
):
    other, spec = open_backend(url), CollectionSpec("c", DIM)

    def meanwhile():
        other.create(spec)
        other.upsert("c", np.arange(3), vectors_of(3))
        return {}

    monkeypatch.setattr(backend, "_aliases", meanwhile)  # the last step of the look
    with pytest.raises(CollectionExists, match="'c'"):
        backend.create(spec)
    monkeypatch.undo()
    assert backend.count("c") == 3
    assert [path.name for path in (tmp_path / "faiss").iterdir()] == ["c"]
    other.close()


def test_a_compaction_gives_the_space_back_and_no_search_notices(backend, eager, tmp_path):
    backend.create(CollectionSpec("c", DIM, "l2"))
    ids, vectors = np.arange(4_000), vectors_of(4_000)
    backend.upsert("c", ids, vectors)
    backend.build_index("c", IndexSpec.parse("hnsw(m=16)"))
    wrong, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            found = backend.search("c", vectors[3_000:3_010], 1).ids[:, 0].tolist()
            if found != list(range(3_000, 3_010)):
                wrong.append(found)

    asking = threading.Thread(target=ask)
    asking.start()
    for start in range(0, 2_000, 200):
        backend.delete("c", ids[start : start + 200])
        backend.upsert("c", ids[start : start + 20], vectors[start : start + 20] + 9)
    settle(backend)
    stop.set()
    asking.join()
    backend.build_index("c", IndexSpec.parse("hnsw(m=16)"))
    assert wrong == []
    assert backend.count("c") == 2_200
    files = {path.name.partition("-")[0]: path for path in (tmp_path / "faiss" / "c").glob("*-*") if path.is_file()}
    assert files["vectors"].stat().st_size == 2_200 * DIM * 4
    assert files["ids"].stat().st_size == 2_200 * 8
    assert sorted(i for page in backend.scan_ids("c", 100) for i in page.tolist()) == [
        *(i for start in range(0, 2_000, 200) for i in range(start, start + 20)),
        *range(2_000, 4_000),
    ]


def test_writes_during_a_compaction_are_carried_over(backend, monkeypatch):
    """The copy is held up; meanwhile rows come, go and are replaced."""
    backend.create(CollectionSpec("c", DIM, "l2"))
    vectors = vectors_of(400)
    backend.upsert("c", np.arange(300), vectors[:300])
    backend.delete("c", np.arange(0, 300, 3))
    there, copying, go_on = backend._get("c"), threading.Event(), threading.Event()
    copy = faiss_collection.Generation.copy

    def slow_copy(self, *arguments):
        copy(self, *arguments)
        copying.set()
        assert go_on.wait(10)

    monkeypatch.setattr(faiss_collection.Generation, "copy", slow_copy)
    building = threading.Thread(target=there.build_index, args=(IndexSpec("flat"),))
    building.start()
    assert copying.wait(10)
    backend.upsert("c", np.arange(300, 400), vectors[300:])
    backend.delete("c", np.array([1, 2, 301]))
    backend.upsert("c", np.array([4]), vectors[:1])
    go_on.set()
    building.join()
    left = sorted({*range(400)} - {*range(0, 300, 3)} - {1, 2, 301})
    assert sorted(i for page in backend.scan_ids("c") for i in page.tolist()) == left
    assert backend.search("c", vectors[:1], 1).ids.tolist() == [[4]]
    assert backend.search("c", vectors[302:303], 1).ids.tolist() == [[302]]
    assert backend._get("c")._state.generation == 1


def test_a_process_killed_while_it_compacts_and_builds_loses_nothing(url, tmp_path):
    code = f"""
import numpy as np
from embedkit.backends.contract import IndexSpec
from embedkit.backends.faiss import collection
from embedkit.backends.open import open_backend
collection._SOME = 50
backend = open_backend({url!r})
vectors = np.random.default_rng(0).standard_normal((3000, {DIM})).astype(np.float32)
print("ready", flush=True)
while True:
    backend.upsert("c", np.arange(1000), vectors[:1000])
    backend.build_index("c", IndexSpec.parse("ivf(nlist=8)"))
"""
    first = open_backend(url)
    first.create(CollectionSpec("c", DIM, "l2"))
    first.upsert("c", np.arange(3_000), vectors_of(3_000), [{"n": n} for n in range(3_000)])
    first.close()
    chance = random.Random(1)
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0.01, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        again = open_backend(url)
        assert sorted(i for page in again.scan_ids("c") for i in page.tolist()) == list(range(3_000))
        found = again.search("c", vectors_of(3_000)[::100], 1, params=SearchParams(nprobe=8)).ids[:, 0]
        assert found.tolist() == list(range(0, 3_000, 100))
        again.close()


def test_an_index_keeps_up_with_what_is_written(backend, eager):
    backend.create(CollectionSpec("c", DIM, "l2", index=IndexSpec.parse("hnsw(m=8)")))
    vectors = vectors_of(2_000)
    for start in range(0, 2_000, 100):
        backend.upsert("c", np.arange(start, start + 100), vectors[start : start + 100])
    settle(backend)
    assert backend.describe("c").index == IndexSpec.parse("hnsw(m=8)")
    assert backend._get("c")._state.covered >= 1_000
    found = backend.search("c", vectors[::20], 1, params=SearchParams(ef=200)).ids[:, 0]
    assert np.mean(found == np.arange(0, 2_000, 20)) > 0.97


@pytest.mark.parametrize(("end", "error"), [("close", BackendUnavailable), ("drop", CollectionNotFound)])
def test_a_search_that_meets_the_end_is_not_told_to_delete_anything(backend, end, error):
    backend.create(CollectionSpec("c", DIM))
    backend.upsert("c", np.arange(50), vectors_of(50))
    there, met, started = backend._get("c"), [], threading.Barrier(4)

    def ask():
        backend.search("c", vectors_of(1), 3)
        started.wait()
        while not met:
            try:
                there.search(vectors_of(1), 3, None, None)
            except EmbedkitError as told:
                met.append(told)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    started.wait()
    backend.close() if end == "close" else backend.drop("c")
    for thread in asking:
        thread.join()
    assert {type(told) for told in met} == {error}
    with pytest.raises(error):
        backend.search("c", vectors_of(1), 3)
    for call in (there.flush, there.count, lambda: there.delete(np.array([1]))):
        with pytest.raises(error):
            call()


def test_a_collection_that_another_process_makes_anew_is_read_anew(backend, url):
    backend.create(CollectionSpec("c", DIM))
    backend.upsert("c", np.arange(3), vectors_of(3))
    assert backend.count("c") == 3
    other = open_backend(url)
    other.drop("c")
    other.create(CollectionSpec("c", 8, "l2"))
    other.upsert("c", np.array([7]), np.ones((1, 8), np.float32))
    other.close()
    assert backend.search("c", np.ones((1, 8), np.float32), 5).ids.tolist() == [[7]]
    assert backend.describe("c") == CollectionSpec("c", 8, "l2")


def test_what_kills_leave_of_folders_is_swept_out(url, tmp_path):
    """One after the move that drops a collection, and one before the move that makes it."""
    code = f"""
import os, signal, shutil
from embedkit.backends.contract import CollectionSpec
from embedkit.backends.open import open_backend
backend = open_backend({url!r})
for name in ("kept", "dropped"):
    backend.create(CollectionSpec(name, {DIM}))
shutil.rmtree = lambda *args, **kwargs: None
backend.drop("dropped")
os.replace = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
backend.create(CollectionSpec("c", {DIM}))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    place = tmp_path / "faiss"
    dropped, draft = sorted(place.glob(".*"), key=lambda path: path.suffix)
    assert (dropped / "rows.sqlite").is_file()
    assert (draft / "rows.sqlite").is_file()
    open_backend(url).close()
    assert [path.name for path in place.glob(".*")] == [draft.name], "which another process may be about to move"
    os.utime(draft, (0, 0))
    backend = open_backend(url)
    assert [path.name for path in place.iterdir()] == ["kept"]
    assert backend.list() == ("kept",)
    backend.close()


def test_bytes_behind_the_last_committed_row_do_not_count(backend, tmp_path):
    """What a crash between the write of the vectors and the commit leaves behind."""
    backend.create(CollectionSpec("c", DIM, "l2"))
    backend.upsert("c", np.arange(3), vectors_of(3))
    for name in ("vectors-0.f32", "ids-0.i64"):
        with (tmp_path / "faiss" / "c" / name).open("ab") as file:
            file.write(os.urandom(37))
    backend.upsert("c", np.array([9]), vectors_of(1, seed=5))
    assert backend.count("c") == 4
    assert backend.search("c", vectors_of(1, seed=5), 1).ids.tolist() == [[9]]


def test_a_layout_of_another_version_is_refused(backend, url, tmp_path):
    import sqlite3

    backend.create(CollectionSpec("c", DIM))
    with sqlite3.connect(tmp_path / "faiss" / "c" / "rows.sqlite") as rows:
        rows.execute("UPDATE meta SET value = '99' WHERE name = 'layout'")
    rows.close()
    other = open_backend(url)
    with pytest.raises(DataCorrupt, match="layout 99"):
        other.count("c")
    other.close()


@pytest.mark.parametrize("file", ["vectors-0.f32", "ids-0.i64", "rows.sqlite"])
@pytest.mark.parametrize("harm", ["remove", "cut"])
def test_broken_files_are_told_and_the_advice_brings_everything_back(tmp_path, catalog, plain, file, harm):
    with embedkit.connect(backend=f"faiss:///{tmp_path}/faiss", home=tmp_path / "home") as kit:
        kit.collection("c").ingest(catalog, encoder={"image": "plain"})
    folder = tmp_path / "faiss" / "c_v1_image"
    if harm == "remove":
        (folder / file).unlink()
    else:
        os.truncate(folder / file, 40)
    with embedkit.connect(backend=f"faiss:///{tmp_path}/faiss", home=tmp_path / "home") as kit:
        products = kit.collection("c")
        asked = (
            lambda: products.search(image=catalog / "img" / "05.png"),
            products.verify,
            lambda: products.verify(repair=True),
            lambda: products.ingest(catalog),
        )
        for ask in asked:
            with pytest.raises(DataCorrupt, match=r"c_v1_image: .*delete the folder, run embedkit verify --repair"):
                ask()
        shutil.rmtree(folder)
        assert products.verify(repair=True).views["image"].missing == 24
        assert products.ingest(catalog).encoded == 24
        assert products.verify().ok
        assert products.search(image=catalog / "img" / "05.png")[0].key == "p05"


@pytest.mark.parametrize("harm", ["remove", "cut"])
def test_without_its_index_a_collection_is_searched_exactly_and_can_have_it_built_again(backend, url, caplog, harm):
    vectors, spec = vectors_of(300), IndexSpec.parse("hnsw(m=4)")
    backend.create(CollectionSpec("c", DIM, "l2"))
    backend.upsert("c", np.arange(300), vectors)
    exact = backend.search("c", vectors[::7], 10)
    backend.build_index("c", spec)
    path = backend._get("c").folder / index_file(backend)
    if harm == "remove":
        path.unlink()
    else:
        os.truncate(path, 1_000)
    other = open_backend(url)
    assert_same_answer(other.search("c", vectors[::7], 10), exact)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{path.name}: FAISS cannot read the index; build it again" in caplog.text
    assert (other.index_use("c").covered, other.describe("c").index) == (0, spec)
    other.build_index("c", spec)
    assert (other.index_use("c").covered, other.index_use("c").bytes > 0) == (300, True)
    other.close()


def test_a_disk_without_room_for_an_index_keeps_the_one_there_is(backend):
    backend.create(CollectionSpec("c", DIM, "l2"))
    backend.upsert("c", np.arange(2_000), vectors_of(2_000))
    backend.build_index("c", IndexSpec.parse("ivf(nlist=4) + sq8"))
    folder = backend._get("c").folder
    before, limits = sorted(os.listdir(folder)), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(DiskFull, match=r"The disk of '.*c' is full .*File too large"):
            backend.build_index("c", IndexSpec.parse("hnsw(m=32)"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(os.listdir(folder)) == before
    assert (backend.describe("c").index.shape, backend.index_use("c").covered) == ("ivf + sq8", 2_000)


def test_no_permission_is_no_reason_to_try_again(tmp_path):
    with pytest.raises(ConfigError, match="Permission denied; check who"), translated(tmp_path):
        raise PermissionError(13, "Permission denied", str(tmp_path))


def index_file(backend):
    return backend._get("c")._state.index_file


def test_rows_that_come_later_are_added_to_the_index_and_nothing_is_learned_anew(backend, eager, monkeypatch):
    """Up to four times the rows it was built over; then it is built anew, from all of them."""
    vectors, learned = vectors_of(1_400), []
    build = faiss_collection.FloatKernel.build

    def counted(self, spec, rows):
        learned.append(len(rows))
        return build(self, spec, rows)

    monkeypatch.setattr(faiss_collection.FloatKernel, "build", counted)
    backend.create(CollectionSpec("c", DIM, "l2"))
    backend.upsert("c", np.arange(200), vectors[:200])
    backend.build_index("c", IndexSpec.parse("ivf(nlist=4) + sq8"))
    for start in range(200, 1_400, 100):
        backend.upsert("c", np.arange(start, start + 100), vectors[start : start + 100])
        settle(backend)
        assert backend._get("c")._state.covered >= 0.9 * (start + 100)
    assert learned == [200, 800]
    found = backend.search("c", vectors[::20], 1, params=SearchParams(nprobe=4)).ids[:, 0]
    assert found.tolist() == list(range(0, 1_400, 20))
    assert backend.describe("c").index == IndexSpec.parse("ivf(nlist=4) + sq8")


def test_an_index_waits_until_there_are_rows_enough_to_learn_from(backend, eager):
    vectors = vectors_of(600)
    backend.create(CollectionSpec("c", DIM, "l2", index=IndexSpec.parse("ivf(nlist=300)")))
    backend.upsert("c", np.arange(200), vectors[:200])
    settle(backend)
    assert index_file(backend) == ""
    with pytest.raises(ConfigError, match=r"nlist=300 .* is more than the 200 vectors"):
        backend.build_index("c", IndexSpec.parse("ivf(nlist=300)"))
    backend.upsert("c", np.arange(200, 600), vectors[200:])
    settle(backend)
    assert backend._get("c")._state.covered == 600
    backend.delete("c", np.arange(400))
    settle(backend)
    assert index_file(backend) == ""  # of 200 rows that are left nobody learns 300 lists
    assert backend.search("c", vectors[500:501], 1).ids.tolist() == [[500]]


def test_a_collection_whose_index_cannot_be_is_not_made(backend):
    for text in ("ivf + pq(m=5)", "hnsw(mm=3)", "pq(bits=1)"):
        with pytest.raises(ConfigError):
            backend.create(CollectionSpec("c", DIM, index=IndexSpec.parse(text)))
    assert backend.list() == ()


@pytest.mark.parametrize(
    "text", ["pq4fs(m=8)", "nsg(m=16)", "ivf(nlist=4) + rq(m=3, bits=4)", "hnsw + sq8", "ivf + sq8"]
)
def test_deaths_filters_and_rows_beside_an_index_of_codes(url, backend, text):
    """Also where FAISS takes no filter. Distances are those of the vectors, whatever the codes lose."""
    oracle, vectors = open_backend("oracle://x"), vectors_of(300)
    for one in (backend, oracle):
        one.create(CollectionSpec("c", DIM))
        one.upsert("c", np.arange(250), vectors[:250], [{"n": n % 100} for n in range(250)])
        if one is backend:
            one.build_index("c", IndexSpec.parse(text))
        one.upsert("c", np.arange(250, 300), vectors[250:], [{"n": n % 100} for n in range(250, 300)])
        one.delete("c", np.array([0, 100, 299, 57]))
    thorough = SearchParams(ef=300, nprobe=300, k_factor=60)
    for bound in (0, 1, 20, 90, 100):
        for queries, k in ((vectors[:1], 7), (vectors[:20], 5), (vectors[:2], 300)):
            found = backend.search("c", queries, k, F("n") < bound, thorough)
            right = oracle.search("c", queries, k, F("n") < bound)
            if text == "nsg(m=16)":  # a graph may miss one
                assert (found.ids == right.ids).sum() >= 0.95 * right.ids.size
            else:
                assert_same_answer(found, right)
    oracle.close()


def test_polysemous_codes_pass_over_rows_that_differ_in_many_bits(backend, monkeypatch):
    monkeypatch.setattr(faiss_indexes, "_SWAPS", 2_000)
    vectors = vectors_of(400)
    backend.create(CollectionSpec("c", DIM, "l2"))
    backend.upsert("c", np.arange(400), vectors)
    backend.build_index("c", IndexSpec.parse("polysemous(m=4) + refine(flat)"))
    right = np.argsort(np.square(vectors[:20, None] - vectors).sum(axis=2), axis=1)[:, :10]
    shares = []
    for ht in (4, 12, 33):
        found = backend.search("c", vectors[:20], 10, params=SearchParams(ht=ht, k_factor=10)).ids
        shares.append(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), right.tolist(), strict=True)]))
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.9


@pytest.mark.parametrize("text", ["imi(bits=4)", "opq + imi(bits=4) + pq", "imi(bits=4) + pq4fs"])
def test_a_multi_index_over_rows_of_which_many_are_equal_finds_none_twice(backend, text):
    """FAISS names a cell again where others are as near."""
    vectors = np.repeat(vectors_of(6), 50, axis=0)
    backend.create(CollectionSpec("c", DIM, "l2"))
    backend.upsert("c", np.arange(300), vectors)
    backend.build_index("c", IndexSpec.parse(text))
    for row in backend.search("c", vectors_of(6), 300, params=SearchParams(nprobe=256)).ids.tolist():
        found = [one for one in row if one >= 0]
        assert len(found) == len(set(found)) >= 50
