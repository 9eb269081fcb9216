"""The training loop: batches in, weights and a history out; stopped at any moment, it goes on from its checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from embedkit.encoders.load import model_folder_of
from embedkit.encoders.torch_model import PixelModel
from embedkit.errors import BadSource, ConfigError, TrainingFailed
from embedkit.training.augment import Augmenter, step_seed
from embedkit.training.budget import Budget, rate_at
from embedkit.training.centres import ClassCentres, class_means, finish_head, start_head
from embedkit.training.checkpoint import Checkpoint, write_checkpoint
from embedkit.training.evaluation.evaluate import EvaluationReport
from embedkit.training.features import Features, nothing_varies
from embedkit.training.history import History
from embedkit.training.judging import Judge
from embedkit.training.losses.contract import ClassLoss, Loss
from embedkit.training.losses.joint import JointLoss
from embedkit.training.material import Material, build_sampler
from embedkit.training.memory import GradientCache
from embedkit.training.network import Built, Objective, parameter_groups, set_modes
from embedkit.training.pictures import PictureBatch, Pictures
from embedkit.training.processes import make_same
from embedkit.training.recipe import TrainingRecipe
from embedkit.training.report import EpochResult, TrainingProgress, TrainingProgressCallback
from embedkit.training.samplers import PairSampler
from embedkit.training.stopping import StopSignal

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Trainer"]

Log: TypeAlias = Callable[[Mapping[str, float], int], None]


@dataclass(frozen=True, slots=True)
class _Learned:
    """What a step gives: its loss, and the learning rate of the network."""

    loss: float
    rate: float


def _averaged(model: PixelModel, decay: float) -> AveragedModel:
    average: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=average)


class Trainer:
    """One process's part of a training. `threads` decode pictures and judge; `progress` is told of every batch.

    Everything random in a step follows from (seed, step, process), so that the checkpoint holds no random state, and
    a run that was killed ends with the weights of one that was not, if its budget is steps or epochs.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        material: Material,
        built: Built,
        objective: Objective,
        accelerator: Accelerator,
        folder: Path,
        *,
        threads: int = 0,
        checkpoint_seconds: float = 60.0,
        progress: TrainingProgressCallback | None = None,
    ) -> None:
        self.recipe, self.material, self.built, self.accelerator = recipe, material, built, accelerator
        self.folder = folder
        self.step, self.seconds = 0, 0.0
        self._prepared = 0.0
        self.judge = Judge(recipe, material, built, name=str(folder), threads=threads)
        self._checkpoint_seconds, self._progress = checkpoint_seconds, progress
        set_modes(objective, recipe)
        if recipe.compile:
            objective.model.network.compile()
        self._objective = objective
        optimiser = torch.optim.AdamW(parameter_groups(objective, recipe), fused=True)
        self._rates = [group["lr"] for group in optimiser.param_groups]
        self._wrapped, self._optimiser = accelerator.prepare(objective, optimiser)
        self._average = _averaged(objective.model, recipe.ema) if recipe.ema else None
        self._sampler = build_sampler(
            recipe, objective.loss, material.train, shard=accelerator.process_index, shards=accelerator.num_processes
        )
        self._budget = Budget.of(recipe, epoch=len(self._sampler))
        self._augment = Augmenter(recipe.augment)
        self._centres = ClassCentres(int(material.train.labels.max()) + 1)
        pictures = Pictures(material.train, built.pictures, threads=threads)
        self.pictures: Pictures | Features = (
            Features(pictures, objective, recipe, accelerator.device) if nothing_varies(objective, recipe) else pictures
        )
        self._saved = time.perf_counter()

    # -- standing ----------------------------------------------------------------------------------------------------

    @property
    def model(self) -> PixelModel:
        """The model as it would be kept now: the average, where there is one."""
        if self._average is None:
            return self._objective.model
        averaged = self._average.module
        assert isinstance(averaged, PixelModel)
        return averaged

    @property
    def loss(self) -> Loss | JointLoss:
        """With the numbers that it learned."""
        return self._objective.loss

    @property
    def batch(self) -> int:
        """Pictures of a batch of this process."""
        return self._sampler.classes * self._sampler.per_class

    @property
    def epochs(self) -> float:
        """How many were seen."""
        return self.step / len(self._sampler)

    @property
    def finished(self) -> bool:
        """Whether the budget is used up, or the figure that is watched stopped growing."""
        return self.judge.satisfied or self._budget.progress(self.step, self.seconds) >= 1

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from there. Raises ConfigError when it is of another network, or of more or fewer processes."""
        if checkpoint.processes != self.accelerator.num_processes:
            raise ConfigError(
                f"The run in {str(self.folder)!r} was begun by {checkpoint.processes} processes and cannot go on with "
                f"{self.accelerator.num_processes}, whose epochs are others; start as many"
            )
        try:
            self._objective.load_state_dict(checkpoint.objective)
            self._optimiser.load_state_dict(checkpoint.optimiser)
            if self._average is not None and checkpoint.average is not None:
                self._average.load_state_dict(checkpoint.average)
            if self.accelerator.scaler is not None and checkpoint.scaler is not None:
                self.accelerator.scaler.load_state_dict(checkpoint.scaler)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"The checkpoint of {str(self.folder)!r} is of another network than {self.recipe.encoder!r} with "
                f"{self.recipe.loss!r} ({reason}); give back its recipe.toml, or train into another folder"
            ) from error
        self.step, self.seconds, self._prepared = checkpoint.step, checkpoint.seconds, checkpoint.prepared
        self.judge.best, self.judge.chosen = checkpoint.best, checkpoint.chosen
        self.judge.start = checkpoint.start
        self._centres.now, self._centres.mined = checkpoint.centres, checkpoint.mined
        self.pictures.failures.update(checkpoint.failures or {})

    def save(self) -> None:
        """Write the checkpoint, in one process. Raises DiskFull."""
        self._saved = time.perf_counter()
        if not self.accelerator.is_main_process:
            return
        judge, scaler = self.judge, self.accelerator.scaler
        checkpoint = Checkpoint(
            self.step,
            self.seconds,
            self._objective.state_dict(),
            self._optimiser.state_dict(),
            self._average.state_dict() if self._average is not None else None,
            scaler.state_dict() if scaler is not None else None,
            judge.best,
            judge.chosen,
            self._centres.now,
            self._centres.mined,
            judge.start,
            dict(self.pictures.failures),
            self.accelerator.num_processes,
            self._prepared,
        )
        write_checkpoint(self.folder, checkpoint)

    # -- running -----------------------------------------------------------------------------------------------------

    def begin(self, history: History, log: Log) -> None:
        """What comes before the first step: where the embedding layer and class vectors start, and figures."""
        if (self.recipe.bits or self.recipe.start) and model_folder_of(self.recipe.encoder) is None:
            self._start_head()
        if self.recipe.validate and self.accelerator.is_main_process:
            self.judge.start = dict(self.judge.tested(self.model).metrics)
            self._note(self.judge.shown(self.model), history, log)
        begun = time.perf_counter()
        loss = self._objective.loss
        if isinstance(loss, ClassLoss):
            means = class_means(
                self._objective,
                self.pictures,
                self.material.train.labels,
                dim=self.built.dim,
                device=self.accelerator.device,
            )
            loss.start_at(means.to(self.accelerator.device))
            make_same(loss)
        set_modes(self._objective, self.recipe)
        self.seconds += time.perf_counter() - begun
        self._agreed(False)
        self._prepared = self.seconds
        self.save()

    def _start_head(self) -> None:
        """Set the embedding layer by some training pictures, in all processes alike."""
        begun = time.perf_counter()
        labels, targets = self.material.train.labels, self.built.targets()
        start_head(self._objective, self.pictures, labels, self.recipe, self.accelerator.device, targets=targets)
        make_same(self._objective.model)
        if self._average is not None:
            self._average.module.load_state_dict(self._objective.model.state_dict())
        self.seconds += time.perf_counter() - begun

    def finish(self) -> None:
        """Set the embedding layer of the model that is kept, as the recipe's finish says. In one process."""
        kept = Objective(self.model, self._objective.loss)
        finish_head(kept, self.pictures, self.material.train.labels, self.recipe, self.accelerator.device)

    def run(self, history: History, stop: StopSignal, log: Log) -> None:
        """Until the budget is used up.

        Raises KeyboardInterrupt after a checkpoint, BadSource, DiskFull, TrainingFailed.
        """
        while not self.finished:
            self._epoch(history, stop, log)
        failures = self.pictures.failures
        if self.accelerator.num_processes > 1:
            failures.update(gather_object(list(failures.items())))
        self.save()

    def _epoch(self, history: History, stop: StopSignal, log: Log) -> None:
        position = self._sampler.position(self.step)
        if isinstance(self._sampler, PairSampler):
            if position.batch == 0:
                self._centres.begin_epoch(self.accelerator)
            mined = self._centres.mined
            self._sampler.mine(mined.numpy() if mined is not None else None)
        self._sampler.seek(position)
        losses: list[float] = []
        seen, seconds, stopped = 0, self.seconds, False
        clock = time.perf_counter()
        for batch in self.pictures.batches(self._sampler):
            learned = self._learn(batch)
            self.step += 1
            now = time.perf_counter()
            self.seconds, clock = self.seconds + now - clock, now
            if learned is not None:
                losses.append(learned.loss)
                seen += len(batch.rows) * self.accelerator.num_processes
                history.add({**self._moment(), "loss": learned.loss, "rate": learned.rate})
                log({"loss": learned.loss, "rate": learned.rate}, self.step)
            self._tell(f"epoch {position.epoch + 1} · loss {learned.loss:.4f}" if learned is not None else "")
            stopped = self._agreed(stop.requested)
            ended = self._sampler.position(self.step).batch == 0
            if stopped or ended or self.finished:
                break
            if time.perf_counter() - self._saved > self._checkpoint_seconds:
                self.save()
                clock = time.perf_counter()
        if ended or self.finished:  # before the checkpoint, or a run that goes on would never judge this epoch
            speed = seen / max(self.seconds - seconds, 1e-9)
            self._judge_epoch(
                history, log, loss=float(np.mean(losses or [math.nan])), speed=speed, epoch=position.epoch + 1
            )
        self.save()
        if stopped:
            raise KeyboardInterrupt

    def _agreed(self, stop: bool) -> bool:
        """Whether any process was asked to stop; the first one's clock becomes everyone's."""
        if self.accelerator.num_processes == 1:
            return stop
        mine = torch.tensor([[self.seconds, float(stop)]], dtype=torch.float64, device=self.accelerator.device)
        every = self.accelerator.gather(mine)
        self.seconds = float(every[0, 0])
        return bool(every[:, 1].any())

    def _learn(self, batch: PictureBatch) -> _Learned | None:
        """One step; None if none of its pictures can be read."""
        processes = self.accelerator.num_processes
        if not len(batch.rows):
            if processes > 1:
                raise BadSource("None of the pictures of a batch can be read, which other processes wait for")
            return None
        progress = self._budget.progress(self.step + 0.5, self.seconds)
        self._objective.loss.progress = progress
        learning = self._budget.learning(self.step + 0.5, self.seconds, prepared=self._prepared)
        factor = rate_at(learning, warmup=self.recipe.warmup)
        seed = step_seed(self.recipe.seed, self.step, self.accelerator.process_index)
        torch.manual_seed(seed)
        device = self.accelerator.device
        given = torch.from_numpy(batch.pixels).to(device)
        if given.ndim > 2:  # not features
            given = self._augment(given, seed=seed)
        labels = torch.from_numpy(batch.labels).to(device)
        more = tuple(tensor.to(device) for tensor in self.built.beside(batch.labels, seed))
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        loss, embeddings = self._gradients(given, labels, *more)
        # the mean of all processes: they stop together if it is no number
        value = float(self.accelerator.reduce(loss, reduction="mean") if processes > 1 else loss)
        norm = self._clipped()
        if not math.isfinite(value) or not (math.isfinite(norm) or self.recipe.precision == "fp16"):
            self._fail(value, norm, batch)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update_parameters(self._objective.model)
        if isinstance(self._sampler, PairSampler):
            self._centres.follow(embeddings, labels)
        return _Learned(value, self.recipe.rate * factor)

    def _gradients(self, pixels: Tensor, labels: Tensor, *more: Tensor) -> tuple[Tensor, Tensor]:
        if self.recipe.pieces == 1:
            loss, embeddings = self._wrapped(pixels, labels, *more)
            self.accelerator.backward(loss)
            return loss.detach(), embeddings
        kept: list[Tensor] = []

        def of_all(given: Tensor, labels: Tensor) -> Tensor:
            kept.append(self._objective.embeddings(given))
            return self._objective.cost(given, labels, *more)

        cache = GradientCache(
            self._objective.embed, of_all, backward=self.accelerator.backward, precision=self.accelerator.autocast
        )
        pieces = pixels.tensor_split(min(self.recipe.pieces, len(pixels)))
        return cache.step(pieces, labels), kept[0]

    def _clipped(self) -> float:
        norm = self.accelerator.clip_grad_norm_(self._wrapped.parameters(), self.recipe.clip or math.inf)
        return float(norm)

    def _fail(self, loss: float, norm: float, batch: PictureBatch) -> None:
        first = ", ".join(self.material.train.paths[row] for row in batch.rows[:3])
        raise TrainingFailed(
            f"The loss of batch {self.step + 1} is {loss:g} and the norm of its gradient {norm:g}; its first pictures "
            f"are {first}. Try a lower rate, or precision=fp32"
        )

    # -- judging and telling -----------------------------------------------------------------------------------------

    def _judge_epoch(self, history: History, log: Log, *, loss: float, speed: float, epoch: int) -> None:
        """The end of an epoch: the figures of what is shown, and whether they are the best so far."""
        name, value = "", None
        if self.recipe.validate and self.accelerator.is_main_process:
            report = self.judge.shown(self.model)
            set_modes(self._objective, self.recipe)
            self._note(report, history, log)
            self.judge.choose(report, self.model)
            name, value = report.primary, report.metrics[report.primary]
        if self.recipe.patience and self.accelerator.num_processes > 1:
            self.judge.best = broadcast_object_list([self.judge.best])[0]
        self._tell("", EpochResult(epoch, self.step, loss, name, value, speed))

    def _note(self, report: EvaluationReport, history: History, log: Log) -> None:
        history.add({**self._moment(), "metrics": dict(report.metrics)})
        log(report.metrics, self.step)

    def _moment(self) -> dict[str, float]:
        return {"step": self.step, "epoch": round(self.epochs, 4), "seconds": round(self.seconds, 3)}

    def _tell(self, note: str, epoch: EpochResult | None = None) -> None:
        if self._progress is None or not self.accelerator.is_main_process:
            return
        steps = self._budget.steps
        total, seen = (steps, self.step) if steps else (round(self._budget.seconds), int(self.seconds))
        self._progress(TrainingProgress(total, min(seen, total), len(self.pictures.failures), note, epoch))

    def close(self) -> None:
        """End the threads."""
        self.pictures.close()
