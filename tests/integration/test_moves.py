"""A collection moves between backends, becomes files and comes back, and is made of vectors from elsewhere."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import embedkit
from embedkit.errors import BadInput, CollectionExists, DataCorrupt, DimensionMismatch, DiskFull, UnsupportedByBackend
from embedkit_cli.app import app
from tests.conftest import read_table, write_table
from tests.integration.test_reindex import VIEWS, vectors_of
from tests.killed import run

pytestmark = pytest.mark.usefixtures("plain")


@pytest.fixture
def filled(products, catalog):
    """Pictures, titles and codes; one product has no picture."""
    rows = read_table(catalog)
    del rows[7]["image"]
    write_table(catalog, rows)
    products.ingest(catalog, encoder={**VIEWS, "code": "signs"})
    products._resources.store.set_keywords(products._existing().id, ["brand"])
    return products


def by_brand(products):
    """What is found by the words of an attribute that was chosen for the collection."""
    found = [(hit.key, hit.score) for hit in products.search(keywords="acme", k=3)]
    assert found
    return found


def everything(products):
    """Keys with titles, pictures and attributes, and the vector of every (key, view)."""
    resources = products._resources
    row = resources.store.collection(products.name, resources.backend_url)
    keys = resources.store.keys(row.id)
    return resources.store.products(row.id, keys), vectors_of(products)


def equal(one, other):
    (products, vectors), (products_there, vectors_there) = one, other
    assert products == products_there
    assert vectors.keys() == vectors_there.keys()
    assert all((vectors[place] == vectors_there[place]).all() for place in vectors)
    return True


def test_from_faiss_to_milvus_to_vearch_and_back_key_by_key_vector_by_vector(filled, lite_url, vearch_url, tmp_path):
    report = filled.copy_to(lite_url)
    assert (report.products, report.copied, report.skipped) == (24, 24, 0)
    assert {one.view: one.vectors for one in report.views} == {"image": 23, "title": 24, "code": 23}
    assert all(one.checksum == one.checksum_there and one.largest_difference == 0 for one in report.views)
    before = everything(filled)
    with embedkit.connect(backend=lite_url, home=tmp_path / "home") as kit:
        there = kit.collection("products")
        assert equal(everything(there), before)
        assert there.search(product="p05", view="image", where="price < 50", k=1)
        assert by_brand(there) == by_brand(filled)
        assert there.copy_to(vearch_url).copied == 24
    with embedkit.connect(backend=vearch_url, home=tmp_path / "home") as kit:
        there = kit.collection("products")
        assert equal(everything(there), before)
        assert there.search(product="p05", view="image", where="price < 50", k=1)
        assert there.copy_to(f"faiss:///{tmp_path}/third", index="hnsw(m=8)").copied == 24
        there.drop()
    with embedkit.connect(backend=f"faiss:///{tmp_path}/third", home=tmp_path / "home") as kit:
        assert equal(everything(kit.collection("products")), before)
        assert kit.collection("products").verify().ok


def test_a_second_copy_copies_what_has_changed(filled, catalog, tmp_path):
    url = f"faiss:///{tmp_path}/other"
    filled.copy_to(url)
    rows = read_table(catalog)
    rows[3]["price"] = 999
    write_table(catalog, rows[:-1])
    filled.ingest(catalog, prune=True)
    report = filled.copy_to(url)
    assert (report.copied, report.skipped, report.deleted) == (1, 22, 1)
    with embedkit.connect(backend=url, home=tmp_path / "home") as kit:
        assert equal(everything(kit.collection("products")), everything(filled))


def test_a_copy_that_is_killed_goes_on(filled, tmp_path, faiss_url, monkeypatch):
    url, home = f"faiss:///{tmp_path}/other", tmp_path / "home"
    for point in ("create_collection", "commit", "finish_run"):
        where = f"embedkit.metadata.store:MetadataStore.{point}"
        assert not run(faiss_url, home, "copy_to", {"url": url}, point=where), point
    assert filled.copy_to(url).skipped == 24
    with embedkit.connect(backend=url, home=home) as kit:
        assert equal(everything(kit.collection("products")), everything(filled))
        assert kit.collection("products").verify().ok


def test_what_cannot_be_copied_there_is_refused(filled, tmp_path, catalog, lite_url, faiss_url):
    with pytest.raises(BadInput, match=r"lies at .* already"):
        filled.copy_to(faiss_url)
    with embedkit.connect(backend=lite_url, home=tmp_path / "home") as kit:
        kit.collection("products").ingest(catalog, encoder={"image": "plain(dim=16)"}, limit=2)
        before = everything(kit.collection("products"))
    with pytest.raises(CollectionExists, match="no copy of this one"):
        filled.copy_to(lite_url)
    with embedkit.connect(backend=lite_url, home=tmp_path / "home") as kit:
        assert equal(everything(kit.collection("products")), before)
    with pytest.raises(UnsupportedByBackend):
        filled.copy_to(f"faiss:///{tmp_path}/x", index="nothing_such")


def test_a_backup_restores_an_equal_collection(filled, kit, tmp_path, lite_url):
    report = filled.backup(tmp_path / "saved")
    assert (report.products, report.vectors) == (24, {"image": 23, "title": 24, "code": 23})
    table = pq.read_table(tmp_path / "saved" / "rows.parquet")
    assert table.column("key").to_pylist()[:2] == ["p00", "p01"]
    assert table.column("image.vector").null_count == 1
    before = everything(filled)
    np.testing.assert_array_equal(table.column("title.vector")[3].as_py(), before[1]["p03", "title"])

    assert kit.restore(tmp_path / "saved", collection="again").restored == 24
    assert equal(everything(kit.collection("again")), before)
    assert by_brand(kit.collection("again")) == by_brand(filled)
    (found,), (wanted,) = (there.search(text="red shoe 0", k=1) for there in (kit.collection("again"), filled))
    assert (found.key, found.score) == (wanted.key, wanted.score)
    with embedkit.connect(backend=lite_url, home=tmp_path / "elsewhere") as other:
        other.restore(tmp_path / "saved", index="flat")
        assert equal(everything(other.collection("products")), before)


def test_a_restore_touches_nothing_that_is_there(filled, kit, catalog, tmp_path):
    filled.backup(tmp_path / "saved")
    before = everything(filled)
    with pytest.raises(CollectionExists, match="nothing was restored"):
        kit.restore(tmp_path / "saved")
    kit.collection("small").ingest(catalog, encoder={"image": "plain(dim=16)"}, limit=2)
    with pytest.raises(DimensionMismatch, match=r"16 dimensions .* and the backup 32"):
        kit.restore(tmp_path / "saved", collection="small")
    assert equal(everything(filled), before)


@pytest.mark.parametrize(
    ("harm", "error", "message"),
    [
        (lambda folder: (folder / "rows.parquet").unlink(), DataCorrupt, "lacks the file"),
        (lambda folder: (folder / "rows.parquet").write_bytes(b"PAR1 nothing"), DataCorrupt, "checksum differs"),
        (lambda folder: (folder / "manifest.json").write_text("{"), DataCorrupt, "manifest cannot be read"),
        (lambda folder: (folder / "manifest.json").unlink(), BadInput, "is no backup"),
    ],
)
def test_a_backup_that_is_damaged_is_refused(filled, kit, tmp_path, harm, error, message):
    filled.backup(tmp_path / "saved")
    harm(tmp_path / "saved")
    with pytest.raises(error, match=message):
        kit.restore(tmp_path / "saved", collection="again")
    assert [info.name for info in kit.collections()] == ["products"]


def test_a_file_that_is_no_parquet_though_its_checksum_is_right_is_told(filled, kit, tmp_path):
    import hashlib

    filled.backup(tmp_path / "saved")
    (tmp_path / "saved" / "rows.parquet").write_bytes(b"PAR1 nothing")
    manifest = json.loads((tmp_path / "saved" / "manifest.json").read_text())
    manifest["files"]["rows.parquet"]["sha256"] = hashlib.sha256(b"PAR1 nothing").hexdigest()
    (tmp_path / "saved" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataCorrupt, match=r"rows\.parquet: the file cannot be read"):
        kit.restore(tmp_path / "saved", collection="again")


def test_a_backup_that_finds_no_room_leaves_nothing(filled, tmp_path, monkeypatch):
    import errno

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="no room for the backup"):
        filled.backup(tmp_path / "saved")
    assert not any(tmp_path.glob("*saved*"))
    monkeypatch.undo()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="there already"):
        filled.backup(tmp_path / "saved")


def test_what_is_deleted_while_a_backup_reads_is_not_taken_for_lost(filled, kit, tmp_path, monkeypatch):
    backend = filled._resources.backend
    fetch, keys = backend.fetch, iter(["p03", "p07", "p11"])

    def after_a_deletion(name, ids):
        """Of one product as each of the three views is read, and then of none."""
        if (key := next(keys, None)) is not None:
            filled.delete([key])
        return fetch(name, ids)

    monkeypatch.setattr(backend, "fetch", after_a_deletion)
    report = filled.backup(tmp_path / "saved")
    assert report.products >= filled.count() == 21
    assert kit.restore(tmp_path / "saved", collection="again").restored == report.products
    backend.delete("products_v1_title", backend.fetch("products_v1_title", np.arange(1, 10)).ids[:1])
    with pytest.raises(DataCorrupt, match="lacks vectors that the store knows; run: embedkit verify --repair"):
        filled.backup(tmp_path / "broken")


def test_two_backups_at_once_do_not_write_into_one_folder(filled, kit, tmp_path):
    def meanwhile(moment):
        with pytest.raises(BadInput, match=r"Another backup is being written to '.*saved'; wait for its end"):
            filled.backup(tmp_path / "saved")
        told.append(moment.seen)

    told = []
    filled.backup(tmp_path / "saved", progress=meanwhile)
    assert told == [24]
    assert kit.restore(tmp_path / "saved", collection="again").restored == 24
    with pytest.raises(BadInput, match="is there already"):
        filled.backup(tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".saved")] == []


def test_a_restore_that_is_killed_goes_on(filled, kit, tmp_path, faiss_url):
    filled.backup(tmp_path / "saved")
    arguments = {"folder": str(tmp_path / "saved"), "collection": "again"}
    for point in ("begin", "commit"):
        where = f"embedkit.metadata.store:MetadataStore.{point}"
        assert not run(faiss_url, tmp_path / "home", "restore", arguments, point=where, name=None), point
    assert kit.restore(**arguments).restored == 24
    assert equal(everything(kit.collection("again")), everything(filled))
    assert kit.collection("again").verify().ok


def test_the_commands(filled, kit, tmp_path, monkeypatch):
    """In this process, which has the encoders of the tests; `tests/cli` starts real ones."""
    kit.close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBEDKIT_HOME", "home")
    monkeypatch.setenv("EMBEDKIT_BACKEND", "faiss:///faiss")

    def call(*arguments, code=0):
        done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done

    done = call("reindex", "products", "--encoder", "image=plain(seed=9)", "--html", "page.html", "--nice", "0")
    assert "Version 2 serves now" in done.stderr
    assert "data:image/png;base64" in (tmp_path / "page.html").read_text()
    assert json.loads(call("reindex", "products", "--rollback", "--json").stdout)["after"] == 1
    assert json.loads(call("gc", "--dry-run", "--json").stdout)["collections"][0]["dropped"][0]["version"] == 2
    assert "--rollback takes none" in call("reindex", "products", "--rollback", "--index", "hnsw", code=2).stderr
    copied = json.loads(call("copy", "products", "faiss:///other", "--index", "flat", "--json").stdout)
    assert all(one["checksum"] == one["checksum_there"] for one in copied["views"])
    call("backup", "products", "saved")
    call("restore", "saved", "-c", "again")
    assert json.loads(call("status", "-c", "again", "--json").stdout)["products"] == 24
