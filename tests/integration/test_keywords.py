"""Products by words, in SQLite and in PostgreSQL: what counts as a word, how they rank, and none falls behind."""

from __future__ import annotations

import math
import sqlite3

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

import embedkit
from embedkit.errors import BadInput, EmbedkitError, StoreError
from embedkit.metadata import full_text, keywords
from embedkit.metadata.full_text import words_in
from embedkit.metadata.store import open_store
from tests.conftest import read_table, write_table
from tests.made import fill, product, unit, write

TITLES = [
    "Red canvas shoe",
    "Blue canvas bag",
    "Red leather shoe, red laces",
    "Crème brûlée torch",
    "Straße 501 jeans",
    None,
    "A much longer title of a green shoe for the garden, the beach and the street",
    "Red wine glass",
    "Blue glass",
]
ROWS = [product(n, title, price=n, notes=["Vegan", {"no": "word"}], size=42) for n, title in enumerate(TITLES)]


@pytest.fixture
def shop(store_url, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDKIT_STORE", store_url)
    with embedkit.connect(backend=f"faiss:///{tmp_path}/faiss", home=tmp_path / "h") as kit:
        yield fill(kit, "shop", ROWS, {"image": unit(len(ROWS), 8)})


def keys(hits):
    return [int(hit.key[1:]) for hit in hits]


def test_products_are_found_by_any_word_without_case_and_accents_and_nothing_falls_behind(shop):
    assert set(keys(shop.search(keywords="RED shoe", k=2))) == {0, 2}  # with both words
    assert set(keys(shop.search(keywords="RED shoe"))) == {0, 2, 6, 7}
    assert keys(shop.search(keywords="red shoe", where="price < 2")) == [0]
    assert keys(shop.search(keywords="red shoe", where="price >= 7 or title like 'A%'", k=1)) == [7]
    assert keys(shop.search(keywords="creme BRULÉE")) == [3]
    assert keys(shop.search(keywords="STRASSE")) == [4]
    assert keys(shop.search(keywords="501")) == [4]
    assert keys(shop.search(keywords="sho")) == []
    assert shop.search(keywords="p0001 vegan 42") == []  # neither keys nor attributes, unless they are chosen

    row = shop._existing()
    write(_kit(shop), row, [product(0, "Green hat")], {"image": unit(1, 8)})
    assert keys(shop.search(keywords="canvas")) == [1]
    assert set(keys(shop.search(keywords="green"))) == {0, 6}
    shop.delete("p0001")
    assert shop.search(keywords="canvas") == []
    shop._resources.store.set_keywords(row.id, ["notes", "size"])
    assert len(shop.search(keywords="vegan", k=20)) == 7  # of eight products one was written without notes
    assert len(shop.search(keywords="42 word", k=20)) == 7
    shop._resources.store.set_keywords(row.id, [])
    assert shop.search(keywords="vegan") == []
    shop.drop()
    with _kit(shop)._resources.store._read() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM product")).scalar() == 0


def _kit(there):
    """What `fill` and `write` take of a kit."""
    return type("Kit", (), {"_resources": there._resources})


def test_what_means_something_to_a_database_is_a_word_like_any_other(shop):
    for asked in ('red" OR words:*', "red & !shoe | '", "red NEAR(shoe)", "%s red ?", "red\x00shoe", "{red} -shoe"):
        assert {0, 2, 7} <= set(keys(shop.search(keywords=asked)))
    assert keys(shop.search(keywords="not and or near")) == [6]  # which has an "and"


@pytest.mark.parametrize("others", [0, 2])
def test_sqlite_ranks_by_bm25(tmp_path, others):
    """Robertson's BM25 with k1 = 1.2 and b = 0.75, written down from the paper; an idf of 0 or less counts as 1e-6.

    What other collections of the store hold, in which other words are rare, changes nothing.
    """
    store = open_store(f"sqlite:///{tmp_path}/e.db")
    for number in range(others):
        there = store.create_collection(f"other{number}", backend_url="faiss:///x", views=[])
        _write(store, there, [product(n, f"glass for a garden, number {n} of many") for n in range(20)])
    row = store.create_collection("shop", backend_url="faiss:///x", views=[])
    _write(store, row)
    texts = {one.key: words_in(one.title) for one in ROWS if one.title}
    mean = sum(map(len, texts.values())) / len(texts)
    asked = ["red", "shoe", "glass", "garden"]
    right = {}
    for key, text in texts.items():
        total = 0.0
        for word in asked:
            holding = sum(word in other for other in texts.values())
            idf = max(1e-6, math.log((len(texts) - holding + 0.5) / (holding + 0.5)))
            often = text.count(word)
            total += idf * often * 2.2 / (often + 1.2 * (1 - 0.75 + 0.75 * len(text) / mean))
        if total:
            right[key] = total
    found = [(one.key, score) for one, score in store.keyword_ranking(row.id, asked, limit=99)]
    assert found == [(key, pytest.approx(right[key])) for key in sorted(right, key=lambda key: (-right[key], key))]
    among = store.keyword_ranking(row.id, asked, limit=99, among=["p0007", "p0003"])
    assert [(one.key, score) for one, score in among] == [("p0007", pytest.approx(right["p0007"]))]
    store.close()


def _write(store, row, rows=ROWS):
    from embedkit.metadata.rows import ProductWrite, RunCounts

    run = store.start_run(row.id, source="made", source_fingerprint=None)
    writes = [ProductWrite(one.key, one.title, None, one.attributes) for one in rows]
    store.begin(row.id, writes)
    store.commit(row.id, run_id=run.id, writes=writes, offset=9, counts=RunCounts())


def test_what_is_counted_of_a_collection_is_what_it_has(tmp_path):
    def counted():
        with sqlite3.connect(tmp_path / "e.db") as database:
            found = database.execute("SELECT * FROM product_words_counts WHERE products OR words").fetchall()
            words = database.execute("SELECT collection_id, words FROM product WHERE words IS NOT NULL").fetchall()
            database.execute("INSERT INTO product_words(product_words) VALUES ('integrity-check')")
        database.close()
        there = {cid: [text.split() for owner, text in words if owner == cid] for cid, _ in words}
        assert {cid: (products, size) for cid, products, size in found} == {
            cid: (len(texts), sum(map(len, texts))) for cid, texts in there.items()
        }
        return dict.fromkeys(there)

    store = open_store(f"sqlite:///{tmp_path}/e.db")
    one, two = (store.create_collection(name, backend_url="faiss:///x", views=[]) for name in ("one", "two"))
    for row in (one, two):
        _write(store, row)
    assert len(counted()) == 2
    _write(store, one, [product(0, None), product(1, "Green"), product(5, "At last a title")])
    counted()
    store.set_keywords(two.id, ["notes", "size"])
    counted()
    store.mark_deleted(one.id, ["p0002"])
    store.purge(one.id, [])
    counted()
    store.drop_collection(two.id)
    assert counted() == {one.id: None}
    store.close()


def _migrate(engine, step, target):
    config = Config()
    config.set_main_option("script_location", "embedkit/metadata/migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        step(config, target)


def test_an_index_of_before_0004_is_made_anew(tmp_path):
    """Its tokeniser split words at letters that it did not know, and a few capitals were not folded."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/e.db")
    _migrate(engine, command.upgrade, "0003")
    with engine.begin() as connection:
        full_text.drop_index(connection)
        for statement in (
            "CREATE VIRTUAL TABLE product_words USING fts5"
            "(words, content='product', content_rowid='id', tokenize='unicode61 remove_diacritics 0')",
            "CREATE TRIGGER product_words_insert AFTER INSERT ON product WHEN new.words IS NOT NULL BEGIN "
            "INSERT INTO product_words(rowid, words) VALUES (new.id, new.words); END",
            "CREATE TRIGGER product_words_delete AFTER DELETE ON product WHEN old.words IS NOT NULL BEGIN "
            "INSERT INTO product_words(product_words, rowid, words) VALUES ('delete', old.id, old.words); END",
            "CREATE TRIGGER product_words_update AFTER UPDATE OF words ON product BEGIN SELECT 1; END",
            *(
                "INSERT INTO collection (id, name, backend_url, version, views, created_at) "
                f"VALUES ({cid}, 'c{cid}', 'faiss:///x', 1, '[]', '2026-01-01')"
                for cid in (1, 2)
            ),
            "INSERT INTO product (collection_id, key, attributes, deleted, words) VALUES "
            "(1, 'a', '{}', 0, 'rote TEL'), (1, 'b', '{}', 0, NULL), "
            "(1, 'c', '{}', 0, 'rote x𞤢y'), (2, 'd', '{}', 0, 'tel')",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    store = open_store(f"sqlite:///{tmp_path}/e.db")
    for word, found in (("tel", ["a"]), ("rote", ["a", "c"]), ("x𞤢y", ["c"]), ("x", [])):
        assert [one.key for one, _ in store.keyword_ranking(1, [word], limit=9)] == found
    store.drop_collection(2)
    assert [one.key for one, _ in store.keyword_ranking(1, ["tel", "x𞤢y"], limit=9)] == ["a", "c"]
    store.close()


def test_products_of_before_are_found_after_the_migration_and_it_can_be_taken_back(store_url):
    engine = sa.create_engine(sa.make_url(store_url))
    _migrate(engine, command.upgrade, "0001")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO collection (name, backend_url, version, views, created_at) "
            "VALUES ('c', 'faiss:///x', 1, '[]', '2026-01-01')"
        )
        for key, title in (("a", "'Grüne Tasche'"), ("b", "NULL"), ("c", "'Rote Tasche'")):
            connection.exec_driver_sql(
                f"INSERT INTO product (collection_id, key, title, attributes, deleted) "
                f"VALUES (1, '{key}', {title}, '{{}}', {'false' if engine.dialect.name == 'postgresql' else 0})"
            )
    store = open_store(store_url)
    row = store.collection("c", "faiss:///x")
    assert row.keywords == ()
    assert [one.key for one, _ in store.keyword_ranking(row.id, ["tasche"], limit=9)] == ["a", "c"]
    assert [one.key for one, _ in store.keyword_ranking(row.id, ["grune"], limit=9)] == ["a"]
    store.close()
    _migrate(engine, command.downgrade, "0001")
    assert {column["name"] for column in sa.inspect(engine).get_columns("product")}.isdisjoint(
        {"words", "product_words"}
    )
    engine.dispose()


def test_a_sqlite_without_full_text_search_says_so_and_does_the_rest(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/e.db"
    with monkeypatch.context() as patch:
        for module in (full_text, keywords):
            patch.setattr(module, "has_fts5", lambda _: False)
        store = open_store(url)
        row = store.create_collection("shop", backend_url="faiss:///x", views=[])
        _write(store, row)
        assert store.count_products(row.id) == len(ROWS)
        with pytest.raises(StoreError, match=r"built without FTS5.*PostgreSQL"):
            store.keyword_ranking(row.id, ["red"], limit=9)
        store.close()
    store = open_store(url)  # of another Python, later
    assert {one.key for one, _ in store.keyword_ranking(row.id, ["red"], limit=9)} == {"p0000", "p0002", "p0007"}
    store.close()
    with sqlite3.connect(tmp_path / "e.db") as database:
        database.execute("INSERT INTO product_words(product_words) VALUES ('integrity-check')")
    database.close()


@pytest.mark.usefixtures("signs")
def test_words_alone_are_found_while_the_backend_is_away(tmp_path, catalog):
    vectors = tmp_path / "vectors"
    with embedkit.connect(backend=f"faiss:///{vectors}", home=tmp_path / "home") as kit:
        kit.collection("products").ingest(catalog, encoder={"image": "signs"})
    vectors.rename(tmp_path / "elsewhere")
    with embedkit.connect(backend=f"faiss:///{vectors}", home=tmp_path / "home") as kit:
        products = kit.collection("products")
        assert [hit.key for hit in products.search(keywords="shoe 7", k=1)] == ["p07"]
        with pytest.raises(BadInput, match="nprobes"):
            products.search(keywords="shoe 7", params={"nprobes": 3})
        with pytest.raises(EmbedkitError):
            products.search(product="p07")


@pytest.mark.usefixtures("signs")
def test_the_setting_names_attributes_and_the_next_ingest_reads_their_words(tmp_path, faiss_url, catalog, monkeypatch):
    def connected():
        return embedkit.connect(backend=faiss_url, home=tmp_path / "home")

    with connected() as kit:
        kit.collection("products").ingest(catalog, encoder={"image": "signs"})
        assert kit.collection("products").search(keywords="zeta") == []
    monkeypatch.setenv("EMBEDKIT_KEYWORDS", '["brand"]')
    with connected() as kit:
        products = kit.collection("products")
        assert products.ingest(catalog, dry_run=True).skipped == 24
        assert products.search(keywords="zeta") == []
        assert products.ingest(catalog).skipped == 24
        assert len(products.search(keywords="zeta", k=30)) == 12
        rows = read_table(catalog)
        rows[0] |= {"brand": "Zeta"}
        write_table(catalog, rows)
        assert products.ingest(catalog).updated == 1
        assert len(products.search(keywords="zeta", k=30)) == 13
    monkeypatch.delenv("EMBEDKIT_KEYWORDS")
    with connected() as kit:  # who says nothing changes nothing
        kit.collection("products").ingest(catalog)
        assert len(kit.collection("products").search(keywords="zeta", k=30)) == 13
