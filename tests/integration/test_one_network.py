"""Codes and the floats that they are made of, ``floats:CODES``: two views, and a network that is run once for both."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import embedkit
from embedkit import Question
from embedkit.encoders.load import load_encoder
from embedkit.errors import ConfigError
from embedkit.testing.encoder import EncoderContract
from tests.conftest import picture
from tests.sign_encoder import SignEncoder

pytestmark = pytest.mark.usefixtures("signs")

VIEWS = {"code": "signs", "image": "floats:signs"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder of codes that were fitted to pictures."""
    place = tmp_path_factory.mktemp("codes")
    for number in range(4):
        picture(number).save(place / f"{number}.png")
    return embedkit.export_encoder("effnet-lite0(size=64, bits=16, hash=lsh)", place / "model", fit=place)


class TestFloatsOfAFolder(EncoderContract):
    @pytest.fixture(autouse=True)
    def spec_of_the_folder(self, folder):
        self.spec = f"floats:{folder}"


@pytest.fixture
def run(monkeypatch):
    """How many pictures and texts the network was given, and how many pictures it prepared, as it goes."""
    counts = {"numbers": 0, "prepare": 0}
    numbers, prepare = SignEncoder.numbers, SignEncoder.prepare

    def counted_numbers(self, batch):
        counts["numbers"] += len(batch)
        return numbers(self, batch)

    def counted_prepare(self, given):
        counts["prepare"] += 1
        return prepare(self, given)

    monkeypatch.setattr(SignEncoder, "numbers", counted_numbers)
    monkeypatch.setattr(SignEncoder, "prepare", counted_prepare)
    return counts


def test_the_floats_are_the_numbers_before_the_sign_at_unit_length():
    codes, floats = SignEncoder(), load_encoder("floats:signs")
    pixels = np.stack([codes.prepare(picture(number)) for number in range(3)])
    numbers = codes.numbers(pixels)
    assert floats.encode(pixels) == pytest.approx(numbers / np.linalg.norm(numbers, axis=1, keepdims=True))
    assert (floats.spec.kind, floats.spec.dim, floats.spec.modalities) == ("float", 64, ("image", "text"))
    assert floats.spec.fingerprint != codes.spec.fingerprint


def test_an_ingest_decodes_and_encodes_each_picture_once_for_both(products, catalog, run):
    assert products.ingest(catalog, encoder=VIEWS).encoded == 24
    assert run == {"numbers": 24, "prepare": 24}


def test_a_search_in_two_stages_runs_the_network_once_for_each_question(products, catalog, run):
    products.ingest(catalog, encoder=VIEWS)
    exact = products.search(image=picture(40), view="image", k=24)
    run.update(numbers=0, prepare=0)
    found = products.search(image=picture(40), view="code", rerank="image", candidates=24, k=24)
    assert run == {"numbers": 1, "prepare": 1}
    assert [(hit.key, hit.score) for hit in found] == [(hit.key, pytest.approx(hit.score, abs=1e-6)) for hit in exact]
    assert products.search_many(
        [Question(image=picture(40)), Question(text="a red shoe")], view="code", rerank="image", candidates=24, k=24
    ) == [found, products.search(text="a red shoe", view="code", rerank="image", candidates=24, k=24)]


def test_a_reindex_runs_it_once_for_both(products, catalog, run, plain):
    products.ingest(catalog, encoder={"code": "plain", "image": "plain(seed=1)"})
    run.update(numbers=0, prepare=0)
    assert products.reindex(encoder=VIEWS).switched
    assert run == {"numbers": 24, "prepare": 24}
    assert products.search(image=picture(3), view="code", rerank="image", k=1)[0].key == "p03"


def test_a_folder_with_a_space_in_its_path_is_found_from_every_working_directory(
    folder, products, catalog, tmp_path, monkeypatch
):
    shutil.copytree(folder, tmp_path / "my codes")
    monkeypatch.chdir(tmp_path)
    products.ingest(catalog, encoder={"code": "my codes", "image": "floats:my codes"})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert products.search(image=picture(3), view="code", rerank="image", k=1)[0].key == "p03"
    assert products.status().encoders == {"code": f"{tmp_path}/my codes", "image": f"floats:{tmp_path}/my codes"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("floats:minilm", "'minilm' gives floats as it is; write it without 'floats:'"),
        ("floats", "'floats' names no encoder of codes; write for example 'floats:runs/h64'"),
        ("floats:floats:signs", "gives floats as it is"),
        ("floats:./nowhere", r"'\./nowhere' is no model folder"),
        ("floats:effnet-lite0(bits=64, hash=itq)", "run: embedkit export 'effnet-lite0"),
    ],
)
def test_what_has_no_floats_beside_codes_is_said(spec, message, products, catalog):
    with pytest.raises(ConfigError, match=message):
        products.ingest(catalog, encoder={"image": spec})
    with pytest.raises(ConfigError, match=message):
        embedkit.describe_encoder(spec)
