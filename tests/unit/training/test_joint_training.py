"""Pictures and texts trained into one space, on small pictures: what is written, resumed, started from and refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import embedkit
from embedkit.encoders.load import load_encoder
from embedkit.errors import BadSource, ConfigError, DataCorrupt, UnknownName
from embedkit.training import loop
from embedkit.training.checkpoint import read_checkpoint
from embedkit.training.datasets.contract import Captions
from embedkit.training.kept_classes import CLASSES, keep_classes, start_at_kept
from embedkit.training.material import open_material
from embedkit.training.recipe import Augment, TrainingRecipe
from embedkit.training.run import _built
from embedkit.training.train import train_encoder
from tests import tiny_models
from tests.conftest import picture
from tests.unit.training.runs import losses, ran, same

COLOURS = ("red", "green", "blue", "grey")
STILL = Augment(flip=False, crop=1.0, colour=0.0)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Twenty pictures with one to three captions each."""
    root = tmp_path_factory.mktemp("shop")
    rows = ["path,caption"]
    for place in range(20):
        picture(place, (64, 64)).save(root / f"{place:02}.png")
        rows += [
            f"{place:02}.png,a {COLOURS[place % 4]} thing number {place}" + " again" * copy
            for copy in range(1 + place % 3)
        ]
    (root / "captions.csv").write_text("\n".join(rows))
    return root / "captions.csv"


@pytest.fixture(scope="module")
def first_stage(shop, tmp_path_factory):
    """The run folder of a batch by the instance loss."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(small(shop, steps=1, loss="instance"), folder)
    return folder


def small(shop, **changes):
    recipe = TrainingRecipe(
        data=str(shop),
        task="image-text",
        encoder="effnet-lite0(size=64)",
        dim=16,
        loss="clip",
        batch=8,
        steps=3,
        validate=0,
    )
    return replace(recipe, **changes)


def train(recipe, out):
    return train_encoder(recipe, out, plots=False, threads=1)


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("loss", "frozen"), [("clip", 0.9), *((loss, 1.0) for loss in ("clip", "instance", "siglip", "vse++(warmup=2)"))]
)
def test_every_loss_trains_and_goes_on_from_its_checkpoint_bit_by_bit(loss, frozen, shop, tmp_path):
    recipe = small(shop, loss=loss, frozen=frozen, augment=STILL if frozen == 1 else Augment()).checked()
    whole = ran(recipe, tmp_path / "whole")
    assert np.isfinite(losses(tmp_path / "whole")).all()
    with pytest.raises(KeyboardInterrupt):
        ran(recipe, tmp_path / "run", stop_after=2)
    assert same(ran(recipe, tmp_path / "run"), whole)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert {"model.texts.weight", "model.pooling.embedding.weight"} <= whole.keys()


def test_a_network_that_stays_is_asked_once_for_each_picture(shop, tmp_path, monkeypatch):
    recipe = small(shop, frozen=1.0, augment=STILL).checked()
    ran(recipe, tmp_path / "kept")
    monkeypatch.setattr(loop, "nothing_varies", lambda *_: False)
    ran(recipe, tmp_path / "again")
    assert losses(tmp_path / "kept") == pytest.approx(losses(tmp_path / "again"), rel=1e-4)


def test_a_run_folder_takes_pictures_and_texts_and_has_the_figures_of_the_run(shop, tmp_path):
    report = train(small(shop, steps=40, validate=20, frozen=1.0, augment=STILL, head_rate=0.01), tmp_path / "run")
    assert (report.primary, report.failed) == ("mean-recall", 0)
    encoder = load_encoder(str(tmp_path / "run"))
    assert encoder.spec.modalities == ("image", "text")
    texts = encoder.encode(["a red thing number 4", "a red thing number 4", "a blue thing"])
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(texts[0], texts[1])
    trained = small(shop, encoder=str(tmp_path / "run"), dim=0)
    judged = embedkit.evaluate_encoder(tmp_path / "run", shop)
    assert judged.metrics == pytest.approx(dict(report.end), abs=0.15)
    assert judged.protocol == "image-text"
    encoder.close()
    train(replace(trained, steps=1, rate=0.0, head_rate=0.0), tmp_path / "again")
    assert same(weights(tmp_path / "run"), weights(tmp_path / "again"))


def test_the_second_stage_of_the_instance_loss_goes_on_with_the_classifier_of_the_first(first_stage, shop):
    second = small(shop, loss="instance(ranking=1)", encoder=str(first_stage)).checked()
    _, objective = _built(second, open_material(second))
    assert torch.equal(objective.loss.weight, read_checkpoint(first_stage).objective["loss.weight"])


def test_class_vectors_are_of_use_to_the_same_captions_alone(tmp_path, caplog):
    kept, vectors, captions = torch.randn(2, 8), torch.zeros(2, 8), Captions(("red", "blue"), np.array([0, 1]))
    start_at_kept(vectors, tmp_path, captions)
    keep_classes(tmp_path, kept, captions)
    assert not vectors.any()
    start_at_kept(vectors, tmp_path, captions)
    assert torch.equal(vectors, kept)
    assert caplog.text == ""
    start_at_kept(torch.nn.init.zeros_(vectors), tmp_path, replace(captions, labels=np.array([1, 0])))
    assert not vectors.any()
    assert "learned other captions; its class vectors are left out" in caplog.text
    (tmp_path / CLASSES).write_bytes(b"")
    with pytest.raises(DataCorrupt, match="class vectors of this run cannot be read"):
        start_at_kept(vectors, tmp_path, captions)


@pytest.mark.parametrize("loss", ["dcmh", "clip"])
def test_codes_of_both_come_out_of_a_run_folder_and_find_each_other(loss, shop, tmp_path):
    recipe = small(shop, loss=loss, dim=128, bits=16, steps=60, frozen=1.0, augment=STILL, head_rate=0.01)
    train(recipe, tmp_path / "run")
    encoder = load_encoder(str(tmp_path / "run"))
    assert (encoder.spec.kind, encoder.spec.dim, encoder.spec.modalities) == ("binary", 16, ("image", "text"))
    codes = encoder.encode(["a red thing number 4", "a blue thing number 2"])
    assert (codes.dtype, codes.shape) == (np.uint8, (2, 2))
    encoder.close()
    judged = embedkit.evaluate_encoder(tmp_path / "run", shop, curves=tmp_path / "curves.png")
    assert {"t2i-map@1000", "i2t-precision@h2", "t2i-recall@10"} <= judged.metrics.keys()
    assert (tmp_path / "curves.png").stat().st_size > 1_000
    with embedkit.connect(backend=f"faiss:///{tmp_path}/f", home=tmp_path / "h") as kit:
        there = kit.collection("c")
        there.ingest(shop.parent, encoder={"image": str(tmp_path / "run")})
        found = there.search(text="a red thing number 4", k=20)
        assert there.status().metrics == {"image": "hamming"}
    assert len(found) == 20
    assert found[0].distance < found[-1].distance
    learned = [int(hit.key.removesuffix(".png")) % 4 == 0 for hit in found if hit.key.endswith(".png")]
    assert sum(learned[:5]) > sum(learned[-5:])


def test_the_fingerprint_covers_the_layer_of_texts(first_stage, shop, tmp_path):
    train(small(shop, steps=1), tmp_path / "one")
    specs = [embedkit.describe_encoder(str(folder)) for folder in (tmp_path / "one", first_stage)]
    assert specs[0].fingerprint != specs[1].fingerprint


def test_a_ready_made_pair_is_trained_on_against_its_own_texts(shop, tmp_path):
    """With ``dim = 0`` nothing is put on top, and training that does not move leaves its vectors as they were."""
    name = "hf:" + tiny_models.clip(tmp_path / "clip")
    recipe = small(shop, encoder=name, texts=name, dim=0, steps=1, rate=0.0, lora=2)
    train(recipe, tmp_path / "run")
    before, after = load_encoder(name), load_encoder(str(tmp_path / "run"))
    pixels = np.stack([before.prepare((shop.parent / f"{place:02}.png").read_bytes()) for place in range(3)])
    np.testing.assert_allclose(before.encode(pixels), after.encode(pixels), atol=1e-4)
    texts = ["a red shoe", "blue"]
    np.testing.assert_allclose(before.encode(texts), after.encode(texts), atol=1e-4)
    before.close()
    after.close()


def test_pieces_of_a_batch_of_pictures_and_texts_give_the_gradient_of_the_whole(shop, tmp_path):
    train(small(shop, steps=2, batch=16), tmp_path / "whole")
    train(small(shop, steps=2, batch=16, pieces=4), tmp_path / "pieces")
    whole, pieces = weights(tmp_path / "whole"), weights(tmp_path / "pieces")
    assert losses(tmp_path / "pieces") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)
    for name in ("pooling.embedding.weight", "texts.weight"):
        assert torch.allclose(whole[name], pieces[name], atol=2e-4), name


def test_pictures_that_start_by_regression_are_near_their_texts_at_once(shop, tmp_path):
    first = {}
    for start in ("", "ridge"):
        train(small(shop, start=start, dim=8, steps=1, augment=STILL), tmp_path / f"run{start}")
        first[start] = losses(tmp_path / f"run{start}")[0]
    assert first["ridge"] < 0.5 * first[""]
    with pytest.raises(ConfigError, match="captions of 384 numbers have no 64 axes; set a lower dim"):
        train(small(shop, start="ridge", dim=64), tmp_path / "wide")


def test_what_does_not_go_together_is_refused_in_a_sentence(shop, tmp_path):
    with pytest.raises(UnknownName, match="no loss of pictures and texts called 'npair'"):
        small(shop, loss="npair").checked()
    with pytest.raises(ConfigError, match="compares within its batch"):
        small(shop, memory=64).checked()
    with pytest.raises(ConfigError, match="'dcmh' makes binary codes; say how long"):
        train(small(shop, loss="dcmh"), tmp_path / "run")
    with pytest.raises(ConfigError, match="takes no texts"):
        train(small(shop, texts="effnet-lite0"), tmp_path / "run")
    with pytest.raises(ConfigError, match="vectors of one length"):
        train(small(shop, dim=0), tmp_path / "run")
    root = tmp_path / "classes"
    for place in range(4):
        (root / f"{place % 2}").mkdir(parents=True, exist_ok=True)
        picture(place).save(root / f"{place % 2}" / f"{place}.png")
    with pytest.raises(BadSource, match="4 have no caption: give a table"):
        train(small(root), tmp_path / "run")
    assert TrainingRecipe().changed({"task": "image-text"}).loss == "clip"
