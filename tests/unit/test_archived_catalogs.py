"""The catalog itself may lie inside an archive, on the disk or behind a web server; a damaged one is named."""

from __future__ import annotations

import io
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from embedkit.config import FetchSettings
from embedkit.errors import BadImage, BadSource
from embedkit.ingest.fetch import Fetcher
from embedkit.ingest.sources.contract import RecordError
from embedkit.ingest.sources.open import open_source
from tests.unit.test_remote_catalogs import (
    csv_bytes,
    jsonl_bytes,
    memory,
    read,
    tarred,
    web,
    zipped,
)

__all__ = ["memory", "web"]


@pytest.mark.parametrize("top", ["", "shop/"])
def test_an_archive_with_a_products_table_is_that_table(tmp_path, top):
    path = zipped(
        tmp_path / "x.zip", {f"{top}products.jsonl": jsonl_bytes(), f"{top}img/1.png": b"1", "__MACOSX/x": b""}
    )
    records = read(open_source(str(path)))
    assert len(records) == 12
    assert records[1].image == f"zip://{top}img/1.png::{path}"
    assert records[1].locator == "products.jsonl row 2"


def test_an_archive_within_an_archive_opens(tmp_path):
    inner = zipped(tmp_path / "inner.zip", {"a/1.png": b"1"}).read_bytes()
    path = zipped(tmp_path / "outer.zip", {"in/inner.zip": inner})
    (record,) = read(open_source(f"zip://::zip://in/inner.zip::{path}"))
    assert (record.key, record.image) == ("a/1.png", f"zip://a/1.png::zip://in/inner.zip::{path}")
    fetcher = Fetcher(FetchSettings())
    assert fetcher.read_local(record.image).data == b"1"
    fetcher.close()


def test_an_archive_on_the_web_opens_without_being_copied(web):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(20):
            archive.writestr(f"{number:02}.png", os.urandom(500_000))
    web.files["/x.zip"] = out.getvalue()
    records = read(open_source(f"{web.url}/x.zip"))
    assert len(records) == 20
    assert records[0].image == f"zip://00.png::{web.url}/x.zip"
    asked = web.asked["/x.zip"]
    assert asked <= 4
    fetcher = Fetcher(FetchSettings())
    data = [fetcher.submit(record.image) for record in records]
    assert [len(one.result(30).data) for one in data] == [500_000] * 20
    fetcher.close()


def test_bad_names_in_an_archive_are_failed_records(tmp_path):
    files = {"../up.png": b"1", "/abs.png": b"1", "a/../../b.png": b"1", "x::y.png": b"1", "good.png": b"1"}
    for path in (zipped(tmp_path / "x.zip", files), tarred(tmp_path / "x.tar", {**files, "bad\udcff.png": b"1"})):
        entries = read(open_source(str(path)))
        good = [entry.key for entry in entries if not isinstance(entry, RecordError)]
        bad = {entry.locator: entry.reason for entry in entries if isinstance(entry, RecordError)}
        assert good == ["good.png"]
        assert "leads out" in bad["../up.png"]
        assert "absolute" in bad["/abs.png"]
        assert "'::'" in bad["x::y.png"]
        assert len(bad) == (4 if path.suffix == ".zip" else 5)


def test_a_damaged_archive_is_named_in_one_sentence(tmp_path):
    whole = zipped(tmp_path / "x.zip", {"1.png": b"1" * 1000}).read_bytes()
    for name, data in (("cut.zip", whole[:500]), ("no.zip", b"no"), ("no.tar", b"no" * 999), ("no.tar.gz", whole)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadSource, match=name) as caught:
            open_source(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_damaged_and_encrypted_members_fail_alone(tmp_path):
    path = zipped(tmp_path / "x.zip", {"1.png": b"1" * 1000, "2.png": b"2" * 1000})
    data = bytearray(path.read_bytes())
    data[data.index(b"1" * 1000) + 500] ^= 1
    path.write_bytes(data)
    fetcher = Fetcher(FetchSettings(max_bytes=2_000))
    records = read(open_source(str(path)))
    with pytest.raises(BadImage, match="damaged"):
        fetcher.read_local(records[0].image)
    assert fetcher.read_local(records[1].image).data == b"2" * 1000
    with pytest.raises(BadImage, match="not in the archive"):
        fetcher.read_local(f"zip://none.png::{path}")
    zipped(tmp_path / "bomb.zip", {"1.png": bytes(50_000_000)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(BadImage, match="max_bytes"):
        fetcher.read_local(f"zip://1.png::{tmp_path}/bomb.zip")
    encrypted = bytearray(zipped(tmp_path / "e.zip", {"1.png": b"1"}).read_bytes())
    encrypted[6] |= 1
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "e.zip").write_bytes(encrypted)
    with pytest.raises(BadImage, match="without a password"):
        fetcher.read_local(f"zip://1.png::{tmp_path}/e.zip")
    fetcher.close()


def test_many_threads_read_many_archives_through_a_bounded_number_of_open_files(tmp_path):
    uris = {}
    for number in range(20):
        files = {f"{n}.png": f"{number}/{n}".encode() * 2_000 for n in range(10)}
        pack = (zipped, tarred)[number % 2]
        path = pack(tmp_path / f"{number}.{('zip', 'tar')[number % 2]}", files)
        for name, data in files.items():
            uris[f"{('zip', 'tar')[number % 2]}://{name}::{path}"] = data
    before = len(os.listdir("/proc/self/fd"))
    fetcher = Fetcher(FetchSettings())
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            read_all = list(pool.map(lambda uri: fetcher.read_local(uri).data, uris))
            assert read_all == list(uris.values())
    assert len(os.listdir("/proc/self/fd")) - before <= 17
    fetcher.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_table_in_a_damaged_archive_is_named_and_so_is_an_archive_within(tmp_path):
    inner = zipped(tmp_path / "inner.zip", {"1.png": b"1" * 1000}).read_bytes()
    path = zipped(tmp_path / "x.zip", {"products.csv": csv_bytes(), "inner.zip": inner})
    data = bytearray(path.read_bytes())
    for part in (csv_bytes(), inner):
        data[data.index(part) + len(part) // 2] ^= 1
    path.write_bytes(data)
    for place in (f"zip://products.csv::{path}", f"zip://1.png::zip://inner.zip::{path}"):
        with pytest.raises(BadSource, match="damaged"):
            read(open_source(place))


def test_a_tar_with_a_broken_header_in_its_middle_is_refused_instead_of_ending_there(tmp_path):
    path = tarred(tmp_path / "x.tar", {f"{n}.png": b"1" * 100 for n in range(5)})
    whole = path.read_bytes()
    assert len(read(open_source(str(path)))) == 5
    path.write_bytes(whole[: 3 * 1024] + b"#" + whole[3 * 1024 + 1 :])
    with pytest.raises(BadSource, match=r"x\.tar.*broken header"):
        open_source(str(path))
    path.write_bytes(whole[: 5 * 1024])  # without the zeros that mark the end, as some programs write it
    assert len(read(open_source(str(path)))) == 5
