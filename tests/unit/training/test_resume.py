"""A training that was broken off: how it goes on, and when it does not."""

from __future__ import annotations

import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from embedkit.errors import ConfigError, DataCorrupt
from embedkit.training.checkpoint import read_checkpoint, write_checkpoint
from embedkit.training.datasets.open import open_dataset
from embedkit.training.recipe import Augment
from embedkit.training.train import train_encoder
from tests.unit.training.runs import losses, ran, same, small, train, weights


def test_a_run_does_not_go_on_with_more_processes_than_it_was_begun_by(broken_off):
    write_checkpoint(broken_off, replace(read_checkpoint(broken_off), processes=2))
    with pytest.raises(ConfigError, match="begun by 2 processes"):
        train_encoder(None, broken_off, resume=True)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": "margin", "memory": 64, "ema": 0.9, "lora": 4},
        {"sampler": "pairs", "loss": "npair", "freeze_norm": False},
        {"loss": "proxy-anchor", "augment": Augment(crop=0.5, colour=0.3, rotate=10, erase=0.5)},
    ],
    ids=[
        "plain",
        "memory, average and adapters",
        "hard classes and batch statistics",
        "class vectors and augmentation",
    ],
)
def test_a_run_that_is_killed_in_an_epoch_ends_bit_equal_to_one_that_is_not(changes, shop, tmp_path):
    recipe = small(shop, steps=12, **changes)
    train(recipe, tmp_path / "whole")
    (tmp_path / "recipe.toml").write_text(recipe.as_toml())
    command = [
        "train",
        "--recipe",
        "recipe.toml",
        "--out",
        "run",
        "--no-plots",
        "--threads",
        "1",
        "--checkpoint-seconds",
        "0",
    ]
    code = "from embedkit_cli.main import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *command], cwd=tmp_path)
    history = tmp_path / "run" / "history.jsonl"
    while process.poll() is None and not (history.is_file() and history.read_text().count('"loss"') >= 6):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "run" / "encoder.json").exists()
    report = train_encoder(None, tmp_path / "run", resume=True, plots=False, threads=1)
    assert report.steps == 12
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_ctrl_c_finishes_the_batch_and_writes_a_checkpoint(shop, tmp_path):
    recipe = small(shop, steps=6)
    train(recipe, tmp_path / "whole")

    def interrupt(now):
        if now.seen == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", progress=interrupt)
    assert len(losses(tmp_path / "run")) == 2
    train_encoder(None, tmp_path / "run", resume=True, plots=False, threads=1)
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_a_folder_that_is_taken_is_refused_and_a_finished_run_is_not_resumed(shop, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("dear diary")
    with pytest.raises(ConfigError, match="exists; choose another"):
        train(small(shop), tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(ConfigError, match="holds no run to go on with"):
        train_encoder(None, tmp_path / "mine", resume=True)
    train(small(shop, steps=1), tmp_path / "run")
    with pytest.raises(ConfigError, match="is finished"):
        train_encoder(None, tmp_path / "run", resume=True)


@pytest.fixture
def broken_off(shop, tmp_path):
    def interrupt(now):
        if now.seen == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(small(shop), tmp_path / "run", progress=interrupt)
    return tmp_path / "run"


def test_a_run_does_not_go_on_where_a_class_is_renamed_and_the_labels_shift(shop, tmp_path):
    """What else counts, labels and captions too, is in test_material.py."""
    root, run = shutil.copytree(shop, tmp_path / "data"), tmp_path / "run"
    recipe = small(root, steps=2).checked()
    with pytest.raises(KeyboardInterrupt):
        ran(recipe, run, stop_after=1)
    (root / open_dataset(root).train.names[0]).rename(root / "thing 99")
    with pytest.raises(ConfigError, match=r"data' are not those that the run in .*run' was begun with; give them back"):
        ran(recipe, run)
    write_checkpoint(run, replace(read_checkpoint(run), learned_from=""))  # one of before
    ran(recipe, run)
    assert read_checkpoint(run).step == 2


def test_a_checkpoint_of_another_network_is_refused(broken_off):
    path = broken_off / "recipe.toml"
    path.write_text(path.read_text().replace("dim = 16", "dim = 24"))
    with pytest.raises(ConfigError, match="of another network"):
        train_encoder(None, broken_off, resume=True)


def test_a_checkpoint_that_is_a_pickle_of_a_stranger_is_refused_unread(broken_off, tmp_path):
    marker = tmp_path / "ran"
    code = f"import pathlib; pathlib.Path({str(marker)!r}).touch()"
    payload = type("Payload", (), {"__reduce__": lambda _: (exec, (code,))})
    torch.save(payload(), broken_off / "checkpoint.pt", pickle_module=_Cloudy)
    with pytest.raises(DataCorrupt, match="no checkpoint that embedkit wrote"):
        train_encoder(None, broken_off, resume=True)
    assert not marker.exists()


class _Cloudy:
    """A pickle module that pickles classes made on the spot."""

    Pickler = pickle.Pickler
    __name__ = "pickle"
