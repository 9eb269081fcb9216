"""A row that cannot go in fails alone, on either store, and shows nobody's password."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import embedkit
from embedkit.errors import BadInput, BadSource, ProductNotFound
from tests.conftest import write_table
from tests.plain_encoder import PlainEncoder
from tests.webserver import WebServer

pytestmark = pytest.mark.usefixtures("plain")

TITLES = {"title": "plain"}


@pytest.fixture
def kit_on(store_url, faiss_url, tmp_path, monkeypatch):
    """A kit whose store is in each of the databases."""
    monkeypatch.setenv("EMBEDKIT_STORE", store_url)
    with embedkit.connect(backend=faiss_url, home=tmp_path / "home") as opened:
        yield opened


def table(folder, rows):
    write_table(folder, [{"title": "a title", **row} for row in rows])
    return folder / "products.jsonl"


@pytest.mark.parametrize(("number", "reason"), [(0.0, "all zero"), (np.nan, "NaN")])
def test_a_product_of_which_the_encoder_makes_no_vector_fails_alone(products, tmp_path, monkeypatch, number, reason):
    plain, bad = PlainEncoder.encode, "title 3"

    def encode(self, batch):
        made = plain(self, batch)
        if not isinstance(batch, np.ndarray):
            made[[place for place, text in enumerate(batch) if text == bad]] = number
        return made

    monkeypatch.setattr(PlainEncoder, "encode", encode)
    catalog = table(tmp_path, [{"key": f"k{n}", "title": f"title {n}", "price": n} for n in range(10)])
    report = products.ingest(catalog, encoder=TITLES)
    assert (report.encoded, report.failed) == (9, 1)
    assert products.count() == 9
    assert products.get("k1").attributes == {"price": 1}
    with pytest.raises(ProductNotFound):
        products.get("k3")
    [failure] = products.failures()
    assert (failure.key, failure.stage) == ("k3", "encode")
    assert failure.error.startswith("products.jsonl row 4: the vector that 'plain")
    assert reason in failure.error
    again = products.ingest(catalog)
    assert (again.skipped, again.failed) == (9, 1)
    bad = "title 5"
    reindexed = products.reindex(encoder={"title": "plain(seed=1)"}, switch=False)
    assert (reindexed.encoded, reindexed.failed) == (8, 1)
    assert reason in reindexed.lost[0][1]


def test_an_import_stops_at_a_row_that_no_search_can_find_and_writes_none_of_its_page(kit, tmp_path, monkeypatch):
    monkeypatch.setattr("embedkit.living.given._PAGE", 100)
    vectors = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    vectors[170] = np.nan
    np.save(tmp_path / "v.npy", vectors)
    np.save(tmp_path / "k.npy", np.arange(300))
    with pytest.raises(BadInput, match=r"product '170' .* NaN"):
        kit.import_vectors(tmp_path / "v.npy", keys=tmp_path / "k.npy", collection="taken")
    taken = kit.collection("taken")
    assert (taken.count(), taken.verify().ok) == (100, True)
    vectors[170] = 1
    np.save(tmp_path / "v.npy", vectors)
    report = kit.import_vectors(tmp_path / "v.npy", keys=tmp_path / "k.npy", collection="taken")
    assert (report.imported, report.skipped, taken.count()) == (200, 100, 300)


def test_what_is_no_text_is_a_failure_of_its_row_on_either_store(kit_on, tmp_path):
    half = "\ud800"
    catalog = table(
        tmp_path,
        [
            {"key": "good"},
            {"key": half},
            {"key": "nul\x00"},
            {"key": "image", "image": f"{half}.jpg"},
            {"key": "image nul", "image": "a\x00.jpg"},
            {"key": "title", "title": f"a {half}"},
            {"key": "attribute", "colours": ["red", {"name": f"{half}"}]},
            {"key": "attribute nul", "colour": "r\x00d"},
            {"key": "name", "co\x00lour": "red"},
        ],
    )
    products = kit_on.collection("products")
    for _ in range(2):
        assert products.ingest(catalog, encoder=TITLES).failed == 8
        assert products.count() == 1
    failures = products.failures()
    assert all("no valid text" in one.error for one in failures)
    assert {one.key for one in failures} == {
        "\\ud800",
        "nul\\x00",
        *("image", "image nul", "title", "attribute", "attribute nul", "name"),
    }
    assert {one.attempts for one in failures} == {2}


def test_a_key_takes_1024_bytes_on_either_store(kit_on, tmp_path):
    letters = [chr(0x4E00 + n * 7919 % 20_000) for n in range(2_000)]  # which no database can compress
    longest, longer, longest_of_all = ("".join(letters[:n]) for n in (341, 342, 2_000))
    catalog = table(tmp_path, [{"key": longest}, {"key": longer}, {"key": longest_of_all}])
    products = kit_on.collection("products")
    report = products.ingest(catalog, encoder=TITLES)
    assert (report.encoded, report.failed) == (1, 2)
    assert products.get(longest).key == longest
    assert sorted(one.error for one in products.failures()) == [
        "products.jsonl row 2: the key takes 1,026 bytes of UTF-8, more than 1,024",
        "products.jsonl row 3: the key takes 6,000 bytes of UTF-8, more than 1,024",
    ]


def test_no_failure_shows_the_password_of_a_picture(products, tmp_path, caplog):
    with WebServer().running() as server:
        server.files["/a.png"] = b"no picture"
        place = server.url.replace("http://", "http://me:secret@")
        rows = [{"key": "a", "image": f"{place}/a.png"}, {"key": "b", "image": "http://me:sec/ret@host/a.png"}]
        catalog = table(tmp_path, rows)
        caplog.set_level(logging.WARNING)
        assert products.ingest(catalog, encoder={"image": "plain"}, dry_run=True).failed == 2
        assert products.ingest(catalog, encoder={"image": "plain"}).failed == 2
    errors = [one.error for one in products.failures()]
    assert "me:***@" in errors[0]
    assert "sec" not in " ".join(errors) + caplog.text


@pytest.mark.parametrize("scheme", ["MILVUS", "milvus+tls", "vearch"])
def test_no_import_shows_the_password_of_its_source(kit, scheme):
    with pytest.raises(BadSource) as raised:
        kit.import_vectors(f"{scheme}://root:secret@127.0.0.1:1/db", collection="taken")
    assert "secret" not in str(raised.value)
