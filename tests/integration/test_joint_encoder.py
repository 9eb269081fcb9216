"""A CLIP-like encoder as an exported folder: pictures in, then asked by picture and by words, without torch."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from embedkit.encoders.export import export_encoder
from embedkit.encoders.load import load_encoder
from embedkit.errors import BadInput
from tests import tiny_models
from tests.conftest import WITHOUT_TORCH

WORDS = "red canvas shoe"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return "hf:" + tiny_models.clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def folder(original, tmp_path_factory):
    return export_encoder(original, tmp_path_factory.mktemp("exported") / "clip")


@pytest.fixture(scope="module")
def ranked(original):
    """What torch says: keys of the catalog's pictures by nearness to the words, for given pictures."""
    encoder = load_encoder(original)

    def call(catalog):
        files = sorted((catalog / "img").iterdir())
        vectors = encoder.encode(np.stack([encoder.prepare(file.read_bytes()) for file in files]))
        scores = vectors @ encoder.encode([WORDS])[0]
        return [f"p{row:02}" for row in np.argsort(-scores, kind="stable")], np.sort(scores)[::-1]

    yield call
    encoder.close()


def test_an_exported_pair_fills_and_asks_a_collection_without_torch(folder, ranked, catalog, tmp_path):
    code = f"""{WITHOUT_TORCH}
import embedkit, json
with embedkit.connect(backend='faiss:///{tmp_path}/faiss', home={str(tmp_path / "home")!r}) as kit:
    products = kit.collection('products')
    report = products.ingest({str(catalog)!r}, encoder={{'image': {str(folder)!r}}})
    by_picture = products.search(image={str(catalog / "img" / "07.png")!r}, k=1)
    by_words = products.search(text={WORDS!r}, k=24)
    named = products.search(text={WORDS!r}, k=24, view='image')
    both = products.search(image={str(catalog / "img" / "07.png")!r}, text={WORDS!r}, weights={{'text': 0.0}}, k=1)
    assert [hit.key for hit in named] == [hit.key for hit in by_words]
print(json.dumps({{
    'encoded': report.encoded,
    'picture': [by_picture[0].key, by_picture[0].score],
    'both': both[0].key,
    'words': [[hit.key, hit.score] for hit in by_words],
}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["encoded"] == 24
    assert found["picture"][0] == found["both"] == "p07"
    assert found["picture"][1] == pytest.approx(1.0, abs=1e-4)
    keys, scores = ranked(catalog)
    assert [key for key, _ in found["words"]][:5] == keys[:5]
    np.testing.assert_allclose([score for _, score in found["words"]], scores, atol=1e-3)


def test_words_ask_the_titles_unless_the_pictures_are_named(products, folder, ranked, catalog):
    products.ingest(catalog, encoder={"image": str(folder), "title": "minilm"})
    assert products.search(text="blue shoe 8", k=1)[0].key == "p08"
    keys, scores = ranked(catalog)
    hits = products.search(text=WORDS, view="image", k=3)
    assert [hit.key for hit in hits] == keys[:3]
    np.testing.assert_allclose([hit.score for hit in hits], scores[:3], atol=1e-3)


def test_one_encoder_for_pictures_and_titles(products, folder, catalog):
    """The view `title` then holds titles, in the space of the pictures."""
    products.ingest(catalog, encoder={"image": str(folder), "title": str(folder)})
    assert products.search(text="blue shoe 8", k=1)[0].score == pytest.approx(1.0, abs=1e-4)
    assert products.search(image=catalog / "img" / "07.png", k=1)[0].key == "p07"


def test_a_picture_asks_the_titles_where_their_encoder_takes_pictures(products, folder, catalog):
    products.ingest(catalog, encoder={"image": str(folder), "title": str(folder)})
    picture = catalog / "img" / "07.png"
    encoder = load_encoder(str(folder))
    vector = encoder.encode(encoder.prepare(picture.read_bytes())[None])[0]
    expected = products.search(vector=vector, view="title", k=24)
    hits = products.search(image=picture, view="title", k=24)
    assert [(hit.key, hit.view) for hit in hits] == [(hit.key, "title") for hit in expected]
    by_both = products.search(image=picture, text="blue shoe 8", weights={"image": 0.0, "text": 1.0}, k=1)
    assert by_both[0].key == "p08"
    encoder.close()


def test_a_picture_cannot_ask_titles_of_an_encoder_that_takes_no_pictures(products, catalog):
    products.ingest(catalog, encoder={"title": "minilm"})
    with pytest.raises(BadInput, match="has no view of pictures"):
        products.search(image=catalog / "img" / "07.png")
    with pytest.raises(BadInput, match="takes no pictures"):
        products.search(image=catalog / "img" / "07.png", view="title")


def test_torch_and_the_exported_folder_share_a_collection(products, original, folder, catalog):
    """One fingerprint: filled by one, brought up to date by the other."""
    products.ingest(catalog, encoder={"image": original})
    report = products.ingest(catalog, encoder={"image": str(folder)})
    assert (report.encoded, report.skipped) == (0, 24)


def test_words_cannot_ask_pictures_whose_encoder_reads_no_text(products, catalog):
    products.ingest(catalog, encoder={"image": "effnet-lite0", "title": "minilm"})
    with pytest.raises(BadInput, match="reads no text"):
        products.search(text=WORDS, view="image")
