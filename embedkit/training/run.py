"""A training from recipe to run folder: a model folder with the recipe, the history and the plots beside it."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState

from embedkit.encoders.export import write_model
from embedkit.encoders.folder import MANIFEST, write_folder
from embedkit.encoders.load import model_folder_of
from embedkit.errors import ConfigError, DiskFull, EmbedkitError, TrainingFailed, disk_is_full
from embedkit.training.adapters import add_adapters, merge_adapters
from embedkit.training.checkpoint import read_checkpoint
from embedkit.training.evaluation.evaluate import EvaluationReport
from embedkit.training.history import History, read_history
from embedkit.training.joint import build_joint_objective, with_texts
from embedkit.training.kept_classes import keep_classes, start_at_kept
from embedkit.training.loop import Trainer
from embedkit.training.losses.contract import Loss
from embedkit.training.losses.joint import Instance
from embedkit.training.material import Material, concepts_of_labels, open_material, sample_files
from embedkit.training.network import Built, Objective, build_model, build_objective, started_from
from embedkit.training.recipe import RECIPE, TrainingRecipe
from embedkit.training.report import TrainingProgressCallback, TrainingReport
from embedkit.training.stopping import StopSignal

__all__ = ["Run"]

PLOTS = "plots"
_EVENTS = "events"
_PATIENCE = timedelta(hours=12)  # of processes that wait while the first one judges
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """One training in its folder; the arguments are those of `train_encoder`."""

    recipe: TrainingRecipe
    folder: Path
    resume: bool = False
    plots: bool = True
    wandb: bool = False
    checkpoint_seconds: float = 60.0
    threads: int = 0
    progress: TrainingProgressCallback | None = None

    def trained(self) -> TrainingReport:
        """Do it."""
        material = open_material(self.recipe)
        with _writable(self.folder), _devices(self.recipe, self.folder, self.wandb) as accelerator:
            trainer = self._trainer(material, accelerator)
            try:
                return _trained(trainer, resume=self.resume, plots=self.plots)
            finally:
                trainer.close()

    def _trainer(self, material: Material, accelerator: Accelerator) -> Trainer:
        recipe = self.recipe
        torch.manual_seed(recipe.seed)
        built, objective = _built(recipe, material)
        threads = self.threads or _cores()
        torch.set_num_threads(threads)  # loading an encoder set them as well
        return Trainer(
            recipe,
            material,
            built,
            objective,
            accelerator,
            self.folder,
            threads=threads,
            checkpoint_seconds=self.checkpoint_seconds,
            progress=self.progress,
        )


def _built(recipe: TrainingRecipe, material: Material) -> tuple[Built, Objective]:
    """The model and what it learns by; what is random follows torch's seed."""
    classes = int(material.train.labels.max()) + 1
    built = build_model(recipe, lambda: sample_files(material.train, seed=recipe.seed))
    if recipe.lora:
        add_adapters(started_from(built.model), recipe.lora)
    if recipe.task == "image-text":
        joint = with_texts(built, recipe, material.train)
        objective: Objective = build_joint_objective(joint, recipe, classes=classes)
        before, captions = model_folder_of(recipe.encoder), material.train.captions
        if isinstance(objective.loss, Instance) and before is not None and captions is not None:
            start_at_kept(objective.loss.weight, before, captions)
        return joint, objective
    objective = build_objective(built, recipe, classes=classes)
    if (concepts := concepts_of_labels(material.train)) is not None and isinstance(objective.loss, Loss):
        objective.loss.relate(torch.from_numpy(concepts))
    return built, objective


def _cores() -> int:
    """The cores of one process: the launchers say how many share the machine."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Raise DiskFull or ConfigError where the files of a run can no longer be written; torch has its own errors."""
    try:
        yield
    except EmbedkitError:
        raise
    except Exception as error:
        if disk_is_full(error):
            raise DiskFull(
                f"The disk of {str(folder)!r} is full; free some space and go on from the last checkpoint: --resume"
            ) from error
        if isinstance(error, OSError) and error.filename is not None:
            place = Path(os.fsdecode(error.filename))
            if folder.absolute() in place.absolute().parents:
                gone = "" if folder.is_dir() else ", and the folder is gone"
                raise ConfigError(
                    f"The run in {str(folder)!r} cannot be written: {place}: {error.strerror}{gone}"
                ) from error
        raise


@contextmanager
def _devices(recipe: TrainingRecipe, folder: Path, wandb: bool) -> Iterator[Accelerator]:
    """The accelerator, with its loggers. Raises ConfigError when the device cannot do what the recipe asks for."""
    AcceleratorState._reset_state()  # of an earlier training in this process, of another precision
    try:
        accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),  # else torchrun goes unnoticed where there is none
            mixed_precision="no" if recipe.precision == "fp32" else recipe.precision,
            log_with=["tensorboard", "wandb"] if wandb else ["tensorboard"],
            project_dir=str(folder / _EVENTS),
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=True),
                InitProcessGroupKwargs(timeout=_PATIENCE),
            ],
        )
    except ValueError as error:
        raise ConfigError(f"precision={recipe.precision} cannot be had here: {error}") from error
    if accelerator.num_processes > 1 and recipe.pieces > 1:
        raise ConfigError(f"pieces={recipe.pieces} works in one process, not in {accelerator.num_processes}")
    try:
        yield accelerator
    finally:
        accelerator.free_memory()


def _trained(trainer: Trainer, *, resume: bool, plots: bool) -> TrainingReport:
    recipe, folder, accelerator = trainer.recipe, trainer.folder, trainer.accelerator
    checkpoint = read_checkpoint(folder) if resume else None
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        if not resume:
            (folder / RECIPE).write_text(recipe.as_toml(), encoding="utf-8")
    accelerator.wait_for_everyone()
    if checkpoint is not None:
        trainer.restore(checkpoint)
    _start_loggers(accelerator, trainer)
    begun = trainer.step if checkpoint is not None else -1
    history = History(folder if accelerator.is_main_process else None, step=begun)

    def log(values: Mapping[str, float], step: int) -> None:
        accelerator.log(dict(values), step=step)

    try:
        with StopSignal() as stop:
            if checkpoint is None:
                trainer.begin(history, log)
            trainer.run(history, stop, log)
    except TrainingFailed as error:
        _keep_last(trainer)
        accelerator.wait_for_everyone()  # a process that leaves ends the others
        raise TrainingFailed(f"{error}. The weights after batch {trainer.step} are kept: {folder}") from error
    finally:
        history.close()
        accelerator.end_training()
    return _finished(trainer, plots=plots)


def _start_loggers(accelerator: Accelerator, trainer: Trainer) -> None:
    kept = {name: value for name, value in trainer.recipe.as_dict().items() if isinstance(value, str | int | float)}
    accelerator.init_trackers(
        trainer.folder.name, config=kept, init_kwargs={"tensorboard": {"purge_step": trainer.step + 1}}
    )


def _keep_last(trainer: Trainer) -> None:
    """Write the model as the last checkpoint has it: the newest weights may be spoilt already."""
    checkpoint = read_checkpoint(trainer.folder)
    if checkpoint is not None:
        trainer.restore(checkpoint)
        if trainer.accelerator.is_main_process:
            _write(trainer, None)


def _finished(trainer: Trainer, *, plots: bool) -> TrainingReport:
    recipe, folder = trainer.recipe, trainer.folder
    end: EvaluationReport | None = None
    written: tuple[str, ...] = ()
    if trainer.accelerator.is_main_process:
        if trainer.judge.chosen is not None:
            trainer.model.load_state_dict(trainer.judge.chosen)
        if recipe.finish:
            trainer.finish()
        end = trainer.judge.tested(trainer.model, clusters=True) if recipe.validate else None
        _write(trainer, end)
        if plots:
            written = _draw(trainer)
    failures = tuple(trainer.pictures.failures.items())
    report = TrainingReport(
        str(folder),
        trainer.material.test.name,
        recipe.loss,
        trainer.step,
        trainer.epochs,
        trainer.seconds,
        _speed(trainer),
        trainer.judge.start or {},
        end.metrics if end is not None else {},
        end.primary if end is not None else "",
        len(failures),
        failures[:20],
        trainer.judge.satisfied,
        written,
    )
    if trainer.accelerator.is_main_process:
        (folder / "report.json").write_text(json.dumps(report.as_dict(), indent=1) + "\n", encoding="utf-8")
    return report


def _speed(trainer: Trainer) -> float:
    """Pictures a second of the whole training, as its batches are planned."""
    batch = trainer.batch * trainer.accelerator.num_processes
    return trainer.step * batch / trainer.seconds if trainer.seconds else 0.0


def _write(trainer: Trainer, end: EvaluationReport | None) -> None:
    """The model's files into the run folder, its manifest last."""
    recipe, folder = trainer.recipe, trainer.folder
    model = trainer.model.cpu().float()
    merge_adapters(model.network)
    encoder = trainer.built.encoder(model, recipe, name=folder.name)
    training = {
        "recipe": {**recipe.as_dict(), **trainer.built.layers},
        "started_from": recipe.encoder,
        "data": trainer.material.test.name,
        "steps": trainer.step,
        "epochs": round(trainer.epochs, 3),
        "seconds": round(trainer.seconds, 1),
        "start": dict(trainer.judge.start or {}),
        "metrics": dict(end.metrics) if end is not None else {},
    }
    with write_folder(folder / ".model", overwrite=True) as draft:
        write_model(encoder, draft, training=training)
        captions = trainer.material.train.captions
        if isinstance(trainer.loss, Instance) and captions is not None:
            keep_classes(draft, trainer.loss.weight, captions)
    for path in sorted((folder / ".model").iterdir(), key=lambda one: one.name == MANIFEST):
        os.replace(path, folder / path.name)
    shutil.rmtree(folder / ".model")


def _draw(trainer: Trainer) -> tuple[str, ...]:
    from embedkit.training.evaluation.encode import encode_split
    from embedkit.training.plots.write import write_plots

    model = trainer.model.to(trainer.accelerator.device)  # which writing it had moved to the CPU
    name, threads = str(trainer.folder), torch.get_num_threads()
    encoder = trainer.built.encoder(model, trainer.recipe, name=name, threads=threads)
    shown = trainer.material.test.shown
    encoded = encode_split(encoder, shown, threads=threads)
    try:
        paths = write_plots(
            trainer.folder / PLOTS,
            history=read_history(trainer.folder),
            split=shown.take(encoded.good),
            vectors=encoded.vectors,
            codes=trainer.recipe.bits > 0,
            seed=trainer.recipe.seed,
        )
    except EmbedkitError as error:  # the model is whole; its pictures are not worth losing the report
        _log.warning("The plots of %s are not drawn: %s", trainer.folder, error)
        return ()
    return tuple(str(path) for path in paths)
