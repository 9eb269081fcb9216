"""A hash encoder, from the recipe to codes that every runtime gives."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import embedkit
from embedkit.codes import packed
from embedkit.encoders.codes import clear_flips
from embedkit.encoders.load import load_encoder
from embedkit.encoders.probe import probe_pixels
from embedkit.errors import ConfigError, DataCorrupt
from embedkit.testing.encoder import EncoderContract
from embedkit.training.discriminants import AT_THE_END, fisher_directions
from embedkit.training.hash_heads import BlockCode, DivideAndEncode, build_head, finish_codes, head_of, start_codes
from embedkit.training.material import build_sampler, concepts_of_labels, open_material
from embedkit.training.network import build_model, build_objective
from embedkit.training.recipe import TrainingRecipe
from embedkit.training.train import train_encoder
from tests.conftest import picture
from tests.unit.training import trees


def small(shop, loss, **changes):
    changes = {"encoder": "effnet-lite0(size=64)", "batch": 10, "steps": 2, "validate": 0, "bits": 16} | changes
    return TrainingRecipe(data=str(shop), loss=loss).changed(changes)


def train(recipe, out):
    return train_encoder(recipe, out, plots=False, threads=1)


@pytest.fixture(scope="module")
def codes_of_hashnet(shop, tmp_path_factory):
    out = tmp_path_factory.mktemp("hashnet") / "run"
    train_encoder(small(shop, "hashnet", validate=100), out, threads=1)
    return out


@pytest.fixture(scope="module")
def codes_of_subic(shop, tmp_path_factory):
    out = tmp_path_factory.mktemp("subic") / "run"
    train(small(shop, "subic"), out)
    return out


@pytest.fixture(params=["hashnet", "subic"])
def run(request, codes_of_hashnet, codes_of_subic):
    return {"hashnet": codes_of_hashnet, "subic": codes_of_subic}[request.param]


def test_a_run_is_a_binary_encoder_whose_codes_are_the_same_in_every_runtime(run):
    spec = embedkit.describe_encoder(str(run))
    assert (spec.kind, spec.dim, spec.normalized) == ("binary", 16, False)
    pixels = np.stack([np.asarray(picture(seed, (64, 64))) for seed in range(8)])
    codes, numbers = {}, {}
    for runtime in ("onnx", "openvino"):
        encoder = load_encoder(str(run), runtime=runtime)
        codes[runtime], numbers[runtime] = encoder.encode(pixels), encoder.numbers(pixels)
        assert encoder.encode(pixels[:0]).shape == (0, 2)
        encoder.close()
    assert codes["onnx"].dtype == np.uint8
    assert codes["onnx"].shape == (8, 2)
    assert (codes["onnx"] == packed(numbers["onnx"])).all()
    assert clear_flips(numbers["openvino"], numbers["onnx"]) == 0
    assert len(np.unique(codes["onnx"], axis=0)) > 1


def test_a_run_that_goes_on_from_its_folder_keeps_its_head_whatever_the_loss(run, shop, tmp_path):
    before = json.loads((run / "encoder.json").read_text())["training"]["recipe"]
    train(small(shop, "csq", encoder=str(run), steps=1), tmp_path / "next")
    after = json.loads((tmp_path / "next" / "encoder.json").read_text())["training"]["recipe"]
    assert (after["bits"], after["head"]) == (16, before["head"])
    with pytest.raises(ConfigError, match="codes of bits=16"):
        train(small(shop, "csq", encoder=str(run), bits=32), tmp_path / "other")


@pytest.mark.parametrize(
    ("loss", "changes", "message"),
    [
        (
            "hashnet",
            {"head": "divide"},
            "head = 'divide' cannot replace the head 'linear' of .*; leave out head, or start",
        ),
        (
            "subic",
            {},
            "'subic' wants the head 'blocks', and .* has 'linear'; set head = 'linear' to go on with that, or",
        ),
        ("hashnet", {"start": "lda"}, "start = 'lda' sets an embedding layer, and .* or start from 'effnet-lite0"),
    ],
)
def test_a_last_layer_that_a_run_folder_does_not_have_is_refused(loss, changes, message, codes_of_hashnet, shop):
    with pytest.raises(ConfigError, match=message):
        build_model(small(shop, loss, encoder=str(codes_of_hashnet), **changes), lambda: iter(()))


def test_the_codes_of_subic_have_one_bit_in_each_block(codes_of_subic):
    encoder = load_encoder(str(codes_of_subic), runtime="onnx")
    bits = np.unpackbits(encoder.encode(probe_pixels((64, 64))), axis=1)
    assert (bits.reshape(-1, 4, 4).sum(axis=2) == 1).all()
    encoder.close()


def test_codes_are_judged_by_hamming_distance_while_training_and_afterwards(codes_of_hashnet, shop, tmp_path):
    end = json.loads((codes_of_hashnet / "encoder.json").read_text())["training"]["metrics"]
    judged = embedkit.evaluate_encoder(codes_of_hashnet, shop, curves=tmp_path / "curves.png")
    assert {"map@1000", "precision@h2", "recall@h2", "recall@1"} <= judged.metrics.keys()
    for name in ("map@1000", "precision@h2"):
        assert judged.metrics[name] == pytest.approx(end[name], abs=0.1)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (codes_of_hashnet / "plots" / "codes.png").is_file()
    assert "curves" not in judged.as_dict()
    with pytest.raises(ConfigError, match="makes floats; leave curves out"):
        embedkit.evaluate_encoder("effnet-lite0", shop, curves=tmp_path / "x.png")


def test_a_model_whose_bits_are_others_than_its_probes_is_refused(run):
    path = run / "model.onnx"
    before = path.read_bytes()
    model = onnx.load(path)
    biases = [one for one in model.graph.initializer if list(one.dims) == [16]]
    assert biases
    for one in biases:
        values = numpy_helper.to_array(one).copy()
        values[3] *= -50
        values[3] -= 50
        one.CopyFrom(numpy_helper.from_array(values, one.name))
    onnx.save(model, path)
    with pytest.raises(DataCorrupt, match="other vectors than the model was exported with"):
        load_encoder(str(run), runtime="onnx")
    path.write_bytes(before)


def test_clear_bits_count_and_those_next_to_zero_do_not():
    expected = np.array([[1.0, -1.0, 0.001, -2.0]], np.float32)
    assert clear_flips(np.array([[1.0, -1.0, -0.001, -2.0]], np.float32), expected) == 0
    assert clear_flips(np.array([[-1.0, -1.0, 0.001, 2.0]], np.float32), expected) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 20}, "bits = 20 is not a multiple of 8 from 16 to 512"),
        ({"bits": 1024}, "bits = 1024 is not a multiple of 8"),
        ({"bits": -8}, "bits = -8 is not"),
        ({"bits": 64, "dim": 32}, "dim = 32 would be ignored: a code of bits = 64 has"),
        ({"head": "divide"}, "head = 'divide' makes bits, and bits is 0"),
        ({"bits": 64, "head": "round"}, "head = 'round' is not one of"),
    ],
)
def test_bits_that_cannot_be_are_one_sentence(changes, message):
    with pytest.raises(ConfigError, match=message):
        TrainingRecipe(steps=1).changed(changes).checked()


def test_bits_are_the_dimension():
    assert TrainingRecipe(steps=1, bits=64).checked().dim == 64
    assert TrainingRecipe(steps=1, bits=64, dim=64).checked().dim == 64
    assert TrainingRecipe(steps=1).checked().dim == 128
    with pytest.raises(ConfigError, match="dim = 32 and bits = 64 are both set"):
        TrainingRecipe(steps=1, bits=64, dim=32).checked()
    assert TrainingRecipe(steps=1, dim=512).changed({"bits": 64}).checked().dim == 64


def test_a_loss_of_codes_without_bits_says_what_is_missing(shop, tmp_path):
    with pytest.raises(ConfigError, match="makes binary codes; say how long they are"):
        train(small(shop, "hashnet", bits=0), tmp_path / "run")


def test_a_loss_brings_its_head_and_the_recipe_may_name_another():
    assert [head_of(TrainingRecipe(loss=name, bits=16)) for name in ("nt-xent", "dnnh", "subic")] == [
        "linear",
        "divide",
        "blocks",
    ]
    assert head_of(TrainingRecipe(loss="dnnh", head="linear", bits=16)) == "linear"


def test_divide_and_encode_lets_each_bit_see_its_own_slice():
    head = DivideAndEncode(6, 4, width=3)
    given = torch.randn(2, 6)
    slices = torch.relu(given @ head.divide.weight.T + head.divide.bias).view(2, 4, 3)
    expected = torch.stack([slices[:, bit] @ head.encode[bit] + head.bias[bit] for bit in range(4)], dim=1)
    torch.testing.assert_close(head(given), expected)


def test_a_block_code_has_the_softmax_of_its_layer_and_one_sign_a_block():
    head, given = BlockCode(6, 16), torch.randn(5, 6)
    plain, found = head.linear(given).view(5, 4, 4), head(given).view(5, 4, 4)
    torch.testing.assert_close(found.softmax(2), plain.softmax(2))
    assert ((found > 0).sum(2) == 1).all()
    assert (found.argmax(2) == plain.argmax(2)).all()


@pytest.mark.parametrize("kind", ["linear", "divide"])
def test_bits_start_in_balance_and_at_one_scale(kind):
    torch.manual_seed(0)
    features = 3 + torch.randn(200, 40) * torch.linspace(0.1, 4, 40)
    head = build_head(kind, 40, 16)
    start_codes(head, features, None, seed=0)
    numbers = head(features)
    assert numbers.mean(0).abs().max() < 1e-3
    assert 0.5 < numbers.square().mean() < 2
    assert ((numbers > 0).float().mean(0) - 0.5).abs().max() < 0.25


@pytest.mark.parametrize("labelled", [False, True])
def test_block_codes_start_at_codebooks_of_which_every_word_is_used(labelled):
    """Pictures of a class lie together, so their codes agree; those of other classes differ."""
    torch.manual_seed(0)
    labels = torch.arange(40).repeat_interleave(8)
    features = 3 + (2 * torch.randn(40, 48))[labels] + 0.3 * torch.randn(len(labels), 48)
    head = BlockCode(48, 16)
    start_codes(head, features, labels if labelled else None, seed=0)
    assert head.linear(features).square().mean().sqrt().item() == pytest.approx(1, abs=1e-3)
    codes = (head(features) > 0).float()
    assert (codes.view(-1, 4, 4).sum(dim=0) > 0).all()
    alike = codes @ codes.T / 4
    same = labels[:, None] == labels
    assert alike[same].mean() > 0.9
    assert alike[~same].mean() < 0.4


def test_the_finish_of_block_codes_is_that_of_a_nearest_mean():
    torch.manual_seed(0)
    labels = torch.arange(30).repeat_interleave(6)
    features = (2 * torch.randn(30, 24))[labels] + 0.3 * torch.randn(len(labels), 24)
    head = BlockCode(24, 8)
    finish_codes(head, features, labels)
    axes = fisher_directions(features, labels, 8, shrinkage=AT_THE_END)
    shown = ((features - features.mean(0)).double() @ axes.T).float()
    for number, of in enumerate(([0, 3, 4, 7], [1, 2, 5, 6])):  # there and back
        part, chosen = shown[:, of], (head(features) > 0)[:, 4 * number : 4 * number + 4].float().argmax(1)
        means = torch.stack([part[chosen == word].mean(0) for word in range(4)])
        assert (torch.cdist(part, means).argmin(1) == chosen).float().mean() > 0.99


def test_fewer_pictures_than_bits_are_no_trouble():
    head = nn.Linear(40, 16)
    start_codes(head, torch.randn(5, 40), None, seed=0)
    assert head.weight.isfinite().all()
    assert head(torch.randn(2, 40)).abs().sum() > 0


def test_pictures_of_several_concepts_are_drawn_once_an_epoch_and_are_alike_where_they_share_one(tmp_path):
    recipe = small(trees.nuswide(tmp_path / "nuswide"), "hashnet", data_name="nuswide21")
    train_split = open_material(recipe).train
    assert train_split.labels.max() > 20, "a picture of two concepts has a label of its own"
    concepts = concepts_of_labels(train_split)
    assert (concepts[train_split.labels] == train_split.concepts).all()
    built = build_model(recipe, lambda: iter(()))
    sampler = build_sampler(recipe, build_objective(built, recipe, classes=len(concepts)).loss, train_split)
    rows = [row for batch in sampler for row in batch]
    assert set(rows) == set(range(len(train_split)))
    assert len(rows) < len(train_split) + recipe.batch, "the last batch alone is filled up"
    assert train(recipe, tmp_path / "run").steps == 2


class TestHashEncoder(EncoderContract):
    """The contract holds for one that was trained."""

    @pytest.fixture(autouse=True)
    def _folder(self, codes_of_hashnet):
        self.spec, self.runtime = str(codes_of_hashnet), "onnx"
