"""What folders and tables may hold that is not as it should be, and what becomes of it."""

from __future__ import annotations

import contextlib
import csv
import datetime
import decimal
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.config import FetchSettings
from embedkit.errors import BadImage, BadSource, MissingExtra
from embedkit.ingest.fetch import Fetcher
from embedkit.ingest.sources.contract import RecordError
from embedkit.ingest.sources.open import open_source
from embedkit.types import Record


def read(path, **how):
    source = open_source(str(path), **how)
    try:
        return list(source.records())
    finally:
        source.close()


@pytest.fixture
def fetcher():
    fetcher = Fetcher(FetchSettings())
    yield fetcher
    fetcher.close()


_AS_NOBODY = """
import os, sys
from embedkit.config import FetchSettings
from embedkit.errors import BadImage, BadSource
from embedkit.ingest.fetch import Fetcher
from embedkit.ingest.sources.open import open_source
import pyarrow, embedkit.ingest.sources.folder, embedkit.ingest.sources.tables
if os.geteuid() == 0:
    os.seteuid(65534)
root = sys.argv[1]
for entry in open_source(root + "/tree").records():
    print(type(entry).__name__, entry.locator, getattr(entry, "reason", ""))
fetcher = Fetcher(FetchSettings())
for path, act in (("/tree/secret.png", fetcher.read_local), ("/closed", open_source), ("/closed.csv", open_source)):
    try:
        act(root + path)
        print("read", path)
    except (BadImage, BadSource) as error:
        print(type(error).__name__, error)
"""


def test_what_may_not_be_read_says_so_and_the_rest_goes_on():
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        for path in ("tree/a/1.png", "tree/secret.png", "tree/shut/2.png", "closed/3.png", "closed.csv", "tree/z.png"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(b"id,title\n1,x\n")
        for path in ("tree/secret.png", "tree/shut", "closed", "closed.csv"):
            (root / path).chmod(0)
        run = [sys.executable, "-c", _AS_NOBODY, name]
        told = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
        for path in ("tree/shut", "closed"):
            (root / path).chmod(0o755)
    lines = told.stdout.splitlines()
    assert lines[:4] == [
        "Record a/1.png ",
        "Record secret.png ",
        "RecordError shut the folder cannot be read: Permission denied",
        "Record z.png ",
    ], told.stderr
    assert lines[4] == f"BadImage {name}/tree/secret.png: permission denied"
    assert lines[5].startswith("BadSource The folder ")
    assert lines[5].endswith("Permission denied")
    assert lines[6].startswith("BadSource The catalog ")


def test_pipes_sockets_devices_and_broken_links_never_make_a_run_wait(tmp_path, fetcher):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "nothing.jpg").symlink_to(tmp_path / "gone")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "good.jpg").write_bytes(b"1")
    os.mkfifo(tmp_path / "good.txt")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket.jpg"))
        entries = read(tmp_path)
    assert [entry.locator for entry in entries] == ["device.jpg", "good.jpg", "nothing.jpg", "pipe.jpg", "socket.jpg"]
    assert entries[1].key == "good.jpg"
    assert "side-car" in entries[1].reason
    for name, reason in (
        ("pipe", "no regular file"),
        ("device", "no regular file"),
        ("socket", "no regular file"),
        ("nothing", "no such file"),
    ):
        with pytest.raises(BadImage, match=reason):
            fetcher.read_local(str(tmp_path / f"{name}.jpg"))


def test_a_file_that_goes_between_listing_and_reading_is_one_failure(tmp_path, fetcher):
    (tmp_path / "1.jpg").write_bytes(b"1")
    (tmp_path / "1.txt").write_text("One")
    source = open_source(str(tmp_path))
    assert source.count() == 1
    (tmp_path / "1.jpg").unlink()
    (tmp_path / "1.txt").unlink()
    (record,) = source.records()
    assert record.title == "1"
    with pytest.raises(BadImage, match="no such file"):
        fetcher.read_local(record.image)


ODD = ["a b.png", "a%20b.png", "a#b.png", "a?b.png", "a\nb.png", "~a.png", "a\\b.png", "a;b&c.png", "ä€.png", "a:b.png"]


def test_odd_names_are_read_as_they_are(tmp_path, fetcher):
    for number, name in enumerate(ODD):
        (tmp_path / name).write_bytes(bytes([number]))
    records = read(tmp_path)
    assert {record.key: fetcher.read_local(record.image).data for record in records} == {
        name: bytes([number]) for number, name in enumerate(ODD)
    }
    for number, name in enumerate(ODD):
        assert fetcher.read_local((tmp_path / name).as_uri()).data == bytes([number])


def test_odd_names_in_a_table_are_left_alone(tmp_path, fetcher):
    names = [name for name in ODD if name != "a\nb.png"]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "image"], *([str(n), name] for n, name in enumerate(names))])
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    assert [fetcher.read_local(record.image).data.decode() for record in read(tmp_path / "t.csv")] == names


def test_an_empty_folder_warns_and_names_what_is_looked_for(products, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.md").write_text("x")
    report = products.ingest(tmp_path / "empty", prune=True)
    assert (report.seen, report.failed, report.deleted) == (0, 0, 0)
    assert any(".jpg" in warning and ".webp" in warning for warning in report.warnings)
    (tmp_path / "t.csv").write_text("id,title\n")
    assert any("no rows" in warning for warning in products.ingest(tmp_path / "t.csv").warnings)


@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
def test_csv_of_every_dialect(tmp_path, delimiter):
    text = '\ufeffid,title,note\r\n1,"two\nlines","say ""hi"""\r\n2,x,\r\n\r\n  \r\n'.replace(",", delimiter)
    (tmp_path / "t.csv").write_bytes(text.encode())
    first, second = read(tmp_path / "t.csv")
    assert (first.key, first.title, first.attributes) == ("1", "two\nlines", {"note": 'say "hi"'})
    assert (second.key, second.attributes) == ("2", {"note": None})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_a_table_in_another_encoding_is_refused_with_the_way_out(tmp_path, encoding):
    mark = {"utf-16-le": "\ufeff", "utf-16-be": "\ufeff"}.get(encoding, "")
    (tmp_path / "t.csv").write_bytes(f"{mark}id,größe,title\n1,2,x\n".encode(encoding))
    with pytest.raises(BadSource, match="UTF-8"):
        read(tmp_path / "t.csv")


def test_a_row_with_broken_quotes_fails_alone(tmp_path):
    (tmp_path / "t.csv").write_text('id,title\n1,one\n2,"tw"o\n3,three\n4,"open\n')
    kinds = [type(entry) for entry in read(tmp_path / "t.csv")]
    assert kinds == [Record, RecordError, Record, RecordError]


def test_a_long_line_of_json_is_read_and_an_endless_one_fails_alone(tmp_path):
    lines = [json.dumps({"id": "a", "title": "t", "text": "x" * 10_000_000}), '{"id": "' + "x" * 65_000_000 + '"}']
    (tmp_path / "t.jsonl").write_text("\n".join([*lines, '{"id": "c", "title": "t"}']))
    first, second, third = read(tmp_path / "t.jsonl")
    assert len(first.attributes["text"]) == 10_000_000
    assert "longer than" in second.reason
    assert third.key == "c"


def test_parquet_columns_of_every_type_become_json(tmp_path):
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901)
    table = pa.table(
        {
            "id": ["a"],
            "title": pa.array(["t"]).dictionary_encode(),
            "list": [[1, 2]],
            "nested": [{"sizes": [{"eu": 41}], "when": moment}],
            "decimal": pa.array([decimal.Decimal("12.50")], pa.decimal128(9, 2)),
            "day": [moment.date()],
            "fine": pa.array([moment], pa.timestamp("us")).cast(pa.timestamp("ns", "UTC")),
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
            "raw": [b"\xff"],
            "lasts": [datetime.timedelta(seconds=90)],
            "none": pa.nulls(1),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    (record,) = read(tmp_path / "t.parquet")
    assert json.loads(json.dumps(record.attributes)) == {
        "list": [1, 2],
        "nested": {"sizes": [{"eu": 41}], "when": "2026-01-02T03:04:05.678901"},
        "decimal": 12.5,
        "day": "2026-01-02",
        "fine": "2026-01-02T03:04:05.678901+00:00",
        "map": [["k", 1]],
        "raw": None,
        "lasts": "0:01:30",
        "none": None,
    }


def test_a_parquet_value_that_python_cannot_hold_fails_its_row_alone(tmp_path):
    times = pa.array([0, 2**62, 5], pa.int64()).cast(pa.timestamp("us"))
    pq.write_table(pa.table({"id": ["a", "b", "c"], "title": ["t"] * 3, "at": times}), tmp_path / "t.parquet")
    assert [type(entry) for entry in read(tmp_path / "t.parquet")] == [Record, RecordError, Record]


def test_a_database_without_its_driver_says_what_to_install():
    with pytest.raises(MissingExtra, match="pip install mysqlclient"):
        open_source("mysql://me:secret@127.0.0.1/x", query="SELECT 1")


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r", exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: text.strip() == text
)
VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | TEXT
ROWS = st.lists(
    st.fixed_dictionaries({"key": TEXT, "title": TEXT, "size": st.integers(-(2**60), 2**60), "note": TEXT}), min_size=1
)


@given(rows=ROWS, start=st.integers(0, 12), group=st.integers(1, 4))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_read_back_as_written_from_any_offset(tmp_path, rows, start, group):
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet", row_group_size=group)
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        source = open_source(str(tmp_path / name))
        records = list(source.records(start))
        source.close()
        assert [(r.key, r.title, r.attributes["size"]) for r in records] == [
            (row["key"], row["title"], row["size"]) for row in rows[start:]
        ]
        if name != "t.csv":  # a cell of text such as "1" or "null" is typed in a CSV
            assert [r.attributes["note"] for r in records] == [row["note"] for row in rows[start:]]


@given(
    attributes=st.dictionaries(TEXT, st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)))
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_of_any_shape_reads_back_equal(tmp_path, attributes):
    row = {**attributes, "key": "k", "title": "t", "image": "http://host/1.png"}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    source = open_source(str(tmp_path / "t.jsonl"))
    (record,) = source.records()
    source.close()
    assert record.attributes == {name: value for name, value in row.items() if name not in ("key", "title", "image")}


@given(data=st.binary(max_size=400))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_whatever_crash_a_reader(tmp_path, data):
    for name in ("t.csv", "t.jsonl", "t.parquet", "t.zip", "t.tar", "t.tar.gz", "t.csv.gz", "t.csv.zst"):
        (tmp_path / name).write_bytes(data)
        with contextlib.suppress(BadSource):
            read(tmp_path / name)
