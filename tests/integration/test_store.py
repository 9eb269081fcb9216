"""The metadata store: one behaviour on SQLite and PostgreSQL, migrations that fit the models."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace

import alembic.autogenerate
import alembic.command
import alembic.config
import alembic.migration
import alembic.script
import pytest
import sqlalchemy as sa

import embedkit
from embedkit.errors import DataCorrupt, StoreBusy, StoreError
from embedkit.filters import F
from embedkit.metadata import engine
from embedkit.metadata.models import Base
from embedkit.metadata.rows import FailureWrite, ProductWrite, RunCounts, ViewRow
from embedkit.metadata.store import open_store
from tests.conftest import read_table, write_table


def test_a_catalog_goes_in_and_out_on_either_database(store_url, catalog, tmp_path, faiss_url, monkeypatch):
    monkeypatch.setenv("EMBEDKIT_STORE", store_url)
    first, *others = read_table(catalog)
    write_table(catalog, [{**first, "sizes": {"eu": 42, "us": None}}, *others])
    with embedkit.connect(backend=faiss_url, home=tmp_path / "h") as kit:
        there = kit.collection("products")
        assert there.ingest(catalog).encoded == 24
        assert there.ingest(catalog).skipped == 24
        assert there.search(text="blue shoe 8", where="price < 1000", k=1)[0].key == "p08"
        assert there.unknown_attributes("price < 9 or sizes.eu == 9 or sizes == 9 or title == 'x' and key == 'x'") == []
        assert there.unknown_attributes(F('odd "name') == 1) == []  # what no path can say is taken to be there
        unknown = there.unknown_attributes("not (pricee < 9) or sizes.uk == 1 or sizes.us == 1 or zzz is null")
        assert [sentence.split("; ")[1] for sentence in unknown] == [
            "did you mean 'price'?", "did you mean 'sizes.eu'?", "did you mean 'sizes.eu'?",
            "they have brand, price, sizes.eu",
        ]  # fmt: skip
        assert there.delete(where="brand == 'acme'") == 12
        assert there.count() == 12
        write_table(catalog, [{"key": "lost", "image": "img/lost.png"}])
        assert there.ingest(catalog).failed == 1
        write_table(catalog, [{"key": "p08", "title": "a shoe"}, {"key": "worse", "image": "img/worse.png"}])
        assert there.ingest(catalog, prune=True).deleted == 12
        assert [row.key for row in there.failures()] == ["worse"]
        assert there.verify().ok
        assert [info.name for info in kit.collections()] == ["products"]
        there.drop()
        assert kit.collections() == ()


def test_a_version_is_built_switched_and_dropped_on_either_database(
    store_url, catalog, tmp_path, faiss_url, monkeypatch
):
    monkeypatch.setenv("EMBEDKIT_STORE", store_url)
    monkeypatch.setattr("embedkit.living.versions._GRACE", 0.0)
    with embedkit.connect(backend=faiss_url, home=tmp_path / "h") as kit:
        there = kit.collection("products")
        there.ingest(catalog, limit=6)
        other = open_store(store_url)

        def meanwhile(moment):
            with pytest.raises(StoreBusy, match="reindexing"), other.changing_versions(row.id, "products"):
                pass
            if moment.seen == 0:
                assert there.ingest(catalog, limit=12).encoded == 6

        row = other.collection("products", kit._resources.backend_url)
        assert there.reindex(index="hnsw", progress=meanwhile).switched.after == 2
        other.close()
        assert there.search(text="red shoe 0", k=1)[0].key == "p00"
        assert there.delete("p11") == 1
        assert there.rollback().lacking == {}
        assert there.verify().ok
        assert there.count() == 11
        assert [one.vectors for one in there.gc().dropped] == [22]
        assert there.status().versions == {}
        assert there.reindex(index="hnsw").version == 3, "no number is given out twice"


def test_a_view_is_changed_and_what_others_have_changed_meanwhile_stays(store_url):
    views = [ViewRow(name, "image", "e", "f", 8, "cosine", f"p_v1_{name}") for name in ("image", "code")]
    with closing(open_store(store_url)) as one, closing(open_store(store_url)) as other:
        row = one.create_collection("p", backend_url="oracle://x", views=views)
        image, code = row.views
        assert other.set_view(row.id, replace(code, index="hnsw"), version=1)
        assert one.set_view(row.id, replace(image, index="ivf"), version=1, over="flat")
        assert not one.set_view(row.id, replace(code, knobs={"nprobe": 3}), version=1, over="flat")
        assert not one.set_view(row.id, replace(code, knobs={"ef": 3}), version=2)
        assert [view.index for view in other.collection("p", "oracle://x").views] == ["ivf", "hnsw"]
        assert not any(view.knobs for view in other.collection("p", "oracle://x").views)
        one.move_encoders(row.id, {"image": "e2"}, version=1)
        one.move_encoders(row.id, {"code": "e2"}, version=2)
        known = [(view.encoder, view.index) for view in other.collection("p", "oracle://x").views]
        assert known == [("e2", "ivf"), ("e", "hnsw")]


def test_whoever_writes_to_a_collection_does_so_alone(store_url):
    one, other = open_store(store_url), open_store(store_url)
    with one.writing(7), other.writing(8):
        pass
    entered = []

    def enter():
        with other.writing(7):
            entered.append(True)

    with one.writing(7):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join(0.2)
        assert not entered
    thread.join()
    assert entered
    one.close()
    other.close()


def test_a_run_belongs_to_one_process(store_url, tmp_path):
    with closing(open_store(store_url)) as one, closing(open_store(store_url)) as other:
        with one.running(7) as ours, other.running(7) as theirs, other.running(8) as another:
            assert (ours, theirs, another) == (True, False, True)
        with other.running(7) as theirs:
            assert theirs
    assert not list(tmp_path.glob("*.run-*"))


def test_a_product_remembers_the_newest_run_that_saw_it(store_url):
    with closing(open_store(store_url)) as store:
        views = [ViewRow("image", "image", "e", "f", 8, "cosine", "p_v1_image")]
        row = store.create_collection("p", backend_url="oracle://x", views=views)
        older, newer = (store.start_run(row.id, source="x", source_fingerprint=None).id for _ in range(2))
        writes = [ProductWrite(key, key, None, {}) for key in ("a", "b")]

        def see(run_id, **seen):
            store.commit(row.id, run_id=run_id, offset=0, counts=RunCounts(), **{"writes": (), **seen})

        see(older, writes=writes)
        assert list(store.unseen(row.id, run_id=newer)) == [["a", "b"]]
        see(newer, writes=writes[:1], skipped=["b"])
        see(older, writes=writes[1:], skipped=["a"])
        assert list(store.unseen(row.id, run_id=newer)) == []
        assert list(store.unseen(row.id, run_id=older)) == []


def test_a_store_of_the_first_version_is_brought_up_to_date_with_what_it_holds(store_url):
    """Its collection has views without a version."""
    database = sa.create_engine(store_url)
    with database.begin() as connection:
        config = alembic.config.Config()
        config.set_main_option("script_location", "embedkit/metadata/migrations")
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0001")
        connection.execute(
            sa.text(
                "INSERT INTO collection (name, backend_url, version, views, created_at) VALUES ('p', 'faiss:///x', 1, "
                """'[{"name": "image", "modality": "image", "encoder": "e", "fingerprint": "f", "dim": 8, """
                """"metric": "cosine", "physical": "p_v1_image", "index": "flat"}]', '2026-01-01 00:00:00')"""
            )
        )
    database.dispose()
    store = open_store(store_url)
    row = store.collection("p", "faiss:///x")
    assert (row.views[0].slot, row.others, row.epoch) == ("image", (), 0)
    store.close()


def test_migrations_make_exactly_the_models(store_url):
    open_store(store_url).close()
    database = sa.create_engine(store_url)
    with database.connect() as connection:
        context = alembic.migration.MigrationContext.configure(
            connection, opts={"include_name": lambda name, *_: not str(name).startswith("product_words")}
        )  # the index of keywords is each database's own, see metadata/full_text.py
        assert context.get_current_revision() == engine.HEAD
        differences = alembic.autogenerate.compare_metadata(context, Base.metadata)
    database.dispose()
    assert differences == []


def test_the_newest_migration_is_the_one_the_code_expects():
    script = alembic.script.ScriptDirectory("embedkit/metadata/migrations")
    assert script.get_current_head() == engine.HEAD


def test_a_store_of_a_newer_embedkit_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path}/e.db"
    open_store(url).close()
    with sqlite3.connect(tmp_path / "e.db") as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    db.close()
    with pytest.raises(StoreError, match="newer"):
        open_store(url)


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "e.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(DataCorrupt, match=r"e\.db"):
        open_store(f"sqlite:///{tmp_path}/e.db")


def test_a_locked_store_is_busy_not_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.2, raising=True)
    url = f"sqlite:///{tmp_path}/e.db"
    store = open_store(url)
    other = sqlite3.connect(tmp_path / "e.db")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy):
        store.create_collection("p", backend_url="faiss:///x", views=[])
    other.rollback()
    other.close()
    store.create_collection("p", backend_url="faiss:///x", views=[])
    store.close()


def _written(key, *views):
    return ProductWrite(key, f"title of {key}", None, {"a": 1}, vectors=dict.fromkeys(views or ("v",), ("h", "f")))


def test_a_product_is_not_there_before_it_is_committed(store_url):
    """A kill between the two steps of a write leaves it so."""
    with closing(open_store(store_url)) as store:
        cid = store.create_collection("p", backend_url="faiss:///x", views=[]).id
        run = store.start_run(cid, source="x", source_fingerprint=None)

        def there():
            answers = store.keys(cid), [*store.products(cid, ["a", "b"])], [*store.known(cid, ["a", "b"])]
            assert answers[0] == answers[1] == answers[2]
            assert store.count_products(cid) == len(answers[0])
            return answers[0]

        a, b = _written("a"), _written("b")
        store.begin(cid, [a, b])
        assert there() == []
        store.commit(cid, run_id=run.id, writes=[a], offset=1, counts=RunCounts())
        assert there() == ["a"]
        store.begin(cid, [a])
        assert store.product(cid, "a").title == "title of a", "it stays as it was while it is written anew"
        store.mark_deleted(cid, ["a"])
        store.begin(cid, [a])
        assert there() == [], "nor is one that was deleted back before that"
        store.commit(cid, run_id=run.id, writes=[a], offset=1, counts=RunCounts())
        assert there() == ["a"]


def test_two_ingests_begin_the_same_products_and_remember_the_same_failures(store_url):
    """The other one has written them and not yet committed."""
    a, b = _written("a", "v"), _written("b", "v", "w")
    lost = FailureWrite("c", "row 3", "read", "it is empty", {"key": "c"})
    with closing(open_store(store_url)) as store:
        cid = store.create_collection("p", backend_url="faiss:///x", views=[]).id
        run = store.start_run(cid, source="x", source_fingerprint=None)
        store.begin(cid, [a])
        database = sa.create_engine(store_url)
        with database.connect() as other:
            if other.dialect.name == "sqlite":
                other.connection.driver_connection.isolation_level = None
                other.exec_driver_sql("BEGIN IMMEDIATE")
            product = "INSERT INTO product (collection_id, key, attributes, deleted) VALUES (:cid, :key, '{}', :no)"
            other.execute(sa.text(product), {"cid": cid, "key": "b", "no": False})
            vector = (
                "INSERT INTO vector (collection_id, product_id, view, version, state, content_hash, fingerprint) "
                "SELECT collection_id, id, 'w', 1, 'pending', '', '' FROM product WHERE key = :key"
            )
            for key in ("a", "b"):
                other.execute(sa.text(vector), {"key": key})
            failure = (
                "INSERT INTO failure (collection_id, key, locator, stage, error, record, attempts, first_seen, "
                "last_seen) VALUES (:cid, 'c', 'row 9', 'fetch', 'x', '{}', 1, '2026-01-01', '2026-01-01')"
            )
            other.execute(sa.text(failure), {"cid": cid})
            issued = []

            def work():
                issued.extend(store.begin(cid, [b, replace(a, vectors=b.vectors)]))
                store.commit(cid, run_id=run.id, writes=[a, b], failures=[lost], offset=1, counts=RunCounts())

            thread = threading.Thread(target=work)
            thread.start()
            thread.join(0.2)
            assert not issued, "it waits for the other one"
            other.commit()
            thread.join()
        database.dispose()
        ids = store.vector_ids_of(cid, ["a", "b"])
        assert [dict(one) for one in issued] == [ids["b"], {**ids["a"], "w": issued[1]["w"]}]
        assert store.count_vectors(cid, "w") + store.count_vectors(cid, "w", "pending") == 2
        [failure] = store.failures(cid)
        assert (failure.locator, failure.stage, failure.attempts) == ("row 3", "read", 2)
        assert failure.first_seen < failure.last_seen


def test_ids_are_issued_in_the_order_of_the_products(store_url):
    """Backends hold rows by ascending ids for less."""
    with closing(open_store(store_url)) as store:
        cid = store.create_collection("p", backend_url="faiss:///x", views=[]).id
        issued = store.begin(cid, [_written(f"{n * 7919 % 300}", "v", "w") for n in range(300)])
        ids = [vector_id for one in issued for vector_id in one.values()]
        assert ids == sorted(set(ids))
        assert len(ids) == 600


def test_to_delete_a_product_looks_at_no_other(tmp_path):
    """SQLite tells which index each statement goes by."""
    plans = []

    def explain(connection, cursor, statement, values, context, many):
        del cursor, context
        if statement.startswith(("DELETE", "UPDATE")) and not many:
            rows = connection.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
            plans.extend(row[3] for row in rows)

    with closing(open_store(f"sqlite:///{tmp_path}/e.db")) as store:
        cid = store.create_collection("p", backend_url="faiss:///x", views=[]).id
        run = store.start_run(cid, source="x", source_fingerprint=None)
        writes = [_written(f"k{n}") for n in range(5)]
        store.begin(cid, writes)
        store.commit(cid, run_id=run.id, writes=writes, offset=5, counts=RunCounts())
        sa.event.listen(store._engine, "before_cursor_execute", explain)
        marked = store.mark_deleted(cid, ["k3"])
        store.purge(cid, marked["v"])
        store.mark_deleted(cid, ["k3"])
        assert store.keys(cid) == ["k0", "k1", "k2", "k4"]
        assert store.count_vectors(cid, "v", "deleted") == 0
    found = {plan for plan in plans if plan.startswith(("SEARCH product", "SEARCH vector", "SCAN"))}
    assert found
    assert all("key=?" in plan or "rowid=?" in plan or "product_id=?" in plan for plan in found), found


def test_many_threads_write_and_read_one_store(store_url):
    store = open_store(store_url)
    row = store.create_collection("p", backend_url="faiss:///x", views=[])
    run = store.start_run(row.id, source="x", source_fingerprint=None)
    errors = []

    def work(worker):
        try:
            for batch in range(5):
                writes = [
                    ProductWrite(f"{worker}-{batch}-{n}", "t", None, {}, vectors={"v": ("h", "f")}) for n in range(10)
                ]
                store.begin(row.id, writes)
                store.commit(row.id, run_id=run.id, writes=writes, offset=0, counts=RunCounts())
        except Exception as error:  # noqa: BLE001  a thread must hand its error over
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.count_products(row.id) == 200
    ids = [i for page in store.scan_vector_ids(row.id, "v") for i in page]
    assert len(set(ids)) == 200
    store.close()


def test_opening_a_store_that_is_up_to_date_loads_no_migrations(tmp_path):
    url = f"sqlite:///{tmp_path}/e.db"
    open_store(url).close()
    code = (
        "import sys; from embedkit.metadata.store import open_store; "
        f"open_store({url!r}).close(); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
