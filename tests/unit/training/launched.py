"""What each of several processes runs, started by ``torchrun``: trainings, a start, a batch that is compared."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch

from embedkit.training.history import History
from embedkit.training.losses.build import build_loss
from embedkit.training.material import open_material
from embedkit.training.processes import make_same
from embedkit.training.recipe import read_recipe
from embedkit.training.run import Run, _devices
from embedkit.training.stopping import StopSignal
from embedkit.training.train import train_encoder

SHARES = (slice(0, 5), slice(5, 8))  # of a batch of eight: what each of two processes has


def weights_after(recipe, folder):
    """All numbers of model and loss at the end of a training, which is not exported."""
    folder.mkdir(exist_ok=True)
    with _devices(recipe, folder, False) as accelerator:
        trainer = Run(recipe, folder, threads=1)._trainer(open_material(recipe), accelerator)
        history = History(None, step=-1)
        trainer.begin(history, lambda *_: None)
        trainer.run(history, StopSignal(), lambda *_: None)
        trainer.close()
        return flat(trainer._objective.state_dict().values())


def gradients_of_joint_batch(recipe, folder, share):
    """All gradients of one made batch of pictures and texts, of which this process has a share."""
    random = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (8, 64, 64, 3), generator=random, dtype=torch.uint8)
    captions = torch.randn(8, 384, generator=random)
    labels = torch.tensor([0, 1, 2, 3, 4, 4, 5, 0])  # two that both processes have
    with _devices(recipe, folder, False) as accelerator:
        trainer = Run(recipe, folder, threads=1)._trainer(open_material(recipe), accelerator)
        trainer._gradients(pixels[share], labels[share], captions[share])
        trainer.close()
        return flat(one.grad for one in trainer._objective.parameters() if one.grad is not None)


def classifier_after_start(recipe, folder, process):
    """A classifier on codes that each process would start at other class means."""
    loss = build_loss("dlbhc", dim=16, classes=5)
    with _devices(recipe, folder, False):
        loss.start_at(torch.randn(5, 16, generator=torch.Generator().manual_seed(process)))
        make_same(loss)
    assert loss.bias.any()
    return flat(loss.state_dict().values())


def flat(tensors):
    return np.concatenate([one.detach().double().numpy().ravel() for one in tensors])


if __name__ == "__main__":
    home, process = Path(sys.argv[1]), int(os.environ["RANK"])
    plain, codes, joint = (read_recipe(str(home / f"{name}.toml")) for name in ("plain", "codes", "joint"))
    np.save(home / f"codes-{process}.npy", weights_after(codes, home / "codes"))
    np.save(home / f"start-{process}.npy", classifier_after_start(codes, home, process))
    np.save(home / f"joint-{process}.npy", gradients_of_joint_batch(joint, home, SHARES[process]))
    train_encoder(plain, home / "run", plots=False)  # last, since it ends what joins the processes
