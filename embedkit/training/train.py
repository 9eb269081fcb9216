"""Where a training starts: what is asked for is checked before torch is loaded."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from embedkit import plugins
from embedkit.encoders.folder import MANIFEST
from embedkit.errors import ConfigError
from embedkit.training.recipe import RECIPE, TrainingRecipe, read_recipe
from embedkit.training.report import TrainingProgressCallback, TrainingReport

__all__ = ["train_encoder"]


def train_encoder(
    recipe: TrainingRecipe | None,
    out: str | Path,
    *,
    resume: bool = False,
    plots: bool = True,
    wandb: bool = False,
    checkpoint_seconds: float = 60.0,
    threads: int = 0,
    progress: TrainingProgressCallback | None = None,
) -> TrainingReport:
    """Train what a recipe says; `out` becomes a model folder, with history and plots of the run beside it.

    `resume`: go on with the run in `out` after its last checkpoint, with the recipe it keeps (`recipe` is None then).
    `plots`: draw curves, distances, mistakes and the map of the embedding. `wandb`: log to Weights & Biases beside
    TensorBoard. `checkpoint_seconds` lie between checkpoints, which are written after epochs too. `threads`: 0 for one
    a core. `progress` is told after every batch and every epoch. Several processes, started by ``accelerate launch``
    or ``torchrun``, share the batches; each compares within its own, pictures and texts across all.

    Raises BadSource, ConfigError, DataCorrupt, DiskFull, MissingExtra, TrainingFailed (the loss is no number),
    UnknownName; KeyboardInterrupt after a checkpoint.
    """
    folder = Path(out)
    asked = _asked(recipe, folder, resume)
    for module, package in (("torch", ""), ("accelerate", ""), ("pytorch_metric_learning", "pytorch-metric-learning")):
        plugins.require(module, "train", needed_for="Training", package=package)
    if wandb:
        plugins.require("wandb", "", needed_for="Logging to Weights & Biases")
    from embedkit.training.run import Run

    return Run(asked, folder, resume, plots, wandb, checkpoint_seconds, threads, progress).trained()


def _asked(recipe: TrainingRecipe | None, folder: Path, resume: bool) -> TrainingRecipe:
    """The recipe to follow. Raises ConfigError when the folder and what is asked do not go together."""
    path = folder / RECIPE
    if resume:
        if recipe is not None:
            raise ConfigError("A run that goes on keeps its recipe; leave out the recipe, or do not resume")
        if not path.is_file():
            raise ConfigError(f"{str(folder)!r} holds no run to go on with: it has no {RECIPE}; train without resume")
        if (folder / MANIFEST).is_file():
            raise ConfigError(
                f"The run in {str(folder)!r} is finished; start a new one from it with encoder={str(folder)!r}"
            )
        return read_recipe(str(path)).checked()
    if recipe is None:
        raise ConfigError("No recipe to train; give one, or resume")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        more = "go on with it by --resume, or " if path.is_file() and not (folder / MANIFEST).is_file() else ""
        raise ConfigError(f"{str(folder)!r} exists; {more}choose another folder")
    recipe = recipe.checked()
    place = Path(os.path.expanduser(recipe.data))
    return replace(recipe, data=str(place.resolve())) if recipe.data and place.exists() else recipe
