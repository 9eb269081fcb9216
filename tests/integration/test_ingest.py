"""What an ingest promises: nothing lost, nothing twice, nothing stopped by one bad record."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import re
import shutil
import time

import numpy as np
import pytest
from PIL import Image

import embedkit
import embedkit.views
from embedkit.errors import (
    BackendUnavailable,
    BadInput,
    BadSource,
    CollectionNotFound,
    ConfigError,
    DimensionMismatch,
    EncoderMismatch,
    FilterError,
    ProductNotFound,
)
from tests import killed
from tests.conftest import picture, read_table, write_table
from tests.plain_encoder import PlainEncoder

small = pytest.mark.usefixtures("small_encoders")  # the promise is not about what a picture shows


@pytest.fixture
def small_encoders(plain, monkeypatch):
    monkeypatch.setenv("EMBEDKIT_VIEWS", '{"image": "plain", "title": "plain(seed=1)"}')


def test_a_catalog_becomes_searchable(products, catalog):
    report = products.ingest(catalog)
    assert (report.seen, report.encoded, report.failed) == (24, 24, 0)
    assert products.search(image=catalog / "img" / "05.png")[0].key == "p05"
    assert products.search(text="blue shoe 8")[0].key == "p08"
    best = products.search(product="p05", k=3)
    assert len(best) == 3
    assert "p05" not in [hit.key for hit in best]
    assert all(a.score >= b.score for a, b in itertools.pairwise(best))
    cheap = products.search(text="shoe", where="price < 30 and brand == 'acme'", k=24)
    assert {hit.key for hit in cheap} == {"p00", "p02", "p04"}
    both = products.search(image=catalog / "img" / "05.png", text="blue shoe 8", weights={"image": 1.0, "text": 0.01})
    assert both[0].key == "p05"
    assert products.verify().ok


@small
def test_the_second_run_skips_everything(products, catalog):
    products.ingest(catalog)
    report = products.ingest(catalog)
    assert (report.encoded, report.updated, report.skipped) == (0, 0, 24)


@small
def test_only_what_changed_is_done_again(products, catalog):
    products.ingest(catalog)
    before = products.search(image=catalog / "img" / "03.png", k=1)[0].vector_id
    rows = read_table(catalog)
    rows[3]["price"] = 1_000
    rows[4]["title"] = "a violet hat"
    picture(99).save(catalog / "img" / "05.png")
    write_table(catalog, rows)
    report = products.ingest(catalog)
    assert (report.encoded, report.updated, report.skipped) == (2, 1, 21)
    found = products.search(image=catalog / "img" / "03.png", where="price == 1000")
    assert [hit.key for hit in found] == ["p03"]
    assert found[0].vector_id == before
    assert products.search(text="violet hat", k=1)[0].key == "p04"
    assert products.search(image=picture(99), k=1)[0].key == "p05"
    assert products.count() == 24
    assert products.verify().ok


@small
def test_two_products_with_one_picture_are_two_products(products, catalog):
    shutil.copy(catalog / "img" / "01.png", catalog / "img" / "02.png")
    assert products.ingest(catalog, dry_run=True).duplicates == 2
    report = products.ingest(catalog)
    assert (report.encoded, report.duplicates) == (24, 2)
    assert {hit.key for hit in products.search(image=catalog / "img" / "01.png", k=2)} == {"p01", "p02"}
    assert [keys for _, keys in products.duplicates()] == [("p01", "p02")]


@small
def test_a_run_counts_its_own_products_with_the_same_picture_as_another(products, catalog):
    shutil.copy(catalog / "img" / "01.png", catalog / "img" / "02.png")
    rows = read_table(catalog)
    write_table(catalog, [*rows[:4], {"key": "late", "image": "img/late.png"}])
    assert products.ingest(catalog).duplicates == 2
    shutil.copy(catalog / "img" / "03.png", catalog / "img" / "late.png")
    for dry_run in (True, False):
        assert products.ingest(retry_failed=True, dry_run=dry_run).duplicates == 1
    assert products.status().duplicates == 4


@small
def test_prune_deletes_what_the_catalog_no_longer_holds(products, catalog):
    products.ingest(catalog)
    write_table(catalog, read_table(catalog)[:20])
    assert products.ingest(catalog).deleted == 0
    assert products.ingest(catalog, prune=True).deleted == 4
    assert products.count() == 20
    assert products.verify().ok


@small
def test_a_dry_run_counts_what_prune_would_delete_and_deletes_nothing(products, catalog):
    assert products.ingest(catalog, prune=True, dry_run=True).deleted == 0  # nothing is there
    products.ingest(catalog)
    rows = read_table(catalog)
    assert products.ingest(catalog, prune=True, dry_run=True).deleted == 0
    (catalog / "img" / "03.png").write_bytes(b"broken")  # a product that fails is not gone
    write_table(catalog, [*rows[:17], {"key": "new", "title": "new one"}])
    report = products.ingest(catalog, prune=True, dry_run=True)
    assert (report.failed, report.deleted, report.dry_run) == (1, 7, True)
    assert any(
        "7 of the products would be deleted: 'p17', 'p18', 'p19', 'p20', 'p21', …." in told for told in report.warnings
    )
    assert products.count() == 24
    limited = products.ingest(catalog, prune=True, dry_run=True, limit=3)
    assert limited.deleted == 0
    assert any("--limit left records out" in told for told in limited.warnings)
    assert products.ingest(catalog, prune=True).deleted == 7


@small
def test_delete_by_key_and_by_filter(products, catalog):
    products.ingest(catalog)
    assert products.delete(["p01", "p02", "nothing"]) == 2
    assert products.delete(where="brand == 'zeta'") == 11
    assert products.count() == products.count(where="brand == 'acme'") == 11
    with pytest.raises(ProductNotFound, match="p01"):
        products.get("p01")
    assert products.verify().ok
    assert products.ingest(catalog).encoded == 13


BAD = {
    "zero.png": b"",
    "text.jpg": b"this is no picture",
    "page.png": b"<html></html>",
}


def test_bad_records_become_failures_and_stop_nothing(products, catalog):
    rows = read_table(catalog)
    for name, data in BAD.items():
        (catalog / "img" / name).write_bytes(data)
        rows.append({"key": name, "image": f"img/{name}", "title": "x"})
    good = (catalog / "img" / "01.png").read_bytes()
    (catalog / "img" / "cut.png").write_bytes(good[: len(good) // 2])
    Image.new("1", (30_000, 30_000)).save(catalog / "img" / "bomb.png")
    rows += [
        {"key": "cut", "image": "img/cut.png"},
        {"key": "bomb", "image": "img/bomb.png"},
        {"key": "gone", "image": "img/gone.png"},
        {"key": "folder", "image": "img"},
        {"key": "p00", "image": "img/01.png", "title": "the same key again"},
        {"key": "large", "image": "img/01.png", "blob": "x" * 10_000_000},
        {"key": "", "image": "img/01.png"},
        {"key": "neither"},
        {"key": "nan", "image": "img/02.png", "price": float("nan")},
    ]
    write_table(catalog, rows)
    with (catalog / "products.jsonl").open("a") as table:
        table.write("{broken json\n[1, 2]\n")
    report = products.ingest(catalog)
    assert report.encoded == 25
    assert report.failed == len(rows) - 25 + 2
    why = {row.key: row.error for row in products.failures()}
    for key, reason in {
        "zero.png": "empty",
        "text.jpg": "known format",
        "page.png": "web page",
        "cut": "truncated|cannot be decoded",
        "bomb": "too many pixels",
        "gone": "no such file",
        "folder": "directory",
        "p00": "came before",
        "large": "10,0",
        "neither": "neither a picture nor a title",
    }.items():
        assert re.search(reason, why[key]), (key, why[key])
    assert products.get("nan").attributes["price"] is None
    assert products.get("p00").title == "red shoe 0"
    assert products.verify().ok


@small
def test_mended_records_are_tried_again(products, catalog):
    (catalog / "img" / "03.png").write_bytes(b"broken")
    assert products.ingest(catalog).failed == 1
    picture(3).save(catalog / "img" / "03.png")
    report = products.ingest(retry_failed=True)
    assert (report.encoded, report.failed) == (1, 0)
    assert products.failures() == []
    assert products.count() == 24


@small
def test_what_was_mended_or_is_gone_is_no_failure_any_more(products, catalog):
    def failed(*rows, **options):
        write_table(catalog, rows)
        products.ingest(catalog, **options)
        return [row.key for row in products.failures()]

    shoe, hat, without = {"key": "a", "title": "shoe"}, {"key": "b", "title": "hat"}, {"key": "", "title": "hat"}
    lost = [{"key": f"lost{number}", "image": "img/lost.png"} for number in range(2)]
    of_rows = ["products.jsonl row 2", "products.jsonl row 5"]
    assert failed(shoe, without, *lost, without) == ["lost0", "lost1", *of_rows]
    assert failed(shoe, hat, *lost, without) == ["lost0", "lost1", of_rows[1]]
    assert products.delete("lost0") == 0
    assert failed(shoe, hat) == ["lost1", of_rows[1]]  # another catalog may hold them
    assert failed(shoe, {"key": "c", "image": "img/lost.png"}, prune=True) == ["c"]
    assert products.ingest(retry_failed=True).seen == 1


@small
def test_a_product_whose_new_picture_is_broken_keeps_its_old_one(products, catalog):
    products.ingest(catalog)
    (catalog / "img" / "03.png").write_bytes(b"broken")
    report = products.ingest(catalog, prune=True)
    assert (report.failed, report.deleted) == (1, 0)
    assert products.search(image=picture(3), k=1)[0].key == "p03"


def test_a_folder_of_pictures_needs_no_table(products, tmp_path):
    folder = tmp_path / "pictures"
    (folder / "shoes" / "red").mkdir(parents=True)
    for number in range(3):
        picture(number).save(folder / "shoes" / "red" / f"canvas_shoe-{number}.jpg")
    (folder / "shoes" / "red" / "canvas_shoe-1.json").write_text('{"title": "Golden boot", "price": 12}')
    (folder / "shoes" / "loop").symlink_to("..")
    (folder / "locked").mkdir()
    bad_name = os.fsencode(folder) + b"/b\xffd.jpg"
    with open(bad_name, "wb") as file:
        file.write((folder / "shoes" / "red" / "canvas_shoe-0.jpg").read_bytes())
    report = products.ingest(folder)
    assert (report.encoded, report.failed) == (3, 2)
    assert products.search(text="golden boot", where="category == 'shoes/red' and price == 12", k=1)[0].score > 0.99
    reasons = " ".join(row.error for row in products.failures())
    assert "UTF-8" in reasons
    assert "contains itself" in reasons


@small
def test_a_dry_run_writes_nothing(products, catalog):
    (catalog / "img" / "03.png").write_bytes(b"broken")
    report = products.ingest(catalog, dry_run=True)
    assert (report.seen, report.failed, report.dry_run) == (24, 1, True)
    with pytest.raises(CollectionNotFound):
        products.count()


def test_the_caller_is_told_what_is_wrong(products, catalog, tmp_path):
    with pytest.raises(BadSource, match="nowhere"):
        products.ingest(tmp_path / "nowhere")
    with pytest.raises(BadSource, match="--map image="):
        products.ingest(catalog / "products.jsonl", map={"image": "photo"})
    with pytest.raises(ConfigError, match="image"):
        products.ingest(catalog, map={"imgae": "img"})
    products.ingest(catalog)
    with pytest.raises(DimensionMismatch, match="1280"):
        products.search(vector=np.ones(7))
    with pytest.raises(FilterError):
        products.search(text="x", where="price <")
    with pytest.raises(EncoderMismatch, match="effnet-lite0"):
        products.ingest(catalog, encoder={"image": "effnet-lite0(size=128)", "title": "minilm"})


@small
def test_the_disk_fills_and_nothing_is_lost(products, catalog, monkeypatch):
    """The write of the vectors fails as the system call does on a full disk; the next run goes on."""
    import errno

    from embedkit.errors import DiskFull

    products.ingest(catalog, limit=10)
    real, calls = os.pwrite, []

    def full(handle, data, at):
        calls.append(at)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(DiskFull, match="free some space"):
            products.ingest(catalog)
    assert calls
    assert os.pwrite is real
    products.ingest(catalog)
    assert products.count() == 24
    assert products.verify().ok


KILLED = [
    ("embedkit.metadata.products:Products.begin", 3),
    ("embedkit.backends.faiss.backend:FaissBackend.upsert", 4),  # of the second view: the first has its vectors
    ("embedkit.backends.faiss.rows:RowFile.insert", 5),  # the vectors lie in their file, and do not count yet
    ("embedkit.metadata.products:Products.commit", 2),
    ("embedkit.metadata.products:remember", 2),  # within the last transaction
    ("embedkit.metadata.runs:Runs.finish_run", 1),
]


def test_an_ingest_that_is_killed_again_and_again_ends_like_one_that_was_not(tmp_path, faiss_url, plain, monkeypatch):
    """kill -9 between all of its steps; then one run to the end gives the state of an unbroken run."""
    monkeypatch.setenv("EMBEDKIT_INGEST__BATCH_SIZE", "4")
    folder, home = tmp_path / "many", tmp_path / "home"
    folder.mkdir()
    for number in range(60):
        picture(number).save(folder / f"{number:03}.png")
    wanted = {"source": str(folder), "encoder": {"image": "plain", "title": "plain(seed=1)"}}
    for point, calls in KILLED:
        assert not killed.run(faiss_url, home, "ingest", wanted, point=point, calls=calls), point
    assert killed.run(faiss_url, home, "ingest", wanted)
    with embedkit.connect(backend=faiss_url, home=home) as kit:
        there = kit.collection("products")
        report = there.verify()
        assert report.ok, report
        assert there.count() == 60
        assert {view: check.count for view, check in report.views.items()} == {"image": 60, "title": 60}
        for number in (0, 31, 59):
            assert there.search(image=folder / f"{number:03}.png", k=1)[0].key == f"{number:03}.png"


@small
def test_a_collection_that_another_process_makes_meanwhile_is_used(products, catalog, tmp_path, faiss_url, monkeypatch):
    made = embedkit.views.ensure_physical

    def late(resources, wanted, row):
        monkeypatch.setattr(embedkit.views, "ensure_physical", made)
        with embedkit.connect(backend=faiss_url, home=tmp_path / "home") as other:
            other.collection("products").ingest(catalog)
        made(resources, wanted, row)

    monkeypatch.setattr(embedkit.views, "ensure_physical", late)
    report = products.ingest(catalog)
    assert (report.failed, report.encoded, report.skipped) == (0, 0, 24)
    assert products.verify().ok


def test_pictures_that_take_long_are_waited_for_on_every_python(products, catalog, plain, monkeypatch):
    """Python 3.10 has an error of its own for a future that is not ready yet."""
    prepare = PlainEncoder.prepare

    def slow(self, data):
        time.sleep(0.15)
        return prepare(self, data)

    monkeypatch.setattr(concurrent.futures._base, "TimeoutError", type("TimeoutError", (Exception,), {}))
    monkeypatch.setattr(PlainEncoder, "prepare", slow)
    assert products.ingest(catalog, encoder={"image": "plain"}, limit=4).encoded == 4


@small
def test_a_backend_that_stumbles_at_the_last_count_is_asked_again(products, kit, catalog, monkeypatch):
    products.ingest(catalog)
    count, asked = kit._resources.backend.count, []

    def stumbling(name):
        asked.append(name)
        if len(asked) == 1:
            raise BackendUnavailable("away for a moment")
        return count(name)

    monkeypatch.setattr(kit._resources.backend, "count", stumbling)
    assert products.ingest(catalog).skipped == 24
    assert len(asked) == 3


@small
def test_arguments_of_other_types_are_taken_or_refused_in_words(products, catalog):
    products.ingest(catalog)
    assert len(products.search(text="shoe", k=np.int64(3))) == 3
    for wrong in ({"k": 2.5}, {"k": "5"}, {"vector": "abc"}, {"vector": [[1], [1, 2]]}):
        with pytest.raises(BadInput):
            products.search(**{"text": "shoe", **wrong})
    with pytest.raises(ProductNotFound):
        products.get("\ud800")
    assert products.delete(["\ud800", "p01"]) == 1


def test_a_model_folder_may_move_and_is_found_from_everywhere(products, catalog, tmp_path, monkeypatch):
    from embedkit.encoders.export import export_encoder

    export_encoder("effnet-lite0(size=96)", tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    products.ingest(catalog, encoder={"image": "./model"})
    monkeypatch.chdir(catalog)
    assert products.search(image=catalog / "img" / "05.png", k=1)[0].key == "p05"
    (tmp_path / "model").rename(tmp_path / "moved")
    with embedkit.connect(backend=products._resources.settings.backend, home=tmp_path / "home") as kit:
        there = kit.collection("products")
        for call in (lambda: there.search(image=picture(1)), lambda: there.ingest(catalog)):
            with pytest.raises(EncoderMismatch, match=r"moved.*--encoder image=FOLDER"):
                call()
        assert there.ingest(catalog, encoder={"image": str(tmp_path / "moved")}).skipped == 24
        assert there.search(image=catalog / "img" / "05.png", k=1)[0].key == "p05"


@small
def test_settings_that_come_too_late_are_said_to_have_no_effect(products, catalog, tmp_path, monkeypatch):
    products.ingest(catalog)
    monkeypatch.setenv("EMBEDKIT_INDEX", "hnsw(m=16)")
    with embedkit.connect(backend=products._resources.settings.backend, home=tmp_path / "home") as kit:
        report = kit.collection("products").ingest(catalog)
    assert any("'hnsw(m=16)' has no effect" in warning for warning in report.warnings)


@small
def test_a_table_whose_pictures_were_not_recognised_says_so(products, tmp_path):
    (tmp_path / "t.csv").write_text("id,title,photo_url\n1,shoe,http://127.0.0.1:1/a.png\n")
    report = products.ingest(tmp_path / "t.csv")
    assert any("--map image=COLUMN" in warning for warning in report.warnings)
