"""A collection changes its encoder or its index without a pause: build, compare, switch, go back, clean up."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

import embedkit
from embedkit import plugins, views
from embedkit.backends.faiss.backend import FaissBackend
from embedkit.backends.vearch.backend import VearchBackend
from embedkit.errors import (
    BadInput,
    CollectionExists,
    CollectionNotFound,
    ConfigError,
    DiskFull,
    EncoderMismatch,
    StoreBusy,
    UnsupportedByBackend,
)
from embedkit.ingest import reencode
from embedkit.living import versions
from embedkit_cli.commands import versions as versions_command
from tests import plain_encoder
from tests.conftest import picture, read_table, write_table
from tests.killed import run
from tests.plain_encoder import install

VIEWS = {"image": "plain", "title": "plain(seed=9)"}
OTHER = "plain(seed=1)"
RENEWED = {**VIEWS, "image": OTHER}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Encoders that are cheap, and no waiting for searches of other processes."""
    install(monkeypatch.setattr)
    monkeypatch.setattr(versions, "_GRACE", 0.0)
    yield
    plugins._table.cache_clear()


@pytest.fixture(params=["faiss", "lite", "vearch"])
def kit(request, tmp_path):
    with embedkit.connect(backend=_url(request), home=tmp_path / "home") as opened:
        yield opened


@pytest.fixture(params=["faiss", "vearch"])
def shared_url(request):
    """A backend that several processes write to."""
    return _url(request)


def _url(request):
    return request.getfixturevalue({"vearch": "clean_vearch_url"}.get(request.param, f"{request.param}_url"))


@pytest.fixture
def on_faiss(tmp_path, catalog, faiss_url):
    yield from _filled(faiss_url, catalog, tmp_path)


@pytest.fixture
def shared(tmp_path, catalog, shared_url):
    yield from _filled(shared_url, catalog, tmp_path)


def _filled(url, catalog, tmp_path):
    with embedkit.connect(backend=url, home=tmp_path / "home") as opened:
        there = opened.collection("products")
        there.ingest(catalog, encoder=VIEWS)
        yield there


def vectors_of(products):
    """The vector of every (key, view) of the version that serves."""
    resources = products._resources
    row = resources.store.collection(products.name, resources.backend_url)
    ids = resources.store.vector_ids_of(row.id, resources.store.keys(row.id))
    found = {}
    for view in row.views:
        by_id = {slots[view.slot]: key for key, slots in ids.items() if view.slot in slots}
        fetched = resources.backend.fetch(view.physical, np.array(sorted(by_id)))
        found |= {(by_id[i], view.name): v for i, v in zip(fetched.ids.tolist(), fetched.vectors, strict=True)}
    return found


def freshly_made(tmp_path, catalog, encoder):
    """The vectors that a collection has that was ingested with that encoder from the start."""
    with embedkit.connect(backend="oracle://memory", home=tmp_path / "fresh") as kit:
        there = kit.collection("products")
        there.ingest(catalog, encoder=encoder)
        return vectors_of(there)


def same(one, other):
    return one.keys() == other.keys() and all(np.allclose(one[place], other[place], atol=1e-5) for place in one)


def test_a_new_encoder_takes_over_and_the_old_one_comes_back(kit, catalog, tmp_path):
    products = kit.collection("products")
    products.ingest(catalog, encoder=VIEWS)
    before = vectors_of(products)

    report = products.reindex(encoder={"image": OTHER}, k=5)

    assert (report.encoded, report.failed, report.version, report.serving) == (24, 0, 2, 2)
    assert products.status().encoders == RENEWED
    assert same(vectors_of(products), freshly_made(tmp_path, catalog, RENEWED))
    assert products.search(image=catalog / "img" / "05.png", k=1)[0].key == "p05"
    compared = report.comparison[0]
    assert (compared.view, compared.queries, compared.k) == ("image", 24, 5)
    assert 0 < compared.overlap <= 1
    assert compared.moved[0].overlap == min(one.overlap for one in compared.moved)
    json.dumps(report.as_dict())

    assert products.rollback().after == 1
    after = vectors_of(products)
    assert all((before[place] == after[place]).all() for place in before)
    assert products.rollback().after == 2, "back from going back"
    assert [one.version for one in products.gc(dry_run=True).dropped] == [1]
    assert products.status().versions == {1: "kept"}
    products.gc()
    assert products.status().versions == {}
    there = [name for name in kit._resources.backend.list() if name.startswith("products_")]
    assert there == ["products_v1_title", "products_v2_image"]
    assert products.verify().ok
    with pytest.raises(BadInput, match="No earlier version"):
        products.rollback()


def test_overlap_is_the_share_of_the_neighbours_by_both_encoders(on_faiss, tmp_path, catalog):
    """Held to cosines of the vectors themselves."""
    before = vectors_of(on_faiss)
    report = on_faiss.reindex(encoder={"image": OTHER}, k=3)
    keys = [key for key, view in before if view == "image"]
    near = []
    for state in (before, vectors_of(on_faiss)):
        rows = np.stack([state[key, "image"] for key in keys])
        scores = rows @ rows.T
        np.fill_diagonal(scores, -2)
        near.append([{keys[i] for i in np.argsort(-row)[:3]} for row in scores])
    shares = [len(old & new) / 3 for old, new in zip(*near, strict=True)]
    assert report.comparison[0].overlap == pytest.approx(np.mean(shares))


def test_where_only_the_index_changes_vectors_are_copied_bit_by_bit(on_faiss, catalog, monkeypatch, capsys):
    before = vectors_of(on_faiss)
    with monkeypatch.context() as patch:
        patch.setattr("embedkit.ingest.fetch.Fetcher.read_local", lambda *_: pytest.fail("a picture was read"))
        report = on_faiss.reindex(index="hnsw(m=8)")
    assert (report.encoded, report.copied) == (0, 24)
    after = vectors_of(on_faiss)
    assert before.keys() == after.keys()
    assert all((before[place] == after[place]).all() for place in before)
    assert report.comparison[0].overlap == 1.0
    assert report.comparison[0].moved == ()
    versions_command._tell(replace(report, comparison=report.comparison[:1]), None)
    assert "Moved most" not in capsys.readouterr().err
    assert on_faiss._resources.backend.describe("products_v2_image").index.family == "hnsw"
    later = on_faiss.ingest(catalog)
    assert (later.skipped, later.warnings) == (24, ()), "no setting says otherwise"


def test_codes_of_a_scan_are_built_as_graphs_are(on_faiss):
    assert on_faiss.reindex(index="sq8 + refine(flat)").switched
    shown = on_faiss.index(view="image")
    assert (shown.spec, shown.covered) == ("sq8 + refine(flat)", 24)


def test_codes_take_the_place_of_floats(on_faiss):
    report = on_faiss.reindex(encoder={"image": "signs"})
    assert report.switched is not None
    assert on_faiss.status().metrics["image"] == "hamming"
    assert on_faiss.search(product="p03", view="image", k=3)


def test_a_picture_that_is_gone_is_told_and_the_switch_waits(on_faiss, catalog):
    (catalog / "img" / "03.png").unlink()
    report = on_faiss.reindex(encoder={"image": OTHER})
    assert report.failed == 1
    assert report.lost[0][0] == "p03"
    assert "03.png" in report.lost[0][1]
    assert report.switched is None
    assert "--max-failed" in report.refused
    assert [row.key for row in on_faiss.failures(stage="reindex")] == ["p03"]
    assert on_faiss.status().version == 1

    report = on_faiss.reindex(max_failed=0.1)
    assert (report.skipped, report.failed) == (23, 1), "no argument goes on with what is begun"
    assert report.switched.lacking == {"image": 1}
    assert on_faiss.count() == 24, "the product is still there, by its title"

    picture(3).save(catalog / "img" / "03.png")
    assert on_faiss.ingest(retry_failed=True).encoded == 1
    assert on_faiss.failures() == []
    assert on_faiss.search(image=picture(3), k=1)[0].key == "p03"


def test_writes_meanwhile_land_in_both(shared, catalog, tmp_path, shared_url, monkeypatch):
    """At three stages another kit changes, adds and deletes products; the end is that of a fresh ingest."""
    monkeypatch.setattr(reencode, "_TICK", 0.0)
    rows = read_table(catalog)
    other = embedkit.connect(backend=shared_url, home=tmp_path / "home")
    stages = iter(range(1, 100))

    def write(moment):
        number = next(stages)
        if number > 3:
            return
        rows[number]["price"] = 1_000 + number  # attributes alone
        rows[number + 4]["title"] = f"a changed title {number}"
        picture(100 + number).save(catalog / "img" / f"{number + 8:02}.png")  # another picture
        picture(200 + number).save(catalog / "img" / f"new{number}.png")
        rows.append({"key": f"a{number}", "image": f"img/new{number}.png", "title": f"new {number}", "price": 1})
        write_table(catalog, rows)
        other.collection("products").ingest(catalog)
        other.collection("products").delete(f"p{12 + number}")
        rows[:] = [row for row in rows if row["key"] != f"p{12 + number}"]
        write_table(catalog, rows)

    with other:
        shared.reindex(encoder={"image": OTHER}, index="hnsw", progress=write)
    assert next(stages) > 3
    assert shared.status().version == 2
    assert same(vectors_of(shared), freshly_made(tmp_path, catalog, RENEWED))
    assert shared.search(product="a1", view="image", where="price == 1", k=5)
    assert len(shared.search(text="shoe", where="price > 1000", k=9)) == 3, "columns changed in both"
    assert shared.verify().ok
    shared.rollback()
    assert same(vectors_of(shared), freshly_made(tmp_path / "2", catalog, VIEWS))
    assert len(shared.search(text="shoe", where="price > 1000", k=9)) == 3


def test_an_ingest_under_way_when_a_version_is_begun_or_switched_goes_on_with_it(
    on_faiss, catalog, tmp_path, faiss_url
):
    """Its first batches knew one version only."""
    for row in (rows := read_table(catalog)):
        row["title"] = f"again {row['title']}"
    write_table(catalog, rows)
    moments = []

    def begin(moment):
        moments.append(moment)
        if len(moments) == 2:
            with embedkit.connect(backend=faiss_url, home=tmp_path / "home") as other:
                assert other.collection("products").reindex(index="hnsw").switched

    report = on_faiss.ingest(catalog, progress=begin)
    assert (report.seen, report.encoded) == (24, 24)
    assert on_faiss.status().version == 2
    assert same(vectors_of(on_faiss), freshly_made(tmp_path, catalog, VIEWS))
    assert on_faiss.verify().ok


def test_an_old_encoder_that_is_gone_stops_no_ingest(on_faiss, catalog, tmp_path, faiss_url, monkeypatch, caplog):
    on_faiss.reindex(encoder={"image": OTHER})
    real = plain_encoder.build

    def build(spec, **options):
        if not spec.options:
            raise ConfigError("its file is gone")
        return real(spec, **options)

    monkeypatch.setattr(plain_encoder, "build", build)
    rows = read_table(catalog)
    write_table(catalog, [*rows, {**rows[0], "key": "new", "price": 7}])
    with embedkit.connect(backend=faiss_url, home=tmp_path / "home") as kit:
        there = kit.collection("products")
        assert there.ingest(catalog).encoded == 1
        assert "Version 1 of 'products' gets no new vectors" in caplog.text
        assert there.search(product="new", view="image", k=1)[0].key == "p00"
        with pytest.raises(EncoderMismatch, match="its file is gone"):
            there.rollback()
        assert there.status().version == 2


def test_one_reindex_at_a_time(on_faiss, tmp_path, faiss_url):
    def another(moment):
        with embedkit.connect(backend=faiss_url, home=tmp_path / "home") as other:
            there = other.collection("products")
            for call in (lambda: there.reindex(index="flat"), there.rollback, there.gc, there.drop):
                with pytest.raises(StoreBusy, match="Another process is reindexing"):
                    call()

    on_faiss.reindex(index="hnsw", progress=another)


def test_what_cannot_be_is_refused_and_the_old_version_serves(on_faiss):
    with pytest.raises(BadInput, match="no reindex of 'products' to go on with"):
        on_faiss.reindex()
    with pytest.raises(BadInput, match="made so already"):
        on_faiss.reindex(encoder={"image": "plain"}, index="flat")
    with pytest.raises(BadInput, match="no view 'code'"):
        on_faiss.reindex(encoder={"code": OTHER})
    with pytest.raises(UnsupportedByBackend):
        on_faiss.reindex(index="no_such_family")
    assert on_faiss.status().versions == {}

    assert on_faiss.reindex(encoder={"image": OTHER}, switch=False).switched is None
    assert on_faiss.status().versions == {2: "built"}
    with pytest.raises(BadInput, match=r"Version 2 .* is another one; .*gc -c products --unfinished"):
        on_faiss.reindex(encoder={"image": "plain(seed=2)"})
    assert on_faiss.gc().dropped == ()
    assert [one.vectors for one in on_faiss.gc(unfinished=True).dropped] == [24]

    backend = on_faiss._resources.backend
    spec = backend.describe("products_v1_image")
    from dataclasses import replace

    backend.create(replace(spec, name="products_v3_image"))
    backend.upsert("products_v3_image", np.array([1]), np.eye(1, spec.dim, dtype=np.float32))
    with pytest.raises(CollectionExists, match="products_v3_image"):
        on_faiss.reindex(encoder={"image": OTHER})
    assert on_faiss.search(text="red shoe", k=1)


def test_an_ingest_that_says_where_an_encoder_is_takes_back_no_index_built_meanwhile(
    on_faiss, catalog, tmp_path, faiss_url, monkeypatch
):
    check = views._check_views

    def meanwhile(*arguments):
        with embedkit.connect(backend=faiss_url, home=tmp_path / "home") as other:
            other.collection("products").build_index("hnsw(m=8)")
        check(*arguments)

    monkeypatch.setattr(views, "_check_views", meanwhile)
    on_faiss.ingest(catalog, encoder={"image": "plain(seed=0)", "title": "plain(seed=9)"}, limit=1)
    status = on_faiss.status()
    assert status.encoders["image"] == "plain(seed=0)"
    assert on_faiss.index().spec == "hnsw(m=8)"


@pytest.mark.parametrize("moment", ["as its batch is written", "before its first look at the backend"])
def test_of_a_collection_dropped_under_an_ingest_nothing_comes_back(
    on_faiss, catalog, tmp_path, faiss_url, monkeypatch, moment
):
    place, name = (FaissBackend, "upsert") if moment == "as its batch is written" else (views, "_moved")
    work = getattr(place, name)
    with embedkit.connect(backend=faiss_url, home=tmp_path / "home") as other:
        dropping = threading.Thread(target=other.collection("products").drop)

        def meanwhile(*arguments):
            monkeypatch.setattr(place, name, work)
            dropping.start()
            dropping.join(0.2 if place is FaissBackend else None)
            assert dropping.is_alive() == (place is FaissBackend), "it waits for the batch"
            return work(*arguments)

        monkeypatch.setattr(place, name, meanwhile)
        on_faiss.delete("p03")
        with pytest.raises(CollectionNotFound):
            on_faiss.ingest(catalog, encoder=VIEWS)
        dropping.join()
        assert other.collections() == ()
        assert other._resources.backend.list() == ()
    assert on_faiss.ingest(catalog, encoder={"image": "plain(dim=16)"}).encoded == 24


def test_the_disk_fills_and_the_old_version_serves(on_faiss, monkeypatch):
    import errno

    def full(handle, data, at):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(DiskFull):
            on_faiss.reindex(encoder={"image": OTHER})
    assert on_faiss.search(text="red shoe", k=1)
    assert on_faiss.reindex(encoder={"image": OTHER}).switched
    assert on_faiss.verify().ok


STORE = "embedkit.metadata.store:MetadataStore"
POINTS = {  # of a reindex, one after the other: what it was about to do when it was killed
    "faiss": (
        (f"{STORE}.add_version", 1),  # the backend has the collections, the store does not
        (f"{STORE}.begin", 3),  # the pictures of a third batch are encoded
        (f"{STORE}.commit_vectors", 2),  # vectors are written, and not live
        ("embedkit.backends.faiss.backend:FaissBackend.build_index", 1),  # all are there
        (f"{STORE}.switch_version", 1),
    ),
    "vearch": (
        (f"{STORE}.commit_vectors", 2),
        ("embedkit.backends.vearch.names:Names.point", 1),  # the rows are copied, and no alias leads to them
        ("embedkit.backends.vearch.client:VearchClient.drop_space", 2),  # after the one of before, the space copied
    ),
}
GC_POINTS = {
    "faiss": (
        ("embedkit.backends.faiss.backend:FaissBackend.drop", 1),
        (f"{STORE}.forget_view", 1),
        (f"{STORE}.forget_version", 1),
    ),
    "vearch": (("embedkit.backends.vearch.client:VearchClient.drop_space", 1),),  # its aliases are gone
}
INDEX = {"faiss": "hnsw", "vearch": "ivf(nlist=4)"}  # such that it is built over the rows once they are there


def test_killed_at_every_point_it_ends_like_one_that_was_not(shared, catalog, tmp_path, shared_url, monkeypatch):
    """kill -9, again and again; every search in between is answered."""
    monkeypatch.setenv("EMBEDKIT_INGEST__BATCH_SIZE", "4")
    name = shared_url.partition(":")[0]
    stop, answers, new = threading.Event(), [], {"encoder": {"image": OTHER}, "index": INDEX[name]}

    def ask():
        while not stop.is_set():
            answers.append(shared.search(product="p05", view="image", k=3))
            time.sleep(0.05)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for point, calls in POINTS[name]:
            assert not run(shared_url, tmp_path / "home", "reindex", new, point=point, calls=calls), point
            assert shared.status().version == 1
            assert shared.ingest(catalog).skipped == 24
        assert run(shared_url, tmp_path / "home", "reindex", new)
        assert shared.status().version == 2
        for point, calls in GC_POINTS[name]:
            assert not run(shared_url, tmp_path / "home", "gc", {}, point=point, calls=calls), point
            assert shared.status().versions == {1: "dropped"}
        assert run(shared_url, tmp_path / "home", "gc", {})
    finally:
        stop.set()
        asking.join()
    assert len(answers) > 20
    assert all(len(hits) == 3 for hits in answers)
    assert shared.verify().ok
    assert shared.status().versions == {}
    assert same(vectors_of(shared), freshly_made(tmp_path, catalog, RENEWED))
    left = [one for one in shared._resources.backend.list() if one.startswith("products_")]
    assert left == ["products_v2_image", "products_v2_title"]


def soon(collection, wanted, **asked):
    """The keys that a search gives; a Vearch server shows about a second later what another process has written."""
    for _ in range(100):
        found = [hit.key for hit in collection.search(**asked)]
        if found == wanted:
            break
        time.sleep(0.1)
    return found


def test_an_ingest_waits_where_the_rows_are_copied_for_an_index(tmp_path, catalog, clean_vearch_url, monkeypatch):
    """Vearch copies the rows into another space; what would come into the old one meanwhile would be lost."""
    waited = []

    def ingest_meanwhile(*arguments):
        copy(*arguments)
        if not waited:
            thread = threading.Thread(target=ingest)
            thread.start()
            thread.join(0.5)
            waited.append(thread)

    def ingest():
        with embedkit.connect(backend=clean_vearch_url, home=tmp_path / "home") as other:
            other.collection("products").ingest(catalog)

    copy = VearchBackend._copy
    with embedkit.connect(backend=clean_vearch_url, home=tmp_path / "home") as kit:
        products = kit.collection("products")
        products.ingest(catalog, encoder={"image": "plain"})
        rows = read_table(catalog)
        write_table(catalog, [*rows[1:], {**rows[0], "price": 999}, {**rows[0], "key": "new"}])
        monkeypatch.setattr(VearchBackend, "_copy", ingest_meanwhile)
        products.reindex(index="ivf(nlist=4)")
        waited[0].join()
        for asked, other in (("p00", "new"), ("new", "p00")):
            assert soon(products, [other], product=asked, where="price == 999 or key == 'new'") == [other]
        assert products.verify().ok


def test_a_search_that_knows_a_version_that_is_gone_asks_the_one_that_serves(on_faiss, tmp_path, faiss_url):
    on_faiss.search(product="p05", k=1)
    with embedkit.connect(backend=faiss_url, home=tmp_path / "home") as other:
        other.collection("products").reindex(index="hnsw")
        other.collection("products").gc()
    on_faiss._row_until = float("inf")  # as if all that had taken less than a second
    assert on_faiss.search(product="p05", view="image", k=1)
