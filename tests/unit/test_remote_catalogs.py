"""The catalog itself may lie anywhere: in a file system of fsspec, behind a web server, inside an archive."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit.config import FetchSettings
from embedkit.errors import BadSource, MissingExtra
from embedkit.ingest.fetch import Fetcher, is_remote
from embedkit.ingest.places import streams
from embedkit.ingest.places.held import OpenArchives
from embedkit.ingest.sources.open import open_source
from embedkit.testing.source import SourceContract
from tests.webserver import WebServer

ROWS = [{"key": f"p{n:02}", "image": f"img/{n}.png", "title": f"shoe {n}", "price": n + 0.5} for n in range(12)]


def csv_bytes(rows=ROWS):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def jsonl_bytes(rows=ROWS):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet_bytes(rows=ROWS):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, row_group_size=3)
    return out.getvalue()


TABLES = {"t.csv": csv_bytes(), "t.jsonl": jsonl_bytes(), "t.parquet": parquet_bytes()}


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture
def web():
    with WebServer().running() as server:
        server.files.update({f"/shop/{name}": data for name, data in TABLES.items()})
        yield server


def zipped(path, files, **how):
    with zipfile.ZipFile(path, "w", **how) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def read(source):
    with_close = list(source.records())
    source.close()
    return with_close


class TestWebCsv(SourceContract):
    @pytest.fixture(params=["t.csv", "t.jsonl", "t.parquet"])
    def source(self, web, request):
        source = open_source(f"{web.url}/shop/{request.param}")
        yield source
        source.close()


class TestTableWithoutRanges(SourceContract):
    @pytest.fixture(params=["t.csv", "t.parquet"])
    def source(self, web, request):
        web.ranges = False
        source = open_source(f"{web.url}/shop/{request.param}")
        yield source
        source.close()


class TestTableInMemory(SourceContract):
    @pytest.fixture(params=["t.csv", "t.jsonl", "t.parquet"])
    def source(self, memory, request):
        memory.pipe(f"/shop/{request.param}", TABLES[request.param])
        source = open_source(f"memory://shop/{request.param}")
        yield source
        source.close()


class TestTableInAnArchive(SourceContract):
    @pytest.fixture(params=["t.csv", "t.jsonl", "t.parquet"])
    def source(self, tmp_path, request):
        place = zipped(tmp_path / "shop.zip", TABLES, compression=zipfile.ZIP_DEFLATED)
        source = open_source(f"zip://{request.param}::{place}")
        yield source
        source.close()


TREE = {
    "3.webp": b"3",
    "a/1.png": b"1",
    "a/.hidden.png": b"x",
    "b/c/2.jpg": b"2",
    "b/c/2.txt": b"Two",
    "notes.md": b"x",
}


class TestTreeInMemory(SourceContract):
    @pytest.fixture
    def source(self, memory):
        for name, data in TREE.items():
            memory.pipe(f"/shop/{name}", data)
        return open_source("memory://shop/")


class TestTreeInAnArchive(SourceContract):
    @pytest.fixture(params=["shop.zip", "shop.tar", "shop.tar.gz", "shop.tgz", "shop.tar.xz"])
    def source(self, tmp_path, request):
        path = tmp_path / request.param
        modes = {".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz"}
        source = open_source(
            str(zipped(path, TREE) if path.suffix == ".zip" else tarred(path, TREE, modes.get(path.suffix, "w")))
        )
        yield source
        source.close()


class TestTreesEverywhere:
    def test_a_tree_means_the_same_everywhere(self, tmp_path, memory):
        for name, data in TREE.items():
            path = tmp_path / "shop" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            memory.pipe(f"/shop/{name}", data)
        places = [
            tmp_path / "shop",
            "memory://shop",
            zipped(tmp_path / "x.zip", TREE),
            tarred(tmp_path / "x.tar", TREE),
        ]
        found = [[(r.key, r.title, dict(r.attributes)) for r in read(open_source(str(place)))] for place in places]
        assert found[0] == [
            ("3.webp", "3", {}),
            ("a/1.png", "1", {"category": "a"}),
            ("b/c/2.jpg", "Two", {"category": "b/c"}),
        ]
        assert found[1:] == found[:1] * 3

    def test_every_picture_of_a_tree_can_be_fetched_from_another_folder(self, tmp_path, memory, monkeypatch):
        for name, data in TREE.items():
            memory.pipe(f"/shop/{name}", data)
        zipped(tmp_path / "x.zip", TREE)
        tarred(tmp_path / "x.tar.gz", TREE, "w:gz")
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "3.webp").write_bytes(b"3")
        monkeypatch.chdir(tmp_path)
        uris = [next(iter(read(open_source(p)))).image for p in ("x.zip", "x.tar.gz", "tree", "memory://shop")]
        monkeypatch.chdir("/")
        fetcher = Fetcher(FetchSettings())
        read_one = [fetcher.submit(u).result(20) if is_remote(u) else fetcher.read_local(u) for u in uris]
        assert [one.data for one in read_one] == [b"3"] * 4
        fetcher.close()


def test_pictures_of_a_remote_table_lie_beside_it(memory, web, tmp_path):
    rows = [
        {"key": "a", "image": "img/1.jpg"},
        {"key": "b", "image": "/top/2.jpg"},
        {"key": "c", "image": "s3://b/3.jpg"},
    ]
    data = csv_bytes(rows)
    memory.pipe("/shop/new/t.csv", data)
    web.files["/shop/new/t.csv"] = data
    path = zipped(tmp_path / "x.zip", {"new/t.csv": data})

    def images(catalog):
        return [record.image for record in read(open_source(catalog))]

    assert images("memory://shop/new/t.csv") == ["memory://shop/new/img/1.jpg", "memory://top/2.jpg", "s3://b/3.jpg"]
    assert images(f"{web.url}/shop/new/t.csv") == [
        f"{web.url}/shop/new/img/1.jpg",
        f"{web.url}/top/2.jpg",
        "s3://b/3.jpg",
    ]
    assert images(f"zip://new/t.csv::{path}") == [
        f"zip://new/img/1.jpg::{path}",
        f"zip://top/2.jpg::{path}",
        "s3://b/3.jpg",
    ]


@pytest.mark.parametrize("root", ["memory://", "memory://shop", "memory://shop/", "simplecache::memory://shop"])
def test_the_root_of_a_file_system_and_a_chain_of_them_are_folders(memory, root):
    memory.pipe("/shop/a/1.png", b"1")
    (record,) = read(open_source(root))
    assert record.key == ("shop/a/1.png" if root == "memory://" else "a/1.png")
    fetcher = Fetcher(FetchSettings())
    assert fetcher.submit(record.image).result(20).data == b"1"
    fetcher.close()


def test_a_file_url_is_decoded_and_a_path_is_not(tmp_path):
    folder = tmp_path / "a%20b#c?d ~"
    folder.mkdir()
    (folder / "t.csv").write_bytes(csv_bytes())
    plain = read(open_source(str(folder / "t.csv")))
    assert plain[0].image == f"{folder}/img/0.png"
    assert read(open_source((folder / "t.csv").as_uri())) == plain


@pytest.mark.parametrize(
    "pack", [gzip.compress, bz2.compress, lzma.compress, lambda data: pa.compress(data, codec="zstd", asbytes=True)]
)
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_a_compressed_table_reads_like_a_plain_one(tmp_path, memory, name, pack):
    suffix = {gzip.compress: ".gz", bz2.compress: ".bz2", lzma.compress: ".xz"}.get(pack, ".zst")
    memory.pipe(f"/{name}", TABLES[name])
    memory.pipe(f"/{name}{suffix}", pack(TABLES[name]))
    plain = read(open_source(f"memory://{name}"))
    packed = read(open_source(f"memory://{name}{suffix}"))
    assert [(r.key, r.image, r.attributes) for r in packed] == [(r.key, r.image, r.attributes) for r in plain]
    assert len(plain) == 12
    (tmp_path / f"{name}{suffix}").write_bytes(pack(TABLES[name])[:-20])
    with pytest.raises(BadSource, match=name):
        read(open_source(str(tmp_path / f"{name}{suffix}")))


def test_a_large_remote_csv_is_not_read_whole_to_find_its_columns(web):
    row = b"k%d,img.png,title,%s\n"
    web.files["/big.csv"] = b"key,image,title,text\n" + b"".join(row % (n, b"x" * 1000) for n in range(30_000))
    source = open_source(f"{web.url}/big.csv")
    assert web.asked["/big.csv"] <= 3
    assert len(read(source)) == 30_000


def test_a_parquet_on_the_web_is_read_by_pieces(web):
    rows = [{"key": f"k{n}", "title": "t", "text": os.urandom(500).hex()} for n in range(20_000)]
    web.files["/big.parquet"] = parquet_bytes(rows)
    assert len(web.files["/big.parquet"]) > 8_000_000
    source = open_source(f"{web.url}/big.parquet")
    assert source.count() == 20_000
    assert [record.key for record in source.records(19_998)] == ["k19998", "k19999"]
    source.close()


def test_a_web_server_that_is_busy_is_asked_again_and_one_that_refuses_is_named(web):
    web.busy = 2
    assert len(read(open_source(f"{web.url}/shop/t.csv"))) == 12
    for path, words in (("/none.csv", "no catalog"), ("/status/403", "denied"), ("/status/500", "500")):
        with pytest.raises(BadSource, match=words) as caught:
            open_source(f"{web.url.replace('//', '//me:secret@')}{path}", kind="csv")
        assert "secret" not in str(caught.value)
    web.files["/shop/"] = b"<html>t.csv</html>"
    with pytest.raises(BadSource, match="is no folder"):
        open_source(f"{web.url}/shop/", kind="folder")
    with pytest.raises(BadSource, match="a web server lists no folders"):
        open_source(f"{web.url}/shop/")
    with pytest.raises(BadSource, match="cannot be reached"):
        open_source("http://127.0.0.1:9/t.csv")


def test_a_table_that_changes_while_it_is_read_stops_the_reading(web):
    row = b"k%d,title,%s\n"
    web.files["/t.csv"] = b"key,title,text\n" + b"".join(row % (n, b"x" * 1000) for n in range(10_000))
    source = open_source(f"{web.url}/t.csv")
    records = source.records()
    next(records)
    web.files["/t.csv"] = web.files["/t.csv"].replace(b"k9", b"j9")
    with pytest.raises(BadSource, match="changed while it was read"):
        list(records)
    source.close()


@pytest.mark.parametrize("etag", ["", 'W/"1"'])
def test_a_host_that_tells_only_a_date_stops_the_reading_when_the_date_or_the_size_changes(web, etag):
    row = b"k%d,title,%s\n"
    body = b"key,title,text\n" + b"".join(row % (n, b"x" * 1000) for n in range(1_000))
    old, new = "Tue, 01 Jul 2025 10:00:00 GMT", "Tue, 01 Jul 2025 10:00:05 GMT"

    def begun():
        web.files["/t.csv"], web.headers["/t.csv"] = body, {"ETag": etag, "Last-Modified": old}
        source = open_source(f"{web.url}/t.csv")
        records = source.records()
        next(records)
        return source, records

    source, records = begun()
    assert len(list(records)) == 999
    source.close()
    source, records = begun()
    if etag:
        web.headers["/t.csv"] = {"ETag": 'W/"2"', "Last-Modified": old}
    else:
        web.headers["/t.csv"] = {"ETag": "", "Last-Modified": new}
    with pytest.raises(BadSource, match="changed while it was read"):
        list(records)
    source.close()
    source, records = begun()
    web.files["/t.csv"] += b"new,new,new\n"
    with pytest.raises(BadSource, match="changed while it was read"):
        list(records)
    source.close()


def test_a_bomb_is_refused_before_its_copy_is_larger_than_the_limit(web, tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_MOST", 3 << 20)
    inner = zipped(tmp_path / "in.zip", {"1.png": bytes(5 << 20)}).read_bytes()
    web.ranges = False
    web.files["/x.zip"] = inner
    catalogs = [
        tarred(tmp_path / "x.tar.gz", {"1.png": bytes(5 << 20)}, "w:gz"),
        f"zip://::zip://in.zip::{zipped(tmp_path / 'x.zip', {'in.zip': inner}, compression=zipfile.ZIP_DEFLATED)}",
        f"{web.url}/x.zip",
    ]
    for catalog in catalogs:
        with pytest.raises(BadSource, match=r"larger than .* GiB .* unpack it yourself"):
            open_source(str(catalog))
    assert len(read(open_source(str(tarred(tmp_path / "small.tar.gz", {"1.png": bytes(1 << 20)}, "w:gz"))))) == 1


def test_a_copy_leaves_some_of_the_disk_free(tmp_path, monkeypatch):
    path = tarred(tmp_path / "x.tar.gz", {"1.png": bytes(1 << 20)}, "w:gz")
    usage = shutil.disk_usage(tempfile.gettempdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=usage.total // 1_000))
    with pytest.raises(BadSource, match=r"would fill the disk, at .* MiB; set TMPDIR"):
        open_source(str(path))


def test_an_archive_that_comes_late_is_read_and_one_that_is_damaged_keeps_its_kind_of_error(tmp_path):
    archives = OpenArchives()
    uri = f"zip://1.png::{tmp_path / 'x.zip'}"
    with pytest.raises(FileNotFoundError):
        archives.read(uri, 10)
    zipped(tmp_path / "x.zip", {"1.png": b"1"})
    assert archives.read(uri, 10)[0] == b"1"
    (tmp_path / "folder.zip").mkdir()
    for _ in range(2):
        with pytest.raises(IsADirectoryError):
            archives.read(f"zip://1.png::{tmp_path / 'folder.zip'}", 10)
    archives.close()


def test_a_fingerprint_follows_the_content_and_is_none_where_nothing_tells(web, memory, tmp_path):
    def mark(catalog):
        source = open_source(str(catalog))
        try:
            return source.fingerprint()
        finally:
            source.close()

    before = mark(f"{web.url}/shop/t.csv")
    assert before
    assert before == mark(f"{web.url}/shop/t.csv")
    web.files["/shop/t.csv"] += b"new,,new,1\n"
    assert mark(f"{web.url}/shop/t.csv") != before
    web.ranges = False
    web.headers["/shop/t.csv"] = {"ETag": ""}
    assert mark(f"{web.url}/shop/t.csv") is None
    memory.pipe("/a/1.png", b"1")
    before = mark("memory://a")
    memory.pipe("/a/2.png", b"1")
    assert mark("memory://a") != before
    first = mark(zipped(tmp_path / "x.zip", {"1.png": b"a"}))
    assert mark(zipped(tmp_path / "x.zip", {"1.png": b"b"})) != first


def test_a_protocol_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingExtra, match=r"'s3fs'.*pip install 'embedkit-search\[s3\]'"):
        open_source("s3://bucket/t.csv")
    with pytest.raises(MissingExtra, match=r"pip install gcsfs$"):
        open_source("gs://bucket/shoes/")
    with pytest.raises(BadSource, match="Protocol not known"):
        open_source("nowhere://bucket/t.csv")
