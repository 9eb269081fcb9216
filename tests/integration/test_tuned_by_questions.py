"""An index tuned by what people ask: the pictures or titles of another catalog, not the collection's own vectors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import embedkit
from embedkit.errors import BadInput, BadSource
from embedkit_cli.app import app
from tests import plain_encoder
from tests.conftest import picture

SHOP, CUSTOMERS = 240, 30


@pytest.fixture(scope="module", autouse=True)
def encoders():
    with pytest.MonkeyPatch.context() as patch:
        plain_encoder.install(patch.setattr)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Pictures of a shop, and other pictures of its customers, one of them broken."""
    place = tmp_path_factory.mktemp("asked")
    for name, numbers in (("shop", range(SHOP)), ("customers", range(SHOP, SHOP + CUSTOMERS))):
        (place / name).mkdir()
        for number in numbers:
            picture(number, (24, 24)).save(place / name / f"{number}.png")
    (place / "customers" / "broken.png").write_bytes(b"no picture")
    (place / "broken").mkdir()
    (place / "broken" / "broken.png").write_bytes(b"no picture")
    (place / "words.csv").write_text("key,title\n1,red shoe\n2,blue hat\n3,\n")
    return place


@pytest.fixture(scope="module")
def products(home):
    with embedkit.connect(backend=f"faiss:///{home}/faiss", home=home / "home") as kit:
        products = kit.collection("products")
        products.ingest(home / "shop", encoder={"image": "plain"})
        products.build_index("ivf(nlist=16)")
        yield products


def nearest(products, number, home, nprobe):
    hits = products.search(image=home / "customers" / f"{number}.png", k=10, params={"nprobe": nprobe})
    return {hit.key for hit in hits}


def test_its_recall_is_that_of_those_searches(products, home, caplog):
    found = products.tune(questions=home / "customers", keep=False)
    assert (found.queries, found.k) == (CUSTOMERS, 10)
    assert "1 pictures cannot be decoded and are left out; 30 are used. The first is" in caplog.text
    asked = range(SHOP, SHOP + CUSTOMERS)
    exact = {number: nearest(products, number, home, nprobe=16) for number in asked}
    for point in found.points:
        shares = [len(exact[n] & nearest(products, n, home, **point.params)) / 10 for n in asked]
        assert point.recall == pytest.approx(np.mean(shares)), point
    assert found.points[0].recall < 1 == found.points[-1].recall


def test_as_many_ask_as_are_wanted_and_the_same_every_time(products, home):
    first, again = (products.tune(questions=home / "customers", queries=7, keep=False) for _ in range(2))
    assert first.queries == 7
    assert [point.recall for point in first.points] == [point.recall for point in again.points]


def test_a_catalog_of_words_asks_an_encoder_that_takes_both(products, home):
    assert products.tune(questions=home / "words.csv", keep=False).queries == 2


def test_a_catalog_that_cannot_ask_says_so(products, home):
    with pytest.raises(
        BadInput, match=r"broken has no picture that can be read and no title, by which the view 'image'"
    ):
        products.tune(questions=home / "broken")
    with pytest.raises(BadSource, match="There is no catalog"):
        products.tune(questions=home / "nowhere")
    with pytest.raises(BadInput, match="is a path or a URL"):
        products.tune(questions=7)


def test_the_command(products, home, monkeypatch):
    monkeypatch.setenv("EMBEDKIT_HOME", str(home / "home"))
    backend = ["--backend", f"faiss:///{home}/faiss"]
    told = ["index", "tune", "products", "--questions", str(home / "customers"), "--recall", "0.5", "--json"]
    done = CliRunner().invoke(app, [*told, *backend], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["queries"] == CUSTOMERS
