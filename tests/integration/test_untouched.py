"""A catalog that is ingested again: whose file or host says that a picture is what it was is not read again."""

from __future__ import annotations

import io
import os
import shutil
import sys
import time
import zipfile

import pytest

from embedkit.ingest.places import local
from tests.conftest import picture, read_table, write_table
from tests.services.s3 import s3_bucket

_opened: list[str] = []
_watching = False


def _watch(event, arguments):
    if _watching and event == "open":
        _opened.append(os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes) else "")


sys.addaudithook(_watch)


def opened_by(work):
    """What `work` gives, and the names of the pictures and archives that it opened."""
    global _watching
    _opened.clear()
    _watching = True
    try:
        return work(), sorted(
            os.path.basename(path) for path in _opened if "/img/" in path or path.endswith("shop.zip")
        )
    finally:
        _watching = False


@pytest.fixture(autouse=True)
def small_encoder(plain, monkeypatch):
    monkeypatch.setenv("EMBEDKIT_VIEWS", '{"image": "plain"}')


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once, so that no test has to wait for it."""
    monkeypatch.setattr(local, "_SETTLED", -(10**18))


def counts(report):
    return report.encoded, report.updated, report.skipped, report.failed


def png(seed):
    out = io.BytesIO()
    picture(seed).save(out, "PNG")
    return out.getvalue()


def test_untouched_files_are_not_opened_and_checksum_opens_them(products, catalog, settled):
    report, read = opened_by(lambda: products.ingest(catalog))
    assert counts(report) == (24, 0, 0, 0)
    assert len(read) == 24
    report, read = opened_by(lambda: products.ingest(catalog))
    assert (counts(report), read) == ((0, 0, 24, 0), [])
    report, read = opened_by(lambda: products.ingest(catalog, checksum=True))
    assert counts(report) == (0, 0, 24, 0)
    assert len(read) == 24


def test_a_changed_price_needs_no_picture(products, catalog, settled):
    products.ingest(catalog)
    rows = read_table(catalog)
    rows[3]["price"] = 999
    write_table(catalog, rows)
    report, read = opened_by(lambda: products.ingest(catalog))
    assert (counts(report), read) == ((0, 1, 23, 0), [])
    assert products.get("p03").attributes["price"] == 999


def test_another_picture_of_the_same_size_and_date_is_seen(products, catalog, settled):
    """As `cp -p` and `rsync -t` leave them."""
    image, other = catalog / "img" / "05.png", catalog / "img" / "06.png"
    size = max(image.stat().st_size, other.stat().st_size)
    for path in (image, other):
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
        os.utime(path, ns=(10**18, 10**18))
    products.ingest(catalog)
    shutil.copy2(other, image)
    assert (image.stat().st_size, image.stat().st_mtime_ns) == (size, 10**18)
    report, read = opened_by(lambda: products.ingest(catalog))
    assert (counts(report), read) == ((1, 0, 23, 0), ["05.png"])


def test_a_picture_written_just_before_it_was_read_is_read_once_more(products, catalog):
    """Its times could be those of a second writing too. What is read again and found the same is no news."""
    for path in catalog.glob("img/*.png"):
        os.utime(path, ns=(10**18, 10**18))  # the date that a tool sets says nothing of when it was written
    products.ingest(catalog)
    time.sleep(2.1)
    report, read = opened_by(lambda: products.ingest(catalog))
    assert counts(report) == (0, 0, 24, 0)
    assert len(read) == 24
    report, read = opened_by(lambda: products.ingest(catalog))
    assert (counts(report), read) == ((0, 0, 24, 0), [])


def test_a_picture_that_is_gone_fails_and_is_found_again(products, catalog, settled, tmp_path):
    products.ingest(catalog)
    image = catalog / "img" / "05.png"
    shutil.move(image, tmp_path / "away.png")
    assert counts(products.ingest(catalog)) == (0, 0, 23, 1)
    assert [failure.key for failure in products.failures()] == ["p05"]
    shutil.move(tmp_path / "away.png", image)
    assert counts(products.ingest(catalog)) == (0, 0, 24, 0)
    assert products.failures() == []


def test_after_a_reindex_only_another_picture_is_read(products, catalog, settled):
    products.ingest(catalog)
    products.reindex(encoder={"image": "plain(seed=1)"})
    report, read = opened_by(lambda: products.ingest(catalog))
    assert (counts(report), read) == ((0, 0, 24, 0), [])
    shutil.copy(catalog / "img" / "06.png", catalog / "img" / "05.png")
    assert counts(products.ingest(catalog)) == (1, 0, 23, 0)
    assert products.verify().ok


def test_an_archive_says_it_for_all_of_its_pictures(products, tmp_path, settled):
    def zipped(*seeds):
        with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
            for name, seed in enumerate(seeds):
                archive.writestr(f"{name}.png", png(seed))
        os.replace(tmp_path / "new.zip", tmp_path / "shop.zip")

    zipped(1, 2, 3)
    assert counts(products.ingest(tmp_path / "shop.zip")) == (3, 0, 0, 0)
    report, read = opened_by(lambda: products.ingest(tmp_path / "shop.zip"))
    assert (counts(report), read) == ((0, 0, 3, 0), ["shop.zip"])  # to list it
    zipped(1, 9, 3)
    assert counts(products.ingest(tmp_path / "shop.zip")) == (1, 0, 2, 0)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "shop.zip", "in/shop.zip")
    nested = f"zip://in/shop.zip::{tmp_path}/outer.zip"
    assert counts(products.ingest(f"zip://::{nested}")) == (0, 3, 0, 0)  # other addresses
    assert counts(products.ingest(f"zip://::{nested}")) == (0, 0, 3, 0)


def test_objects_of_s3_are_fetched_when_their_tag_is_another(products):
    """The catalog is listed afresh every time, by a process that has listed it before too."""
    with s3_bucket() as bucket:
        for number in range(5):
            bucket.put(f"shoes/{number}.png", png(number))
        assert counts(products.ingest("s3://shop/shoes")) == (5, 0, 0, 0)
        assert len(bucket.read(".png")) == 5
        bucket.put("shoes/3.png", png(30) + bytes(5_000))
        bucket.put("shoes/5.png", png(5))
        bucket.asked.clear()
        assert counts(products.ingest("s3://shop/shoes")) == (2, 0, 4, 0)
        assert sorted(bucket.read(".png")) == ["GET /shop/shoes/3.png", "GET /shop/shoes/5.png"]
        assert products.search(image=png(30))[0].key == "3.png"
        bucket.client.delete_object(Bucket="shop", Key="shoes/0.png")
        report = products.ingest("s3://shop/shoes", prune=True)
        assert (counts(report), report.deleted) == ((0, 0, 5, 0), 1)


def test_objects_of_s3_that_a_table_names(products, tmp_path):
    with s3_bucket() as bucket:
        for number in range(3):
            bucket.put(f"{number}.png", png(number))
        rows = [{"key": f"p{number}", "image": f"s3://shop/{number}.png"} for number in range(3)]
        write_table(tmp_path, rows)
        table = tmp_path / "products.jsonl"
        assert counts(products.ingest(table)) == (3, 0, 0, 0)
        bucket.put("1.png", png(10))
        bucket.asked.clear()
        assert counts(products.ingest(table)) == (1, 0, 2, 0)
        assert bucket.read(".png") == ["GET /shop/1.png"]
        bucket.client.delete_object(Bucket="shop", Key="2.png")
        assert counts(products.ingest(table)) == (0, 0, 2, 1)
