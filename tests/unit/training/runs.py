"""Small trainings, and what they left: shared by the tests of trainings."""

from __future__ import annotations

import json
from dataclasses import replace

import torch
from safetensors.torch import load_file

from embedkit.training.checkpoint import read_checkpoint
from embedkit.training.history import History
from embedkit.training.material import open_material
from embedkit.training.recipe import TrainingRecipe
from embedkit.training.run import Run, _devices
from embedkit.training.stopping import StopSignal
from embedkit.training.train import train_encoder


def small(shop, **changes):
    recipe = TrainingRecipe(
        data=str(shop), encoder="effnet-lite0(size=64)", dim=16, loss="nt-xent", batch=10, steps=4, validate=0
    )
    return replace(recipe, **changes)


def train(recipe, out, **options):
    return train_encoder(recipe, out, **{"plots": False, "threads": 1, **options})  # two would wait for each other


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def losses(folder):
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def _log(values, step):
    assert values
    assert step >= 0


def ran(recipe, folder, stop_after=0):
    """What a run's checkpoint says of model and loss in the end; nothing is exported."""
    folder.mkdir(exist_ok=True)
    stop = StopSignal()

    def note(now):
        stop.requested = now.seen == stop_after

    with _devices(recipe, folder, False) as accelerator:
        trainer = Run(recipe, folder, threads=1, progress=note)._trainer(open_material(recipe), accelerator)
        kept = read_checkpoint(folder)
        history = History(folder, step=trainer.step if kept is None else kept.step)
        try:
            if kept is None:
                trainer.begin(history, _log)
            else:
                trainer.restore(kept)
            trainer.run(history, stop, _log)
        finally:
            history.close()
            trainer.close()
    return read_checkpoint(folder).objective
