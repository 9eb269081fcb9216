"""What a command says when there is nothing to show, or something is misspelt: the thing at fault and the next step."""

from __future__ import annotations

import io
import json
import sys

import pytest
from PIL import Image

import embedkit
from embedkit import plugins
from embedkit.types import STAGES
from embedkit_cli import main
from tests import plain_encoder
from tests.made import fill, product, unit


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs a command in this process, as `main` does, with nobody at its stdin."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBEDKIT_BACKEND", "faiss:///vectors")

    def run(*arguments, code=0, answer=""):
        monkeypatch.setattr(sys, "argv", ["embedkit", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        with pytest.raises(SystemExit) as end:
            main._run()
        told = capsys.readouterr()
        assert (end.value.code or 0) == code, told
        return told

    return run


@pytest.fixture
def there(call):
    """Twelve products with vectors, without an encoder."""
    with embedkit.connect() as kit:
        yield fill(kit, "products", [product(n, f"shoe {n}", price=n) for n in range(12)], {"image": unit(12, 8)})


def test_keys_that_are_not_there_are_named_and_the_others_go(call, there):
    told = call("delete", "p0001", "nokey", "p0001", code=1).err.splitlines()
    assert told == ["Deleted 1 product.", "error: The collection 'products' has no product with the key 'nokey'"]
    found = json.loads(call("delete", "p0001", "p0002", "--dry-run", "--json", code=1).out)
    assert found == {"deleted": 0, "found": 1, "missing": ["p0001"]}
    assert call("delete", "p0002", "p0003").err == "Deleted 2 products.\n"
    assert "did you mean 'price'" in call("delete", "--where", "prise > 3").err


def test_where_nobody_can_answer_nothing_is_asked_and_yes_is_named(call, there):
    for asked in (["delete", "--where", "price < 3"], ["dedup", "--threshold", "-0.9", "--delete"]):
        told = call(*asked, code=1).err
        assert "[y/N]" not in told
        assert "say --yes" in told
    call("delete", "--where", "price < 3", answer="n\n", code=1)
    assert there.count() == 12
    assert "Deleted 3 products." in call("delete", "--where", "price < 3", answer="y\n").err


def test_a_stage_of_failures_is_one_of_those_there_are(call, there):
    assert (
        "no stage of failures called 'bogus'; known: decode, duplicate"
        in call("failures", "--stage", "bogus", code=1).err
    )
    assert call("failures", "--stage", "reindex").err == "No failures.\n"
    assert ", ".join(STAGES[:-1]) in " ".join(call("failures", "--help").out.split())


def test_commands_that_are_named_find_the_same_place(call, there, tmp_path):
    (tmp_path / "other.toml").write_text("")
    place = ["--backend", "faiss:///else where", "--config", "other.toml"]
    told = call("search", "--text", "x", *place, code=1).err
    assert "embedkit ingest --config other.toml --backend 'faiss:///else where' CATALOG -c products" in told
    told = call("status", "-c", "products", "--backend", "milvus://me:secret@localhost:1", code=1).err
    assert "embedkit ingest --backend URL CATALOG" in told
    assert "secret" not in told
    assert "nothing was ingested there from this home" in told  # nobody has asked localhost:1
    told = call("copy", "products", "faiss:///twin", "--config", "other.toml").err
    assert "embedkit search --config other.toml -c products --backend faiss:///twin" in told
    assert "--backend" not in call("index", "tune", "products", code=1).err


def test_a_file_in_the_place_of_vectors_is_said_to_be_one(call, tmp_path):
    (tmp_path / "kf").write_text("x")
    assert "/kf' is a file" in call("status", "--backend", "faiss:///kf", code=1).err
    assert "There is no collection yet" in call("status").err


def test_more_collections_than_are_named_are_counted(call, there):
    with embedkit.connect() as kit:
        for number in range(9):
            kit._resources.store.create_collection(f"c{number}", backend_url="faiss:///vectors", views=[])
    assert "(it has c0, c1, c2, c3, c4, c5, c6, c7 and 2 more)" in call("status", "-c", "nope", code=1).err


def test_too_few_products_to_measure_by_are_told_what_needs_none(call, there):
    there.build_index("hnsw")
    assert "to tune takes 200" in (told := call("index", "tune", "products", code=1).err)
    assert "embedkit advise --n N --dim 8" in told
    assert "embedkit advise --n N --dim 8" in call("advise", code=1).err


@pytest.fixture
def plain(monkeypatch):
    """The encoder `plain`, as a plugin."""
    with monkeypatch.context() as patch:
        plain_encoder.install(patch.setattr)
        yield
    plugins._table.cache_clear()


def test_an_encoder_that_does_not_fit_is_the_one_that_was_named(call, plain, tmp_path):
    Image.new("RGB", (9, 9), "red").save(tmp_path / "red.png")
    (tmp_path / "s.csv").write_text("sku,image,name\nA,red.png,red\n,red.png,none\nB,gone.png,gone\n")
    read = ["s.csv", "--map", "key=sku"]
    call("ingest", *read, "--encoder", "image=plain", "--encoder", "title=plain(seed=1)", "--limit", 1)
    told = call("ingest", *read, "--encoder", "image=plain(seed=2)", code=1).err
    assert "'image' of 'products' was filled by 'plain'" in told
    assert "'plain(seed=2)' (" in told
    assert told.endswith("reindex products --encoder image=plain(seed=2)\n")
    call("ingest", *read, "--encoder", "image=plain", "--limit", 1)  # the title stays as it is
    assert "has no view 'code', only image, title" in call("ingest", *read, "--encoder", "code=plain", code=1).err


def test_a_file_that_the_system_refuses_is_named_and_not_called_a_fault(call, there, monkeypatch):
    def refused(_):
        raise PermissionError(13, "Permission denied", "/srv/shop.db")

    monkeypatch.setattr(embedkit.Collection, "status", refused)
    told = call("status", "-c", "products", code=1).err
    assert told.startswith("error: /srv/shop.db: Permission denied. Look whether it is there")
    assert "fault of embedkit" not in told


def test_a_table_without_vectors_is_sent_to_ingest(call, tmp_path):
    (tmp_path / "s.jsonl").write_text('{"key": "a"}\n')
    told = call("import", "s.jsonl", "-c", "given", code=1).err
    assert "give a .parquet or .npy file, a FAISS index" in told
    assert "embedkit ingest CATALOG" in told
