"""Two stages: the nearest codes are candidates, and the exact scores of another view put them in order."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from embedkit import Question
from embedkit.errors import BadInput
from embedkit_cli.app import app
from tests.conftest import picture, read_table, write_table
from tests.sign_encoder import SignEncoder

pytestmark = pytest.mark.usefixtures("plain")

VIEWS = {"code": "signs", "image": "plain"}


@pytest.fixture
def filled(products, catalog):
    products.ingest(catalog, encoder=VIEWS)
    return products


def keys(hits):
    return [hit.key for hit in hits]


def test_with_all_as_candidates_the_answer_is_that_of_the_second_view(filled):
    asked = picture(40)
    exact = filled.search(image=asked, view="image", k=24)
    found = filled.search(image=asked, view="code", rerank="image", candidates=24, k=24)
    assert keys(found) == keys(exact)
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in exact], abs=1e-5)
    assert {hit.view for hit in found} == {"code"}


def test_only_the_nearest_of_the_first_view_are_put_in_order(filled):
    asked = picture(40)
    nearest = filled.search(image=asked, view="code", k=6)
    found = filled.search(image=asked, view="code", rerank="image", candidates=6, k=6)
    assert set(keys(found)) == set(keys(nearest))
    assert keys(found) != keys(nearest)
    assert keys(found) == [key for key in keys(filled.search(image=asked, view="image", k=24)) if key in keys(nearest)]


def test_the_view_that_reranks_is_not_the_one_searched_by_default(filled):
    asked = picture(40)
    named = filled.search(image=asked, view="code", rerank="image", candidates=3, k=3)
    assert filled.search(image=asked, rerank="image", candidates=3, k=3) == named


def test_a_product_asks_both_views_by_its_own_vectors_and_is_left_out(filled):
    found = filled.search(product="p05", view="code", rerank="image", candidates=23, k=23, where="price >= 0")
    exact = filled.search(product="p05", view="image", k=23)
    assert keys(found) == keys(exact)
    assert "p05" not in keys(found)


def test_codes_alone_are_put_in_order_by_the_numbers_of_the_question(filled, catalog):
    """The numbers before their signs against the stored signs, in plain NumPy."""
    encoder, asked = SignEncoder(), picture(40)
    found = filled.search(image=asked, view="code", rerank="code", candidates=24, k=24)
    pictures = {f"p{n:02}": encoder.prepare(picture(n)) for n in range(24)}
    numbers = encoder.numbers(encoder.prepare(asked)[None])[0]
    codes = np.where(encoder.numbers(np.stack(list(pictures.values()))) > 0, 1.0, -1.0)
    scores = dict(zip(pictures, codes @ numbers / np.linalg.norm(numbers) / 8, strict=True))
    assert {hit.key: hit.score for hit in found} == pytest.approx(scores, abs=1e-5)
    assert keys(found) == sorted(scores, key=lambda key: -scores[key])
    nearest = filled.search(image=asked, view="code", k=6)
    few = filled.search(image=asked, view="code", rerank="code", candidates=6, k=6)
    assert keys(few) == [key for key in keys(found) if key in keys(nearest)]
    assert keys(few) != keys(nearest)


def test_a_collection_of_codes_alone_is_asked_so_by_words_and_by_many_questions(products, catalog):
    products.ingest(catalog, encoder={"code": "signs"})
    alone = products.search(text="a red shoe", rerank="code", k=5)
    many = products.search_many([Question(text="a red shoe"), Question(image=picture(3))], rerank="code", k=5)
    assert many[0] == alone
    assert many[1][0].key == "p03"
    assert 0 < many[1][0].score < 1


def test_a_product_without_a_vector_to_compare_comes_last(products, catalog):
    rows = read_table(catalog)
    for row in rows[:4]:
        del row["image"]
    write_table(catalog, rows)
    products.ingest(catalog, encoder={"title": "plain", "image": "signs"})
    found = products.search(text="shoe", view="title", rerank="image", candidates=24, k=24)
    assert len(found) == 24
    assert set(keys(found)[-4:]) == {"p00", "p01", "p02", "p03"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"view": "image", "rerank": "image"}, "rerank='image' is the view that is searched"),
        (
            {"image": None, "product": "p01", "view": "code", "rerank": "code"},
            "of the product 'p01' the view 'code' holds the code alone, .* search by its picture",
        ),
        ({"rerank": "imgae"}, "has no view 'imgae'; it has code, image"),
        ({"image": None, "vector": [1] * 8, "rerank": "image"}, "a vector asks one view and cannot rerank"),
        ({"candidates": 50}, "candidates counts what rerank puts in order"),
        ({"rerank": "image", "candidates": 5}, "candidates=5 is less than the 10 hits"),
        ({"rerank": "image", "candidates": "many"}, "candidates='many' is not a number of products"),
        ({"rerank": "image", "k": 20_000}, "k=20000 is more than"),
    ],
    ids=str,
)
def test_what_cannot_be_reranked_is_said(filled, arguments, message):
    with pytest.raises(BadInput, match=f"(?i){message}"):
        filled.search(**{"image": picture(1), **arguments})


def test_the_command_line_reranks(filled, faiss_url, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDKIT_HOME", str(tmp_path / "home"))
    path = tmp_path / "asked.png"
    picture(40).save(path)
    asked = ["search", "--image", str(path), "--backend", faiss_url, "--json", "-k", "4"]
    done = CliRunner().invoke(app, [*asked, "--view", "code", "--rerank", "image", "--candidates", "24"])
    assert done.exit_code == 0, done.output
    found = [hit["key"] for hit in json.loads(done.stdout)["hits"]]
    assert found == keys(filled.search(image=str(path), view="image", k=4))
