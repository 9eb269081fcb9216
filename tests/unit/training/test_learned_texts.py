"""A text tower that learns: its words, its GRU against the written formulas, and a run that words find pictures by."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import embedkit
from embedkit.encoders.folder import TEXT_ONNX, TOKENIZER
from embedkit.encoders.gru import GruTower
from embedkit.encoders.gru_options import GruOptions
from embedkit.encoders.load import load_encoder
from embedkit.encoders.runtimes.openvino import OpenVinoSession
from embedkit.encoders.text_recipe import Tokens
from embedkit.encoders.words import WORD_RECIPE, build_words
from embedkit.errors import ConfigError
from embedkit.training.datasets.contract import Captions
from embedkit.training.joint import with_texts
from embedkit.training.material import open_material
from embedkit.training.network import build_model
from embedkit.training.recipe import Augment, TrainingRecipe
from embedkit.training.texts import LearnedTexts
from tests.conftest import WITHOUT_TORCH
from tests.unit.training.runs import losses, ran, same
from tests.unit.training.test_joint_training import train, weights

COLOURS = ("red", "green", "blue", "yellow", "black", "orange", "pink", "brown")
SHAPES = ("disc", "square", "stripes", "cross")
SMALL = "gru(words=16, hidden=32, least=2)"


def drawn(colour, shape):
    """A shape in a colour, on white."""
    picture = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(picture)
    if shape == "disc":
        draw.ellipse((8, 8, 56, 56), fill=colour)
    if shape == "square":
        draw.rectangle((10, 10, 54, 54), fill=colour)
    for at in range(4, 64, 16) if shape == "stripes" else [24] if shape == "cross" else []:
        draw.rectangle((at, 0, at + (15 if shape == "cross" else 7), 63), fill=colour)
    if shape == "cross":
        draw.rectangle((0, 24, 63, 39), fill=colour)
    return picture


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Shapes in colours with two captions each; eight of the 32 are not trained on, but their words are."""
    root = tmp_path_factory.mktemp("shapes")
    rows = ["path,caption,split"]
    for row, colour in enumerate(COLOURS):
        for column, shape in enumerate(SHAPES):
            path, split = f"{colour}-{shape}.png", "test" if (row + column) % 4 == 0 else "train"
            drawn(colour, shape).save(root / path)
            rows += [f"{path},a {colour} {shape},{split}", f"{path},A {shape} that is {colour}!,{split}"]
    (root / "captions.csv").write_text("\n".join(rows))
    return root / "captions.csv"


def small(shop, **changes):
    recipe = TrainingRecipe(
        data=str(shop),
        task="image-text",
        encoder="effnet-lite0(size=64)",
        texts=SMALL,
        dim=16,
        loss="vse++(warmup=20)",
        batch=8,
        steps=60,
        head_rate=0.01,
        frozen=1.0,
        validate=0,
        augment=Augment(flip=False, crop=1.0, colour=0.0),
    )
    return replace(recipe, **changes).checked()


@pytest.fixture(scope="module")
def run(shop, tmp_path_factory):
    """The folder of a training."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(small(shop), folder)
    return folder


# -- words ------------------------------------------------------------------------------------------------------


def test_words_are_runs_of_letters_and_digits_and_rare_ones_are_one_token():
    words = build_words(["A red shoe.", "red, RED_shoe 42", "Grüße 東京!", "gru\u0308ße 東"], least=2)
    known = json.loads(words)["model"]["vocab"]
    assert known == {"<pad>": 0, "<unknown>": 1, "<start>": 2, "<end>": 3, "red": 4, "grüße": 5, "shoe": 6, "東": 7}
    tokens = Tokens(words, WORD_RECIPE)
    found = tokens(["red SHOE", "", "?!", "<end> Grüße, 京 42", "red " * 200])["input_ids"]
    assert found[:, :7].tolist() == [
        [2, 4, 6, 3, 0, 0, 0],
        [2, 3, 0, 0, 0, 0, 0],
        [2, 3, 0, 0, 0, 0, 0],
        [2, 1, 5, 1, 1, 3, 0],
        [2, 4, 4, 4, 4, 4, 4],
    ]
    assert (found.shape, found[4, -1], len(tokens)) == ((5, 128), 3, 8)


def test_no_word_that_is_frequent_enough_is_refused_with_what_to_do():
    with pytest.raises(
        ConfigError, match=r"No word of the 2 training captions occurs 3 times; set texts to gru\(least"
    ):
        build_words(["red red", "blue"], least=3)


def test_captions_are_tokens_once_and_drawn_by_the_seed():
    texts = ("one", "two three", "a b c d e", "six", "seven eight nine")
    captions = Captions(texts, np.array([1, 0, 1, 2, 2]))
    words = build_words(texts, least=1)
    side, labels = LearnedTexts(captions, words), np.array([1, 0, 2, 1, 2, 1, 1])
    assert torch.equal(side.drawn(labels, 7), side.drawn(labels, 7))
    seen = set()
    for seed in range(20):
        tokens = side.drawn(labels, seed)
        assert (tokens != 0).any(dim=0).all()  # padded to the longest of them, and no further
        for label, row in zip(labels, tokens, strict=True):
            mine = [text for text, of in zip(texts, captions.labels, strict=True) if of == label]
            every = Tokens(words, WORD_RECIPE)([*mine, "a b c d e"])["input_ids"][:-1, : len(row)]
            (which,) = np.flatnonzero((every == row.numpy()).all(axis=1))
            seen.add(mine[which])
    assert seen == set(texts)


# -- the tower ------------------------------------------------------------------------------------------------------


def written(tower, tokens):
    """Cho 2014 as torch documents its GRU, one word after the other of one text after the other, in float64."""
    state = {name: tensor.double().numpy() for name, tensor in tower.state_dict().items()}

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    vectors = []
    for row in tokens:
        h = np.zeros(tower.gru.hidden_size)
        for word in row[row != 0]:
            x = state["words.weight"][word]
            of_word = state["gru.weight_ih_l0"] @ x + state["gru.bias_ih_l0"]
            of_state = state["gru.weight_hh_l0"] @ h + state["gru.bias_hh_l0"]
            (wr, wz, wn), (sr, sz, sn) = np.split(of_word, 3), np.split(of_state, 3)
            r, z = sigmoid(wr + sr), sigmoid(wz + sz)
            n = np.tanh(wn + r * sn)
            h = (1 - z) * n + z * h
        found = state["layer.weight"] @ h + state["layer.bias"]
        vectors.append(found / np.linalg.norm(found))
    return np.array(vectors)


def test_the_tower_is_the_formulas_of_the_gru_whatever_pads_a_text():
    torch.manual_seed(0)
    tower = GruTower(12, 6, GruOptions(words=5, hidden=7)).eval()
    torch.nn.init.normal_(tower.layer.bias)
    tokens = np.array([[2, 4, 5, 6, 3], [2, 3, 0, 0, 0], [2, 11, 7, 3, 0]])
    with torch.no_grad():
        found = tower(torch.from_numpy(tokens)).numpy()
        alone = tower(torch.from_numpy(tokens[2:, :4])).numpy()
    np.testing.assert_allclose(found, written(tower, tokens), atol=1e-6)
    np.testing.assert_allclose(found[2:], alone, atol=1e-6)


# -- a run ------------------------------------------------------------------------------------------------------


def test_words_learn_to_find_pictures_of_things_never_seen_together(run, shop):
    curve = losses(run)
    assert np.mean(curve[10:20]) < np.mean(curve[:10])  # the sum of all hinges
    assert np.mean(curve[-10:]) < np.mean(curve[20:30])  # the hardest alone
    judged = embedkit.evaluate_encoder(run, shop)
    assert judged.pictures == 8
    assert judged.metrics["t2i-recall@1"] > 2 / 8  # chance is one of eight pictures


def test_the_folder_gives_the_vectors_of_the_tower_in_every_runtime(run):
    words = (run / TOKENIZER).read_text(encoding="utf-8")
    tokens = Tokens(words, WORD_RECIPE)
    tower = GruTower(len(tokens), 16, GruOptions.of(SMALL))
    kept = weights(run)
    tower.load_state_dict({name[6:]: tensor for name, tensor in kept.items() if name.startswith("texts.")})
    texts = ["a red disc", "blue", "", "nothing of this was learned", "a cross that is black and " + "red " * 300]
    with torch.no_grad():
        expected = tower(torch.from_numpy(tokens(texts)["input_ids"])).numpy()
    encoder = load_encoder(str(run), runtime="onnx")
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)
    np.testing.assert_allclose([encoder.encode([text])[0] for text in texts], expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5)
    encoder.close()
    openvino = OpenVinoSession(run / TEXT_ONNX, threads=1)
    np.testing.assert_allclose(openvino.run(tokens(texts)), expected, atol=1e-4)
    openvino.close()


def test_the_folder_fills_a_collection_and_answers_words_where_torch_is_not_installed(run, shop, tmp_path):
    code = f"""{WITHOUT_TORCH}
import embedkit
with embedkit.connect(backend="faiss:///{tmp_path}/f", home="{tmp_path}/h") as kit:
    there = kit.collection("c")
    there.ingest("{shop.parent}", encoder={{"image": "{run}"}})
    print([hit.key for hit in there.search(text="stripes", k=3)])
    print(len(there.search(text="zzz qqq", k=20)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    near, any_words = done.stdout.strip().splitlines()
    assert near.count("stripes.png") == 3
    assert any_words == "20"


def test_a_run_that_was_stopped_ends_as_one_that_was_not(shop, tmp_path):
    recipe = small(shop, steps=4)
    whole = ran(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        ran(recipe, tmp_path / "run", stop_after=2)
    assert same(ran(recipe, tmp_path / "run"), whole)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert {"model.texts.words.weight", "model.texts.gru.weight_hh_l0"} <= whole.keys()


def test_a_run_is_gone_on_with_by_its_words_and_weights(run, shop):
    recipe = small(shop, encoder=str(run))
    other = replace(open_material(recipe).train, captions=Captions(("other words",) * 24, np.arange(24)))
    pictures = build_model(recipe, lambda: ())
    built = with_texts(pictures, recipe, other)
    assert same(built.model.state_dict(), weights(run))
    with pytest.raises(ConfigError, match=r"learned with texts='gru\(words=16.*set texts to the same, not 'gru'"):
        with_texts(pictures, replace(recipe, texts="gru"), other)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "metric-learning", "loss": "npair"}, r"'gru\(.*learns from captions; set task = 'image-text'"),
        ({"start": "ridge"}, "start = 'ridge' foretells vectors of texts that stay.*leave out start"),
        ({"texts": "gru(hiden=8)"}, "no option 'hiden'; did you mean hidden"),
        ({"texts": "gru(least=0)"}, r"least=0 in the encoder .* is not a whole number of 1 to"),
        ({"texts": "gru(words"}, "is no encoder"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_a_sentence(shop, values, message):
    with pytest.raises(ConfigError, match=message):
        small(shop, **values)
