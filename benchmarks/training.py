"""Pictures a second of `embedkit.train_encoder` beside a plain PyTorch loop of the same work, in one run.

Bare: the same network, loss, rates, frozen layers and batches of two pictures a class, AdamW, mirrored pictures only;
all pictures lie decoded in memory before the clock starts, and nothing is scheduled, clipped, logged or kept.
embedkit: the recipe emoji-npair, which decodes during its first epoch; figures are given after that epoch, and over
all. Its clock is that of history.jsonl, which stands still while a checkpoint is written after an epoch. Each is
measured in a process of its own, in turn.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from embedkit.training.recipe import TrainingRecipe, read_recipe

Seconds: TypeAlias = list[float]  # from the start to the end of each step
Run: TypeAlias = Callable[[TrainingRecipe], tuple[Seconds, int]]  # and the steps of an epoch


def asked(data: str, steps: int) -> TrainingRecipe:
    """The recipe that both follow."""
    return read_recipe("emoji-npair").changed(
        {"data": data, "steps": steps, "validate": 0, "augment.crop": 1.0, "augment.colour": 0.0}
    )


def bare(recipe: TrainingRecipe) -> tuple[Seconds, int]:
    """What one writes with PyTorch alone."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    from embedkit.training.datasets.open import open_dataset
    from embedkit.training.datasets.pixels import split_pixels
    from embedkit.training.losses.build import build_loss
    from embedkit.training.network import build_model

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(recipe.seed)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    split = open_dataset(recipe.data, name=recipe.data_name).train
    built = build_model(recipe, list)
    loss_of = build_loss(recipe.loss, dim=built.dim, classes=split.classes).to(device)
    pictures = torch.stack(
        [torch.from_numpy(np.array(split_pixels(split, row, built.pictures))) for row in range(len(split))]
    ).to(device)
    labels = torch.from_numpy(split.labels).to(device)
    members = [np.flatnonzero(split.labels == label) for label in np.unique(split.labels)]
    members = [rows for rows in members if len(rows) > 1]

    model = built.model.to(device).train()
    tensors = list(model.network.parameters())
    for tensor in tensors[: round(recipe.frozen * len(tensors))]:
        tensor.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    groups = [
        {"params": [one for one in tensors if one.requires_grad], "lr": recipe.rate},
        {"params": list(model.pooling.parameters()), "lr": recipe.head_rate},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)

    random, found = np.random.default_rng(recipe.seed), []
    begun = time.perf_counter()
    for _ in range(recipe.steps):
        classes = random.choice(len(members), recipe.batch // 2, replace=False)
        rows = torch.from_numpy(np.concatenate([random.choice(members[one], 2, replace=False) for one in classes]))
        pixels = pictures[rows]
        mirrored = torch.rand(len(pixels), device=device) < 0.5
        pixels = torch.where(mirrored[:, None, None, None], pixels.flip(2), pixels)
        loss = loss_of(model.pooling(model.features(pixels)), labels[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if not np.isfinite(loss.item()):
            raise FloatingPointError("the loss is no number")
        found.append(time.perf_counter() - begun)
    return found, len(split) // recipe.batch


def mine(recipe: TrainingRecipe) -> tuple[Seconds, int]:
    """The same through embedkit."""
    import embedkit

    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as home:
        out = Path(home) / "run"
        report = embedkit.train_encoder(recipe, out, plots=False)
        lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [line["seconds"] for line in lines if "loss" in line], round(report.steps / report.epochs)


def speeds(run: Run, recipe: TrainingRecipe, answer: Any) -> None:
    """Put pictures a second (after the first epoch, over all), NaN where there is no second epoch."""
    seconds, epoch = run(recipe)
    assert len(seconds) == recipe.steps, (len(seconds), recipe.steps)
    later = len(seconds) - epoch
    after = later * recipe.batch / (seconds[-1] - seconds[epoch - 1]) if later > 0 else float("nan")
    answer.put((after, len(seconds) * recipe.batch / seconds[-1]))


def apart(run: Run, recipe: TrainingRecipe) -> tuple[float, float]:
    """`speeds`, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=speeds, args=(run, recipe, answer))
    process.start()
    while answer.empty():
        process.join(0.5)
        if process.exitcode:
            raise SystemExit(f"{run.__name__} failed")
    found: tuple[float, float] = answer.get()
    process.join()
    return found


def main() -> None:
    """Print pictures a second and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="emoji-zs", help="the folder that examples/emoji-zs.sh makes")
    parser.add_argument("--steps", type=int, default=180, help="batches; an epoch of emoji-zs has about 60")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    recipe = asked(options.data, options.steps)
    pairs = [[apart(run, recipe) for run in (mine, bare)] for _ in range(options.rounds)]
    own, other = (np.median(np.array(rounds), axis=0) for rounds in zip(*pairs, strict=True))
    print(f"{recipe.encoder}, {recipe.batch} pictures a batch, {options.steps} batches, medians of {options.rounds}\n")
    print("| steps | embedkit, pictures/s | bare PyTorch, pictures/s | ratio |")
    print("|---|---|---|---|")
    for place, name in enumerate(("after the first epoch", "all")):
        if np.isfinite(own[place]):
            print(f"| {name} | {own[place]:.1f} | {other[place]:.1f} | {own[place] / other[place]:.3f} |")


if __name__ == "__main__":
    main()
