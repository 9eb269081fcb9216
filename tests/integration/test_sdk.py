"""What the Python face answers to a wrong question, to a closed kit, and to one place written in two ways."""

from __future__ import annotations

import numpy as np
import pytest

import embedkit
from embedkit.backends.open import open_backend
from embedkit.errors import BadInput, ConfigError, FilterError
from embedkit.metadata.store import open_store
from embedkit.resources import Resources
from tests.conftest import picture


@pytest.fixture
def filled(products, catalog, plain):
    products.ingest(catalog, limit=4, encoder={"image": "plain"})
    return products


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": 5}, "a text, not int"),
        ({"text": "x", "where": {"price": 3}}, "it is a dict; write a text"),
        ({"text": "x", "where": embedkit.F("price")}, "it is a F; write"),
        ({"text": "x", "k": "5"}, "k='5' is not a number of hits"),
        ({"text": "x", "weights": [0.5]}, "Weights are a mapping.*not list"),
        ({"text": "x", "weights": {"text": 0}}, "weight of all that is asked by is 0"),
        ({"text": "x", "weights": {"text": "much"}}, "weight 'text' is a number.*, not str"),
        ({"image": 123}, "an image is a path.*, not int"),
        ({"image": np.zeros((8, 8, 3), np.uint8)}, "an image is a path.*, not ndarray"),
        ({"sketch": 123}, "an image is a path.*, not int"),
        (
            {"text": "x", "weights": {"drawing": 1}},
            "no weight 'drawing'; known: image, keywords, product, sketch, text, vector",
        ),
        ({"vector": ["a", "b"]}, "a row of numbers, not list"),
        ({"vector": ["1", "2"]}, "a row of numbers, not list"),
        ({"vector": [True, False]}, "a row of numbers, not list"),
        ({"vector": {"a": 1}}, "a row of numbers, not dict"),
        ({"vector": [[1.0], [1.0, 2.0]]}, "a row of numbers"),
        ({"product": 7}, "key is a text, not int"),
        ({"text": "x", "view": 3}, "has no view 3"),
    ],
    ids=str,
)
def test_a_question_of_a_wrong_kind_is_answered_by_a_sentence(filled, arguments, message):
    with pytest.raises(BadInput, match=f"(?i){message}"):
        filled.search(**arguments)


def test_other_calls_of_a_wrong_kind_are_answered_by_a_sentence(filled, kit):
    for call, message in (
        (lambda: filled.get(5), "key is a text, not int"),
        (lambda: filled.delete(5), "Keys are a text or a list of texts, not int"),
        (lambda: filled.delete([5]), "key is a text, not int"),
        (lambda: filled.delete(where=["price < 3"]), "it is a list"),
        (lambda: filled.count(where=5), "it is a int"),
        (lambda: filled.ingest(5), "a path or a URL, not int"),
        (lambda: filled.ingest("x.csv", limit="3"), "a whole number, not str"),
        (lambda: filled.ingest("x.csv", map=["key=sku"]), "map is a mapping.*not list"),
        (lambda: filled.ingest("x.csv", encoder="minilm"), "encoder is a mapping.*not str"),
        (lambda: filled.ingest("x.csv", map={"key": 5}), "map is a mapping.*not {'key': 5}"),
        (lambda: filled.ingest("x.csv", encoder={"title": 5}), "encoder is a mapping.*not {'title': 5}"),
        (lambda: filled.reindex(encoder={5: "plain"}), "encoder is a mapping.*not {5: 'plain'}"),
        (lambda: kit.import_vectors("x.npy", collection="z", view=5), "view is a text.*not int"),
        (lambda: kit.import_vectors("x.npy", collection="z", map=[1]), "map is a mapping.*not list"),
        (lambda: filled.backup("."), "a name of its own, not '.'; give 'products-backup'"),
        (lambda: filled.backup(""), "a name of its own, not '.'"),
        (lambda: filled.failures(limit="x"), "limit is a whole number, not str"),
        (lambda: embedkit.advise_indexes("many", 128), "n is a whole number, not str"),
        (lambda: kit.collection(5), "name is a text, not int"),
    ):
        with pytest.raises(BadInput, match=message):
            call()
    assert filled.count() == 4


def test_a_filter_of_either_form_is_still_taken(filled):
    assert filled.count(where=embedkit.F("price") < 10) == filled.count(where="price < 10") == 2
    for price in (np.int64(10), np.float32(10)):  # as tables and arrays give them
        asked = (embedkit.F("price") < price, embedkit.F("price").isin([5, price]), embedkit.F("price") != price)
        assert [filled.count(where=one) for one in asked] == [2, 2, 3]
    with pytest.raises(FilterError, match="column"):
        filled.count(where="price <")
    with pytest.raises(FilterError, match="not ndarray"):
        filled.count(where=embedkit.F("price") == np.array([5]))


def test_no_text_form_shows_a_password(kit, plain, tmp_path):
    (tmp_path / "t.csv").write_text("id,image\n1,http://me:Zq7@127.0.0.1:70000/x.png\n")
    products = kit.collection("products")
    products.ingest(tmp_path / "t.csv", encoder={"image": "plain"})
    (failure,) = products.failures()
    assert "Zq7" not in repr(failure)
    assert "Zq7" in str(failure.record["image"])
    guarded = embedkit.connect(backend="milvus://me:Zq7@db:1/x")
    assert repr(guarded).startswith("Kit(backend='milvus://me:***@db:1/x', store='sqlite:///")
    assert "Zq7" not in repr(guarded.collection("x"))


def test_a_collection_that_another_thread_reindexes_is_asked_all_the_same(filled, monkeypatch):
    notice = Resources.notice

    def meanwhile(resources, row):
        notice(resources, row)
        filled._row = None  # as the end of a reindex does

    monkeypatch.setattr(Resources, "notice", meanwhile)
    filled._row = None
    assert filled.search(product="p01", k=2)
    assert filled.count() == 4


def test_a_closed_kit_says_so(tmp_path, faiss_url, catalog):
    with embedkit.connect(backend=faiss_url, home=tmp_path / "home") as kit:
        products = kit.collection("products")
        products.ingest(catalog, limit=4)
    kit.close()
    for call in (
        lambda: products.search(text="shoe"),
        lambda: products.search(vector=np.ones(1_280, np.float32)),
        lambda: products.ingest(catalog),
        lambda: products.get("p01"),
        products.count,
        products.status,
        kit.collections,
        kit.collection("products").count,
    ):
        with pytest.raises(ConfigError, match=r"closed.*connect again"):
            call()


def test_one_place_is_one_collection_however_its_url_is_written(tmp_path, monkeypatch, catalog):
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    with embedkit.connect(backend="faiss:///vectors", home="home") as kit:
        kit.collection("products").ingest(catalog, limit=4)
    for url in (
        f"faiss:///{tmp_path}/vectors",
        f"faiss:///./../{tmp_path.name}/vectors/",
        f"FAISS:///{tmp_path}/link/vectors",
    ):
        with embedkit.connect(backend=url, home="home") as kit:
            assert [one.name for one in kit.collections()] == ["products"]
            assert len(kit.collection("products").search(image=picture(1), k=4)) == 4
            assert kit.collection("products").ingest(catalog, limit=4).skipped == 4
    with embedkit.connect(backend="faiss:///elsewhere", home="home") as kit:
        assert kit.collections() == ()


def test_of_two_entries_for_one_place_the_one_with_the_same_text_is_taken(tmp_path, monkeypatch):
    """As two embedkits of before may have left them."""
    monkeypatch.chdir(tmp_path)
    store = open_store(f"sqlite:///{tmp_path}/store.db")
    first = store.create_collection("c", backend_url="faiss:///x", views=())
    second = store.create_collection("c", backend_url="faiss:///y", views=())
    with store._write() as connection:
        connection.exec_driver_sql(
            f"UPDATE collection SET backend_url = 'faiss:///{tmp_path}/x' WHERE id = {second.id}"
        )
    assert store.collection("c", "faiss:///x").id == first.id
    assert store.collection("c", f"faiss:///{tmp_path}/x").id == second.id
    assert store.collection("c", "faiss:///./x").id == first.id
    store.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("faiss:///{}?a=b", "'faiss' has no option 'a' in its URL; it takes none"),
        ("faiss:///{}?mmap", "no option 'mmap'"),
        ("milvus:///{}.db?timeout=5", "'milvus' has no option 'timeout'"),
        ("faiss:///{}#3", "holds a #; write %23"),
    ],
)
def test_a_part_of_a_backend_url_that_means_nothing_is_refused(tmp_path, url, message):
    with pytest.raises(ConfigError, match=message):
        open_backend(url.format(tmp_path / "place"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("view", "encoder", "message"),
    [
        ("image", "minilm", "'minilm' takes no image.*write title=minilm"),
        ("title", "effnet-lite0", "'effnet-lite0' takes no text.*write image=effnet-lite0"),
    ],
)
def test_a_view_and_an_encoder_that_do_not_go_together_are_refused(products, catalog, view, encoder, message):
    with pytest.raises(ConfigError, match=message):
        products.ingest(catalog, encoder={view: encoder})
