"""A training, end to end on small pictures: what it writes, what it survives, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import embedkit
from embedkit import plugins
from embedkit.encoders.load import load_encoder
from embedkit.errors import BadSource, ConfigError, TrainingFailed
from embedkit.training.checkpoint import read_checkpoint
from embedkit.training.datasets.open import open_dataset
from embedkit.training.evaluation.encode import encode_split
from embedkit.training.history import read_history
from embedkit.training.losses.build import build_loss
from embedkit.training.material import open_material
from embedkit.training.recipe import Augment, TrainingRecipe
from embedkit.training.run import Run, _devices
from embedkit.training.train import train_encoder
from tests import tiny_models
from tests.conftest import picture
from tests.unit.training import launched
from tests.unit.training.runs import losses, ran, same, small, train, weights


def test_a_run_folder_is_a_model_folder_whose_figures_are_those_of_evaluate(shop, tmp_path):
    moments = []
    report = train(small(shop, steps=8, validate=100, loss="npair"), tmp_path / "run", progress=moments.append)
    judged = embedkit.evaluate_encoder(tmp_path / "run", shop)
    assert judged.metrics["recall@1"] == pytest.approx(report.end["recall@1"], abs=0.05)
    assert judged.dim == 16
    assert report.start["recall@1"] > 0
    assert [one.seen for one in moments if one.epoch is None] == list(range(1, 9))
    assert [one.epoch.epoch for one in moments if one.epoch] == [1, 2]
    stored = json.loads((tmp_path / "run" / "encoder.json").read_text())["training"]
    assert stored["recipe"]["loss"] == "npair"
    assert stored["metrics"] == pytest.approx(dict(report.end))
    assert "recall@1" in (tmp_path / "run" / "README.md").read_text()
    assert list((tmp_path / "run" / "events").rglob("events.out.*"))


def test_a_run_whose_folder_is_removed_meanwhile_says_so(shop, tmp_path):
    def removed(_):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)

    with pytest.raises(
        ConfigError, match=r"run in '.*run' cannot be written: .*No such file.*, and the folder is gone"
    ):
        train(small(shop, steps=1), tmp_path / "run", progress=removed)


def test_training_raises_the_recall_of_classes_it_has_not_seen(shop, tmp_path):
    changes = Augment(crop=1.0, colour=0.5)
    report = train(small(shop, steps=40, batch=16, validate=100, augment=changes), tmp_path / "run")
    assert report.end["map@r"] > report.start["map@r"]


@pytest.mark.parametrize("bits", [0, 16])
def test_a_run_that_starts_at_discriminants_goes_on_from_its_checkpoint_bit_by_bit(bits, shop, tmp_path):
    """Floats, and codes; what the start is worth is in test_discriminants.py."""
    recipe = small(shop, bits=bits, steps=3, start="lda").checked()
    whole = ran(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        ran(recipe, tmp_path / "run", stop_after=2)
    assert same(ran(recipe, tmp_path / "run"), whole)
    assert not same(ran(replace(recipe, start=""), tmp_path / "plain"), whole)


@pytest.mark.parametrize("changes", [{"bits": 16}, {"ema": 0.5}], ids=["codes", "averaged"])
def test_a_finish_sets_the_embedding_layer_anew_and_nothing_else(changes, shop, tmp_path):
    recipe = small(shop, steps=3, **changes).checked()
    train(recipe, tmp_path / "plain")
    train(replace(recipe, finish="lda"), tmp_path / "finished")
    plain, finished = weights(tmp_path / "plain"), weights(tmp_path / "finished")
    other = {name for name in plain if not torch.equal(plain[name], finished[name])}
    assert other == {"pooling.embedding.weight", "pooling.embedding.bias"}


def test_a_run_that_is_killed_is_finished_when_it_goes_on(shop, tmp_path):
    recipe = small(shop, steps=3, finish="lda").checked()
    with pytest.raises(KeyboardInterrupt):
        ran(recipe, tmp_path / "run", stop_after=2)
    (tmp_path / "run" / "recipe.toml").write_text(recipe.as_toml())
    train_encoder(None, tmp_path / "run", resume=True, plots=False, threads=1)
    train(recipe, tmp_path / "whole")
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


@pytest.mark.parametrize("loss", [*plugins.names("losses"), "daml(base=triplet)"])
def test_every_loss_trains_and_goes_on_from_its_checkpoint(loss, shop, tmp_path):
    bits = {"dim": 16, "bits": 16} if build_loss(loss, dim=16, classes=8).makes_codes else {}
    recipe = small(shop, loss=loss, steps=3, **bits).checked()
    whole = ran(recipe, tmp_path / "whole")
    assert np.isfinite(losses(tmp_path / "whole")).all()
    with pytest.raises(KeyboardInterrupt):
        ran(recipe, tmp_path / "run", stop_after=2)
    found = ran(recipe, tmp_path / "run")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 3
    assert same(found, whole)


def test_the_first_batch_is_learned_from(shop, tmp_path):
    recipe = small(shop, steps=1).checked()
    learned = ran(recipe, tmp_path / "run")
    still = ran(replace(recipe, rate=0.0, head_rate=0.0), tmp_path / "still")
    assert not torch.equal(learned["model.pooling.embedding.weight"], still["model.pooling.embedding.weight"])


def test_an_epoch_that_is_stopped_at_its_end_is_judged_before(shop, tmp_path):
    recipe = small(shop, steps=0, epochs=2, batch=16, holdout=0.25, patience=5, validate=20).checked()
    whole = ran(recipe, tmp_path / "whole")
    length = len(losses(tmp_path / "whole")) // 2
    with pytest.raises(KeyboardInterrupt):
        ran(recipe, tmp_path / "run", stop_after=length)
    assert same(ran(recipe, tmp_path / "run"), whole)
    left, right = read_checkpoint(tmp_path / "run"), read_checkpoint(tmp_path / "whole")
    assert left.best == right.best
    assert same(left.chosen, right.chosen)
    steps = [line["step"] for line in read_history(tmp_path / "run") if "metrics" in line]
    assert steps == [0, length, 2 * length]


def test_a_batch_of_which_nothing_can_be_read_is_passed_over(shop, tmp_path):
    root = shutil.copytree(shop, tmp_path / "data")
    for folder in sorted((root).iterdir())[:6]:
        for path in folder.iterdir():
            path.write_bytes(b"no picture")
    recipe = small(root, batch=4, per_class=2, steps=0, epochs=2, augment=Augment(crop=1.0)).checked()
    ran(recipe, tmp_path / "run")
    kept, seen = read_checkpoint(tmp_path / "run"), [line["step"] for line in read_history(tmp_path / "run")]
    assert len(kept.failures) == 4 * sum(name.startswith("thing 0") for name in _trained_on(root)[:6])
    assert seen == sorted(set(seen))
    assert len(seen) < kept.step == 2 * (len(open_dataset(root).train) // 4)


def _trained_on(root):
    return list(open_dataset(root).train.names)


def test_a_class_whose_pictures_are_all_missing_does_not_end_the_mining_of_hard_classes(shop, tmp_path):
    rows = ["path,label,split"]
    for place in range(6):
        folder = "nowhere" if place == 1 else f"{shop}/thing {place:02}"
        rows += [f"{folder}/{copy}.png,{place},{'train' if place < 4 else 'test'}" for copy in range(4)]
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    recipe = small(tmp_path / "mine.csv", sampler="pairs", loss="npair", batch=4, steps=0, epochs=2).checked()
    ran(recipe, tmp_path / "run")
    assert len(read_checkpoint(tmp_path / "run").centres) == 3


def test_nothing_to_learn_is_refused(shop, tmp_path):
    with pytest.raises(ConfigError, match="nothing is left to learn"):
        ran(small(shop, frozen=1.0, dim=0).checked(), tmp_path / "run")


def test_the_threads_asked_for_are_those_of_torch_and_of_decoding(shop, tmp_path):
    recipe = small(shop, validate=10, steps=1).checked()
    with _devices(recipe, tmp_path, False) as accelerator:
        trainer = Run(recipe, tmp_path, threads=1)._trainer(open_material(recipe), accelerator)
        assert torch.get_num_threads() == 1
        assert trainer.pictures.threads == 1
        trainer.judge.shown(trainer.model)
        assert torch.get_num_threads() == 1
        trainer.close()


def test_a_picture_that_cannot_be_read_is_left_out_counted_and_named(shop, tmp_path):
    root = shutil.copytree(shop, tmp_path / "data")
    (root / "thing 03" / "2.png").write_bytes(b"no picture")
    report = train(small(root, epochs=1, steps=0), tmp_path / "run")
    assert report.failed == 1
    ((path, reason),) = report.failures
    assert path.endswith("thing 03/2.png")
    assert reason


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_weights_before_it(shop, tmp_path):
    encoder = "torchvision:resnet18(size=64, weights=none)"
    recipe = small(shop, encoder=encoder, steps=30, rate=1e3, head_rate=1e3, warmup=0.0, clip=0.0)
    with pytest.raises(TrainingFailed, match=r"The loss of batch \d+ is .*\.png.*are kept") as caught:
        train(recipe, tmp_path / "run")
    assert str(tmp_path / "run") in str(caught.value)
    vectors = encode_split(load_encoder(str(tmp_path / "run")), open_dataset(shop).query).vectors
    assert np.isfinite(vectors).all()


def test_what_cannot_be_learned_from_is_refused_in_a_sentence(tmp_path):
    def classes(name, sizes):
        for place, size in enumerate(sizes):
            for split in ("train", "test"):
                folder = tmp_path / name / split / f"{place}"
                folder.mkdir(parents=True)
                for copy in range(size if split == "train" else 2):
                    picture(place).save(folder / f"{copy}.png")
        return tmp_path / name

    for sizes, words in (([4], "one class of 4 pictures"), ([1, 1, 1], "one picture of each of its 3 classes")):
        with pytest.raises(BadSource, match=words):
            train(small(classes(str(sizes), sizes)), tmp_path / "run")
    with pytest.raises(BadSource, match="no data set"):
        train(small(tmp_path / "nowhere"), tmp_path / "run")
    with pytest.raises(ConfigError, match="No data"):
        train(TrainingRecipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_that_is_too_small_for_the_loss_is_refused(shop, tmp_path):
    with pytest.raises(ConfigError, match=r"'margin' wants 5 pictures .* at least 10"):
        train(small(shop, loss="margin", batch=8), tmp_path / "run")


def test_a_class_with_gaps_in_its_numbers_or_few_pictures_is_no_trouble(shop, tmp_path):
    rows = ["path,label,split"]
    for number, place in ((7, 0), (1000, 1), (3, 2), (5, 3)):
        copies = range(4) if number != 1000 else range(1)
        split = "train" if place < 2 else "test"
        rows += [f"{shop}/thing {place:02}/{copy}.png,{number},{split}" for copy in copies]
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    report = train(small(tmp_path / "mine.csv", loss="proxy-anchor", steps=2), tmp_path / "run")
    assert report.steps == 2


def test_pieces_of_a_batch_give_the_gradient_of_the_whole(shop, tmp_path):
    train(small(shop, steps=2, batch=16), tmp_path / "whole")
    train(small(shop, steps=2, batch=16, pieces=4), tmp_path / "pieces")
    whole, pieces = weights(tmp_path / "whole"), weights(tmp_path / "pieces")
    assert losses(tmp_path / "pieces") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)
    name = "pooling.embedding.weight"
    assert torch.allclose(whole[name], pieces[name], atol=2e-4)


def test_what_is_frozen_stays_and_the_rest_moves(shop, tmp_path):
    train(small(shop, frozen=0.0, steps=1, rate=0.0, head_rate=0.0), tmp_path / "start")
    train(small(shop, frozen=0.5), tmp_path / "half")
    start, half = weights(tmp_path / "start"), weights(tmp_path / "half")
    moved = [name for name in start if not torch.equal(start[name], half[name])]
    assert "network.stem.conv.weight" not in moved
    assert {"network.head.conv.weight", "pooling.embedding.weight"} <= set(moved)
    assert not [name for name in moved if "running" in name]
    train(small(shop, freeze_norm=False, frozen=0.5), tmp_path / "statistics")
    changed = weights(tmp_path / "statistics")
    assert not torch.equal(start["network.head.norm.running_mean"], changed["network.head.norm.running_mean"])
    assert torch.equal(start["network.stem.norm.running_mean"], changed["network.stem.norm.running_mean"])


def test_the_average_of_weights_is_what_is_kept(shop, tmp_path):
    train(small(shop, steps=3, warmup=0.0), tmp_path / "plain")
    train(small(shop, steps=3, ema=0.999, warmup=0.0), tmp_path / "average")
    train(small(shop, steps=1, rate=0.0, head_rate=0.0), tmp_path / "start")
    name = "pooling.embedding.weight"
    start, plain, average = (weights(tmp_path / folder)[name] for folder in ("start", "plain", "average"))
    assert 0 < (average - start).norm() < (plain - start).norm()


def test_a_holdout_is_not_trained_on_and_ends_the_run_when_it_no_longer_gains(shop, tmp_path):
    recipe = small(shop, steps=0, epochs=30, holdout=0.25, patience=2, validate=100, rate=0.0, head_rate=0.0)
    report = train(recipe, tmp_path / "run")
    assert report.stopped_early
    assert report.epochs == 3  # the best, and two that are no better


def test_a_run_folder_is_an_encoder_to_start_from(shop, tmp_path):
    train(small(shop), tmp_path / "first")
    again = small(shop, encoder=str(tmp_path / "first"), steps=1, rate=0.0, head_rate=0.0)
    train(again, tmp_path / "second")
    assert same(weights(tmp_path / "first"), weights(tmp_path / "second"))
    with pytest.raises(ConfigError, match="dim=16"):
        train(replace(again, dim=32), tmp_path / "third")
    shutil.rmtree(tmp_path / "first")
    train(replace(again, encoder=str(tmp_path / "second"), dim=0), tmp_path / "third")
    assert same(weights(tmp_path / "second"), weights(tmp_path / "third"))


@pytest.mark.parametrize(
    "encoder",
    ["torchvision:resnet18(size=64, weights=none, pooling=gem)", "effnet-lite0(size=64, pooling=netvlad, clusters=2)"],
)
def test_other_networks_and_poolings_train_and_are_started_from_again(encoder, shop, tmp_path):
    train(small(shop, encoder=encoder, steps=2), tmp_path / "run")
    assert load_encoder(str(tmp_path / "run")).spec.dim == 16
    again = small(shop, encoder=str(tmp_path / "run"), steps=1, rate=0.0, head_rate=0.0)
    train(again, tmp_path / "again")
    assert same(weights(tmp_path / "run"), weights(tmp_path / "again"))


def test_a_hugging_face_model_trains_and_runs_without_its_library(shop, tmp_path):
    folder = tiny_models.vit(tmp_path / "vit")
    train(small(shop, encoder=f"hf:{folder}", steps=2), tmp_path / "run")
    assert load_encoder(str(tmp_path / "run")).spec.dim == 16


def test_the_scales_of_deep_ranking_train(shop, tmp_path):
    train(small(shop, multi_scale=True, loss="triplet", steps=2), tmp_path / "run")
    assert load_encoder(str(tmp_path / "run")).spec.dim == 16


def test_bfloat16_trains_to_about_the_same_losses(shop, tmp_path):
    train(small(shop), tmp_path / "full")
    train(small(shop, precision="bf16"), tmp_path / "half")
    half, full = losses(tmp_path / "half"), losses(tmp_path / "full")
    assert half[0] == pytest.approx(full[0], rel=0.02), "of the same weights"
    assert np.mean(half) == pytest.approx(np.mean(full), rel=0.2), "of steps that go apart, by processor"


def test_two_processes_share_the_batches_and_end_with_one_model(shop, tmp_path):
    """Floats to the end, codes with adapters to the last step, where a classifier starts, and a gradient of both."""
    rows = [f"{path},thing {place}" for place, path in enumerate(sorted(shop.rglob("*.png"))[:10])]
    (tmp_path / "captions.csv").write_text("\n".join(["path,caption", *rows]))
    plain = small(shop, epochs=1, steps=0, batch=8, loss="proxy-anchor", validate=50)
    codes = small(shop, steps=1, batch=8, loss="hashnet", bits=16, lora=4)
    joint = small(tmp_path / "captions.csv", task="image-text", loss="clip", batch=8, frozen=0.9)
    for name, recipe in (("plain", plain), ("codes", codes), ("joint", joint)):
        (tmp_path / f"{name}.toml").write_text(recipe.as_toml())
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    launch += ["-m", "tests.unit.training.launched"]
    done = subprocess.run([sys.executable, *launch, str(tmp_path)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path / "run")) == 2  # 32 pictures, two processes, 8 each
    assert load_encoder(str(tmp_path / "run")).spec.dim == 16
    for what in ("codes", "start"):
        np.testing.assert_array_equal(np.load(tmp_path / f"{what}-0.npy"), np.load(tmp_path / f"{what}-1.npy"))
    alone = launched.gradients_of_joint_batch(joint.checked(), tmp_path, slice(None))
    for process in (0, 1):  # each with the mean over both, which is that of one process with the whole batch
        shared = np.load(tmp_path / f"joint-{process}.npy")
        np.testing.assert_allclose(shared, alone, rtol=0, atol=1e-5 * np.abs(alone).max())
