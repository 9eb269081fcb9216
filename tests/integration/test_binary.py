"""Pictures become codes, and the same question finds the same neighbours in every backend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import embedkit
from embedkit.codes import hamming
from embedkit.errors import BadInput, ConfigError, DimensionMismatch
from embedkit_cli.app import app
from tests.conftest import picture
from tests.sign_encoder import BITS, SignEncoder

CODED = {"image": "signs", "title": "signs"}


pytestmark = pytest.mark.usefixtures("signs")


def code_of(number):
    encoder = SignEncoder()
    return encoder.encode(encoder.prepare(picture(number))[None])[0]


def questions(there):
    """One of each kind, and what they find: (key, bits) by distance, then key."""
    found = [there.search(image=picture(number), k=24, view="image") for number in (3, 30)]
    found.append(there.search(text="blue shoe 8", k=24, view="title"))
    found.append(there.search(vector=code_of(31), k=24))
    found.append(there.search(product="p05", k=23, where="price < 80"))
    assert all(hit.score == -hit.distance for hits in found for hit in hits)
    return [sorted((hit.distance, hit.key) for hit in hits) for hits in found]


def test_the_same_question_finds_the_same_neighbours_everywhere(catalog, tmp_path, milvus_server_url):
    urls = [f"faiss:///{tmp_path}/f", f"milvus:///{tmp_path}/lite.db", milvus_server_url, "oracle://x"]
    answers = []
    for number, url in enumerate(urls):
        with embedkit.connect(backend=url, home=tmp_path / f"h{number}") as kit:
            there = kit.collection(f"coded_{tmp_path.name}".replace("-", "_"))
            assert there.ingest(catalog, encoder=CODED).encoded == 24
            assert there.ingest(catalog).skipped == 24
            assert there.verify().ok
            assert there.status().metrics == {"image": "hamming", "title": "hamming"}
            answers.append(questions(there))
            there.drop()
    for other in answers[1:]:
        assert other == answers[0]
    codes = np.stack([code_of(number) for number in range(24)])
    by_hand = hamming(code_of(31)[None], codes)[0].tolist()
    assert answers[0][3] == sorted((float(bits), f"p{number:02}") for number, bits in enumerate(by_hand))
    assert answers[0][0][0] == (0.0, "p03")


def test_fused_codes_are_added_as_cosines_of_their_signs(products, catalog):
    products.ingest(catalog, encoder=CODED)
    encoder, picked = SignEncoder(), picture(40)
    weights = {"image": 3.0, "text": 1.0}
    titles = {hit.key: hit.product.title for hit in products.search(text="x", view="title", k=24)}
    words = encoder.encode([titles[f"p{number:02}"] for number in range(24)])
    pixels = np.stack([code_of(number) for number in range(24)])
    near = 1 - 2 * hamming(encoder.encode(encoder.prepare(picked)[None]), pixels)[0] / BITS
    told = 1 - 2 * hamming(encoder.encode(["blue shoe 8"]), words)[0] / BITS
    expected = 3 * near + told
    found = products.search(image=picked, text="blue shoe 8", weights=weights, k=5)
    assert [hit.score for hit in found] == pytest.approx(sorted(expected, reverse=True)[:5])


def test_what_does_not_fit_the_codes_is_told_in_a_sentence(products, catalog):
    products.ingest(catalog, encoder={"image": "signs", "title": "minilm"})
    assert products.status().metrics == {"image": "hamming", "title": "cosine"}
    with pytest.raises(BadInput, match=r"float32 do not fit.*codes of 64 bits.*8 bytes of uint8"):
        products.search(vector=np.ones(64, np.float32))
    with pytest.raises(DimensionMismatch, match=r"64 bytes do not fit.*64 bits in 8 bytes"):
        products.search(vector=np.ones(64, np.uint8))
    with pytest.raises(BadInput, match=r"uint8 are binary codes.*384 floats"):
        products.search(vector=np.ones(48, np.uint8), view="title")


def test_words_asked_of_codes_of_pictures_are_told_which_encoder_would_do(products, catalog, monkeypatch):
    products.ingest(catalog, encoder={"image": "signs"})
    monkeypatch.setattr(SignEncoder, "spec", replace(SignEncoder.spec, modalities=("image",)))
    with pytest.raises(BadInput, match=r"image \(codes of 64 bits of pictures by 'signs'\); for words.*title=minilm"):
        products.search(text="blue shoe")


@pytest.mark.parametrize(("metric", "encoder"), [("cosine", "signs"), ("hamming", "effnet-lite0")])
def test_a_metric_that_does_not_fit_the_encoder_is_refused(tmp_path, catalog, faiss_url, monkeypatch, metric, encoder):
    monkeypatch.setenv("EMBEDKIT_METRIC", metric)
    with (
        embedkit.connect(backend=faiss_url, home=tmp_path / "h") as kit,
        pytest.raises(ConfigError, match=f"metric='{metric}' does not fit the encoder '{encoder}'.*leave metric unset"),
    ):
        kit.collection("c").ingest(catalog, encoder={"image": encoder})


@pytest.mark.parametrize(("metric", "of_titles"), [("ip", "ip"), ("hamming", "cosine")])
def test_beside_codes_a_metric_stands_for_the_floats(tmp_path, catalog, faiss_url, monkeypatch, metric, of_titles):
    monkeypatch.setenv("EMBEDKIT_METRIC", metric)
    with embedkit.connect(backend=faiss_url, home=tmp_path / "h") as kit:
        report = kit.collection("c").ingest(catalog, encoder={"image": "signs", "title": "minilm"}, limit=4)
        assert kit.collection("c").status().metrics == {"image": "hamming", "title": of_titles}
        assert not any("no effect" in warning for warning in report.warnings)


def test_verify_finds_and_mends_a_lost_code(products, kit, catalog):
    products.ingest(catalog, encoder=CODED)
    lost = products.search(image=picture(5), view="image", k=1)[0].vector_id
    kit._resources.backend.delete("products_v1_image", np.array([lost]))
    assert products.verify().views["image"].missing == 1
    assert products.verify(repair=True).repaired
    assert products.ingest(catalog).encoded == 1
    assert products.verify().ok
    assert products.search(image=picture(5), view="image", k=1)[0].key == "p05"


def test_a_collection_of_before_there_were_codes_is_still_read(products, kit, catalog):
    """Its views have no kind."""
    import json
    import sqlite3

    products.ingest(catalog, encoder={"title": "minilm"})
    path = kit.settings.store.removeprefix("sqlite:///")
    with sqlite3.connect(path) as db:
        views = json.loads(db.execute("SELECT views FROM collection").fetchone()[0])
        assert views[0].pop("kind") == "float"
        db.execute("UPDATE collection SET views = ?", (json.dumps(views),))
    db.close()
    assert kit.collection("products").ingest(catalog).skipped == 24
    assert kit.collection("products").search(text="blue shoe 8", k=1)[0].key == "p08"


def test_the_command_line_shows_how_codes_are_measured(catalog, faiss_url, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDKIT_HOME", str(tmp_path / "h"))
    run = CliRunner().invoke
    done = run(app, ["ingest", str(catalog), "--backend", faiss_url, "--encoder", "image=signs"])
    assert done.exit_code == 0, done.output
    shown = run(app, ["status", "-c", "products", "--backend", faiss_url]).output
    assert "image=hamming" in shown
    assert "multihash" in run(app, ["backends"]).output
