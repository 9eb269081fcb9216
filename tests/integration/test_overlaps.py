"""Two processes write to one collection at once: whatever falls between the steps of whom, nothing is lost or mixed."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

import embedkit
from embedkit.errors import StoreError
from tests.conftest import read_table, write_table

pytestmark = pytest.mark.usefixtures("plain")

TITLES = {"title": "plain"}
WAIT = 0.3  # seconds: far more than what is done beside takes, if nothing holds it up


@pytest.fixture
def other(tmp_path, faiss_url):
    """The collection `products` as another process has it open."""
    with embedkit.connect(backend=faiss_url, home=tmp_path / "home") as kit:
        yield kit.collection("products")


@pytest.fixture
def titles(tmp_path):
    """Writes a catalog of titles by key."""

    def write(name, **titles):
        path = tmp_path / name
        path.write_text("".join(json.dumps({"key": key, "title": title}) + "\n" for key, title in titles.items()))
        return path

    return write


@pytest.fixture
def five(products, other, titles):
    """Five products; where their catalog is."""
    path = titles("five.jsonl", **{f"k{number}": f"title {number}" for number in range(5)})
    products.ingest(path, encoder=TITLES)
    other.count()
    return path


@pytest.fixture
def at(monkeypatch):
    """``at(owner, name, work)``: `work` is done when the method is called for the first time, before it or after it."""

    def hook(owner, name, work, *, after=False):
        real, done = getattr(owner, name), []

        def hooked(*positional, **named):
            first = not done
            done.append(True)
            if first and not after:
                work()
            answer = real(*positional, **named)
            if first and after:
                work()
            return answer

        monkeypatch.setattr(owner, name, hooked)

    return hook


@pytest.fixture
def beside():
    """``beside(work)()`` begins some work and waits for its end, though not for ever: it may be held up till later."""
    with ThreadPoolExecutor(1) as pool:
        begun = []

        def begin(work):
            def start():
                begun.append(pool.submit(work))
                wait(begun, WAIT)

            return start

        begin.end = lambda: begun[0].result()
        yield begin


def test_a_repair_leaves_alone_what_an_ingest_commits_meanwhile(products, other, five, titles, at, beside):
    more = titles("more.jsonl", n0="new 0", n1="new 1")
    at(other._resources.backend, "scan_ids", beside(lambda: products.ingest(more)))
    other.verify(repair=True)
    beside.end()
    assert products.verify().ok
    assert products.search(text="new 1", k=1)[0].key == "n1"


def test_a_delete_waits_for_the_end_of_a_write(products, other, five, titles, at, beside):
    at(products._resources.backend, "upsert", beside(lambda: other.delete("k1")))
    products.ingest(titles("new.jsonl", k1="another title"))
    beside.end()
    assert products.verify().ok
    assert {hit.key for hit in products.search(text="title", k=5)} == {"k0", "k2", "k3", "k4"}
    assert products.count() == 4


def test_a_product_that_comes_back_while_it_is_deleted_keeps_its_vector(products, other, five, at):
    marked, written = threading.Event(), threading.Event()

    def hold():
        marked.set()
        written.wait(WAIT)

    at(other._resources.backend, "delete", hold)
    deletion = threading.Thread(target=other.delete, args=("k1",))

    def delete():
        deletion.start()
        marked.wait()

    at(products._resources.store, "known", delete)
    products.ingest(five)
    written.set()
    deletion.join()
    assert products.get("k1").title == "title 1"
    assert products.search(text="title 1", k=1)[0].key == "k1"
    assert products.verify().ok


def test_of_two_that_write_a_product_one_wins_on_both_sides(products, other, five, titles, at, beside):
    at(products._resources.backend, "upsert", beside(lambda: other.ingest(titles("b.jsonl", k1="zzzz"))), after=True)
    products.ingest(titles("a.jsonl", k1="aaaa"))
    beside.end()
    best = products.search(text=products.get("k1").title, k=1)[0]
    assert best.key == "k1"
    assert best.score == pytest.approx(1, abs=1e-5)


def test_columns_are_those_of_the_last_who_wrote_the_product(products, other, catalog, at):
    """After it was compared with the store, the other one changes its price, which this one does not mean to write."""
    row = read_table(catalog)[3]
    write_table(catalog, [row])
    products.ingest(catalog, encoder={"image": "plain", "title": "plain"})

    def change():
        write_table(catalog, [{**row, "price": 999}])
        assert other.ingest(catalog).updated == 1

    table = catalog / "mine.jsonl"
    table.write_text(json.dumps({**row, "image": "img/04.png"}))
    at(products._resources.store, "known", change, after=True)
    assert products.ingest(table).encoded == 1
    assert products.get(row["key"]).attributes["price"] == row["price"]
    for question in ({"image": catalog / "img" / "04.png"}, {"text": row["title"]}):
        assert products.search(**question, where=f"price == {row['price']}", k=1), question
        assert not products.search(**question, where="price == 999", k=1), question


def test_what_is_deleted_after_it_was_compared_stays_deleted(products, other, five, titles, at):
    changed = titles("changed.jsonl", k0="title 0", k1="another title")
    changed.write_text(changed.read_text() + json.dumps({"key": "k2", "title": "title 2", "price": 9}))
    at(products._resources.store, "known", lambda: other.delete(["k1", "k2"]), after=True)
    report = products.ingest(changed)
    assert (report.encoded, report.updated, report.skipped) == (0, 0, 3)
    assert products.count() == 3
    assert products.verify().ok
    assert products.ingest(changed).encoded == 2


def test_overlapping_ingests_of_one_catalog_have_a_run_each(products, other, five, titles, at):
    more = titles("more.jsonl", **{f"n{number}": f"new {number}" for number in range(5)})
    reports = []
    at(products._resources.store, "known", lambda: reports.append(other.ingest(more)))
    reports.append(products.ingest(more))
    assert [(one.seen, one.encoded, one.skipped, one.failed) for one in reports] == [(5, 5, 0, 0), (5, 0, 5, 0)]
    assert products.failures() == []
    assert not any(one.warnings for one in reports)


def test_an_older_run_does_not_prune_what_a_newer_one_has_seen(products, other, five, titles, at):
    newer = titles("newer.jsonl", k0="title 0", n0="new 0")
    at(products._resources.store, "known", lambda: other.ingest(newer))
    assert products.ingest(titles("older.jsonl", k0="title 0", k1="title 1"), prune=True).deleted == 3
    assert {hit.key for hit in products.search(text="title", k=9)} == {"k0", "k1", "n0"}
    assert products.verify().ok


def test_a_run_that_goes_on_knows_what_could_not_be_read_before(products, titles, tmp_path, monkeypatch):
    """A row that was broken before the interruption may be that of any product."""
    products.ingest(titles("before.jsonl", k5="title 5"), encoder=TITLES)
    table = tmp_path / "table.csv"
    lines = ["key,title", *(f"k{number},title {number}" for number in range(80))]
    lines[6] += ",surplus"
    table.write_text("\n".join(lines))
    store = products._resources.store
    real, commits = store.commit, []

    def commit(*positional, **named):
        commits.append(named["offset"])
        if len(commits) == 2:
            raise StoreError("The disk is gone.")
        real(*positional, **named)

    with monkeypatch.context() as patch:
        patch.setattr(store, "commit", commit)
        with pytest.raises(StoreError, match="gone"):
            products.ingest(table, prune=True)
    report = products.ingest(table, prune=True)
    assert 0 < report.seen < 80
    assert (report.failed, report.deleted) == (0, 0)
    assert any("Nothing was pruned: 1 of its rows could not be read" in told for told in report.warnings)
    assert products.get("k5")
