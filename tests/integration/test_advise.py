"""Advice on codes is measured: the shares that it tells are those that searching in two stages gives."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from embedkit.errors import BadInput
from embedkit_cli.app import app
from tests.conftest import picture

pytestmark = pytest.mark.usefixtures("signs")

COUNT = 240


@pytest.fixture
def filled(products, tmp_path):
    """Ten pictures, each with noise, of 24 kinds."""
    folder = tmp_path / "many"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = np.asarray(picture(number % 24, (24, 24)), np.int16) + rng.integers(-40, 41, (24, 24, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{number:03}.png")
    products.ingest(folder, encoder={"image": "effnet-lite0(size=64)", "code": "signs"})
    return products


def test_the_shares_are_those_of_searching_in_two_stages(filled):
    advice = filled.advise_codes(k=5, queries=COUNT)
    assert (advice.view, advice.vectors, advice.queries) == ("image", COUNT, COUNT)
    assert [(one.bits, one.view) for one in advice.codes] == [(32, ""), (64, "code"), (64, "")]
    kept = []
    for number in range(COUNT):
        key = f"{number:03}.png"
        exact = {hit.key for hit in filled.search(product=key, view="image", k=5)}
        found = {hit.key for hit in filled.search(product=key, view="code", rerank="image", candidates=10, k=5)}
        kept.append(len(exact & found) / 5)
    assert advice.codes[1].recalls[2] == pytest.approx(np.mean(kept), abs=0.01)  # ties at the last candidate


def test_longer_codes_and_more_candidates_keep_more(filled):
    short, _, long = filled.advise_codes(k=5).codes
    for one in (short, long):
        assert list(one.recalls.values()) == sorted(one.recalls.values())
    assert all(long.recalls[factor] >= short.recalls[factor] - 0.02 for factor in short.recalls)


def test_the_shortest_codes_that_reach_the_recall_are_chosen(filled):
    reached = filled.advise_codes(k=5, recall=0.5)
    chosen = reached.chosen
    assert chosen is not None
    assert chosen.recalls[chosen.candidates // 5] >= 0.5
    assert all(one.candidates is None for one in reached.codes if one.bits < chosen.bits)
    assert reached.as_dict()["chosen"]["bits"] == chosen.bits


def test_what_cannot_be_measured_is_said(filled):
    for arguments, message in (
        ({"view": "code"}, "holds codes; name one that holds floats"),
        ({"view": "imgae"}, "no view 'imgae'"),
        ({"recall": 1.5}, "recall=1.5 is not a share"),
        ({"recall": "high"}, "(?i)recall is a share, not str"),
        ({"k": 0}, "k=0 is not a number"),
        ({"sample": 50}, "has 50 products with a vector in image and code; to advise takes 200 or more"),
    ):
        with pytest.raises(BadInput, match=message):
            filled.advise_codes(**arguments)


def test_the_command_line_tells_what_to_do(filled, faiss_url, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDKIT_HOME", str(tmp_path / "home"))
    asked = ["advise", "--codes", "--backend", faiss_url, "-k", "5", "--recall", "0.5"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "bytes a product in place of 5,120" in shown.output
    values = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert values["chosen"]["candidates"] % 5 == 0
