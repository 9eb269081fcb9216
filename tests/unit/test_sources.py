"""Catalogs of every kind, read alike; bad rows keep their place and say why."""

from __future__ import annotations

import json
import sqlite3

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit.errors import BadSource, ConfigError, UnknownName
from embedkit.ingest.sources.contract import RecordError
from embedkit.ingest.sources.mapping import ColumnMapping
from embedkit.ingest.sources.open import open_source
from embedkit.testing.source import SourceContract
from embedkit.types import Record

ROWS = [
    {"sku": f"s{n}", "photo": f"{n}.png", "name": f"shoe {n}", "price": n + 0.5, "sold": n % 2 == 0} for n in range(7)
]
MAPPING = ColumnMapping.from_dict({"key": "sku", "image": "photo", "title": "name"})


@pytest.fixture
def csv_file(tmp_path):
    path = tmp_path / "t.csv"
    lines = [",".join(map(str, row.values())) for row in ROWS]
    path.write_text("sku,photo,name,price,sold\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def jsonl_file(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


@pytest.fixture
def parquet_file(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=2)
    return path


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "t.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE p (sku TEXT, photo TEXT, name TEXT, price REAL, sold BOOLEAN)")
        db.executemany("INSERT INTO p VALUES (:sku, :photo, :name, :price, :sold)", ROWS)
    db.close()
    return f"sqlite:///{path}"


class TestCsv(SourceContract):
    @pytest.fixture
    def source(self, csv_file):
        return open_source(str(csv_file), mapping=MAPPING)


class TestJsonLines(SourceContract):
    @pytest.fixture
    def source(self, jsonl_file):
        return open_source(str(jsonl_file), mapping=MAPPING)


class TestParquet(SourceContract):
    @pytest.fixture
    def source(self, parquet_file):
        return open_source(str(parquet_file), mapping=MAPPING)


class TestSql(SourceContract):
    @pytest.fixture
    def source(self, database):
        source = open_source(database, mapping=MAPPING, query="SELECT * FROM p ORDER BY sku")
        yield source
        source.close()


class TestFolder(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        for name in ("b/2.jpg", "a/1.png", "a/.hidden.png", "3.webp", "notes.md"):
            path = tmp_path / "tree" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        return open_source(str(tmp_path / "tree"))

    def test_keys_are_paths_and_folders_are_categories(self, source):
        found = {record.key: record.attributes.get("category") for record in source.records()}
        assert found == {"3.webp": None, "a/1.png": "a", "b/2.jpg": "b"}


def test_every_table_gives_the_same_records(csv_file, jsonl_file, parquet_file):
    def plain(path):
        records = open_source(str(path), mapping=MAPPING).records()
        return [(r.key, r.image, r.title, dict(r.attributes)) for r in records]

    assert plain(csv_file) == plain(jsonl_file) == plain(parquet_file)
    key, image, title, attributes = plain(csv_file)[1]
    assert (key, title, attributes) == ("s1", "shoe 1", {"price": 1.5, "sold": False})
    assert image == f"{csv_file.parent}/1.png"


def test_cells_become_numbers_only_where_json_would(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('id;title;a;b;c;d;e\nx;t;007;1e3;NaN;"a;b";-2\n')
    record = next(iter(open_source(str(path)).records()))
    assert record.attributes == {"a": "007", "b": 1000.0, "c": None, "d": "a;b", "e": -2}


def test_bad_rows_keep_their_place(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"id,title\n1,one\n2\n3,thr\xffee\n,none\n5,five\n")
    entries = list(open_source(str(path)).records())
    kinds = [type(entry) for entry in entries]
    assert kinds == [Record, RecordError, RecordError, RecordError, Record]
    assert entries[1].locator == "t.csv row 2"
    assert "2 columns" in entries[1].reason
    assert "UTF-8" in entries[2].reason


def test_a_key_is_a_text_or_a_whole_number_and_a_picture_has_one_address(tmp_path):
    path = tmp_path / "t.jsonl"
    cells = [
        *('"id": "1.5"', '"id": 7', '"id": 7.0'),
        *('"id": true', '"id": 1.5', '"id": ["a"]'),
        *('"id": 8, "image": ["a.png", "b.png"]', '"id": 9, "image": {"path": "a.png"}'),
    ]
    path.write_text("".join(f'{{{cell}, "title": "shoe"}}\n' for cell in cells))
    entries = list(open_source(str(path)).records())
    assert [entry.key for entry in entries[:3]] == ["1.5", "7", "7"]
    key = "the column 'id', which names the product, holds {}; a key is a text or a whole number"
    image = "the column 'image' holds {} where the path or URL of one picture belongs"
    assert [entry.reason for entry in entries[3:]] == [
        *(key.format(shown) for shown in ("true", "1.5", "a list")),
        *(image.format(kind) for kind in ("a list", "an object")),
    ]


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("a,b\n1,2\n", "t.csv", "--map image=COLUMN"),
        ("", "t.csv", "is empty"),
        ("id,id\n1,2\n", "t.csv", "two columns"),
        ("no parquet", "t.parquet", "cannot be read"),
        ("x", "t.docx", "known kind"),
    ],
)
def test_a_bad_table_is_refused_with_the_next_step(tmp_path, text, kind, message):
    (tmp_path / kind).write_text(text)
    with pytest.raises(BadSource, match=message):
        open_source(str(tmp_path / kind))


def test_a_missing_column_is_named_with_the_nearest(csv_file):
    with pytest.raises(BadSource, match=r"'photos'.*did you mean photo\?.*--map image=COLUMN"):
        open_source(str(csv_file), mapping=ColumnMapping.from_dict({"image": "photos"}))
    with pytest.raises(ConfigError, match="title"):
        ColumnMapping.from_dict({"titel": "x"})
    with pytest.raises(UnknownName):
        open_source(str(csv_file), kind="cvs")


def test_a_database_needs_a_query_that_works(database):
    with pytest.raises(BadSource, match="--query"):
        open_source(database)
    source = open_source(database, query="SELECT a FROM nowhere")
    with pytest.raises(BadSource, match="nowhere"):
        list(source.records())
    source.close()
    secret = open_source("postgresql+psycopg://me:secret@127.0.0.1:1/x", query="SELECT 1")
    with pytest.raises(BadSource) as caught:
        list(secret.records())
    secret.close()
    assert "secret" not in str(caught.value)


def test_two_columns_of_one_name_are_refused_in_every_kind_of_table(tmp_path, database):
    """A row would have the value of the last: of a join, the brand's number for the product's."""
    table = pa.Table.from_arrays([pa.array([one]) for one in ("p1", "shoe", "b7")], names=["id", "title", "id"])
    pq.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("id,title,id\np1,shoe,b7\n")
    query = "SELECT a.sku AS id, a.name AS title, b.sku AS id FROM p a JOIN p b ON a.sku < b.sku"
    for name, asked in ((tmp_path / "t.csv", None), (tmp_path / "t.parquet", None), (database, query)):
        with pytest.raises(BadSource, match="two columns 'id'; rename one"):
            list(open_source(str(name), query=asked).records())


def test_a_query_is_asked_as_it_is_written(database):
    """A colon or a percent sign in it is no parameter; one that reads nothing says so."""
    query = "SELECT sku, name || ' :size 50%' AS name FROM p WHERE name NOT LIKE '%:x%' ORDER BY sku"
    assert next(open_source(database, query=query).records()).title == "shoe 0 :size 50%"
    with pytest.raises(BadSource, match="gives no rows; write a SELECT"):
        list(open_source(database, query="DELETE FROM p").records())
    assert len(list(open_source(database, query="SELECT sku, name FROM p").records())) == 7


def test_pictures_that_a_query_names_by_relative_paths_are_found_from_another_folder_too(
    database, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    query = "SELECT sku, 'a/' || photo AS photo FROM p UNION SELECT 'web', 'https://host/x.png' ORDER BY sku"
    records = list(open_source(database, query=query).records())
    assert [records[0].image, records[-1].image] == [f"{tmp_path}/a/0.png", "https://host/x.png"]


@pytest.mark.parametrize(
    "head",
    ['sku;"name, of the shoe, or so"', "\n\nsku;name", '"a, b, c, d";sku;name'],
    ids=["in quotes", "blank", "first"],
)
def test_what_separates_the_columns_is_seen_past_blank_lines_and_names_in_quotes(tmp_path, head):
    (tmp_path / "t.csv").write_text(f"{head}\n" + ("x;" if "a, b" in head else "") + "s1;shoe\n")
    title = "name, of the shoe, or so" if "of the" in head else "name"
    source = open_source(str(tmp_path / "t.csv"), mapping=ColumnMapping(key="sku", title=title))
    assert [(one.key, one.title) for one in source.records()] == [("s1", "shoe")]


@pytest.mark.parametrize("url", ["http://[::1/x.csv", "https://[shop]/x.csv", "file://[x/a.csv", "ftp://[x/a.csv"])
def test_a_catalog_at_no_address_at_all_is_refused_in_a_sentence(url):
    with pytest.raises(BadSource, match="catalog"):
        open_source(url)
