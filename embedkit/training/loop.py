"""The training loop: batches in, weights and a history out; stopped at any moment, it goes on from its checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from embedkit.encoders.torch_model import PixelModel
from embedkit.errors import BadSource, ConfigError, TrainingFailed
from embedkit.training.augment import Augmenter, step_seed
from embedkit.training.budget import Budget, rate_at
from embedkit.training.checkpoint import Checkpoint, write_checkpoint
from embedkit.training.evaluation.evaluate import EvaluationReport, evaluate_data
from embedkit.training.history import History
from embedkit.training.losses.contract import ClassLoss
from embedkit.training.material import Material, build_sampler
from embedkit.training.memory import GradientCache
from embedkit.training.network import Built, Objective, as_encoder, parameter_groups, set_modes
from embedkit.training.pictures import PictureBatch, Pictures
from embedkit.training.recipe import TrainingRecipe
from embedkit.training.report import EpochResult, TrainingProgress, TrainingProgressCallback
from embedkit.training.samplers import PairSampler
from embedkit.training.stopping import StopSignal

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Trainer"]

_CENTRE = 0.5  # weight of the newest embeddings in the class means that hard classes are mined by


def _averaged(model: PixelModel, decay: float) -> AveragedModel:
    average: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=average)


class Trainer:
    """One process's part of a training.

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
    ) -> None:
        self.recipe, self.material, self.built, self.accelerator = recipe, material, built, accelerator
        self.folder = folder
        self.threads = 0
        self.progress: TrainingProgressCallback | None = None
        self.step, self.seconds, self.seen = 0, 0.0, 0
        self.checkpoint_seconds = 60.0
        self.best: tuple[float, int] | None = None
        self.chosen: dict[str, Any] | None = None
        self.start: Mapping[str, float] | None = None
        self.stopped_early = False
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
        self._centres: Tensor | None = None  # class means as they follow the batches,
        self._mined: Tensor | None = None  # and as they were when the epoch began
        self.pictures = Pictures(material.train, built.pictures, threads=self.threads)
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
        patience = self.recipe.patience
        self.stopped_early = bool(patience and self.best and self.best[1] >= patience)
        return self.stopped_early or self._budget.progress(self.step, self.seconds) >= 1

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from there. Raises ConfigError when it is of another network."""
        try:
            self._objective.load_state_dict(checkpoint.objective)
            self._optimiser.load_state_dict(checkpoint.optimiser)
            if self._average is not None and checkpoint.average is not None:
                self._average.load_state_dict(checkpoint.average)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"The checkpoint of {str(self.folder)!r} is of another network than {self.recipe.encoder!r} with "
                f"{self.recipe.loss!r} ({reason}); give back its recipe.toml, or train into another folder"
            ) from error
        self.step, self.seconds = checkpoint.step, checkpoint.seconds
        self.best, self.start = checkpoint.best, checkpoint.start
        self.chosen = dict(checkpoint.chosen) if checkpoint.chosen is not None else None
        self._centres, self._mined = checkpoint.centres, checkpoint.mined
        self.pictures.failures.update(checkpoint.failures or {})

    def save(self) -> None:
        """Write the checkpoint, in one process."""
        self._saved = time.perf_counter()
        if not self.accelerator.is_main_process:
            return
        checkpoint = Checkpoint(
            self.step,
            self.seconds,
            self._objective.state_dict(),
            self._optimiser.state_dict(),
            self._average.state_dict() if self._average is not None else None,
            self.best,
            self.chosen,
            self._centres,
            self._mined,
            dict(self.start) if self.start is not None else None,
            dict(self.pictures.failures),
        )
        write_checkpoint(self.folder, checkpoint)

    # -- running -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """What comes before the first step: the loss's class vectors, from the class means as they are."""
        begun = time.perf_counter()
        loss = self._objective.loss
        if isinstance(loss, ClassLoss):
            loss.start_at(self._class_means().to(self.accelerator.device))
        self.seconds += time.perf_counter() - begun

    def run(self, history: History, stop: StopSignal, log: Callable[[Mapping[str, float], int], None]) -> None:
        """Until the budget is used up. Raises KeyboardInterrupt after a checkpoint, TrainingFailed, BadSource."""
        while not self.finished:
            self._epoch(history, stop, log)
        self.save()

    def _epoch(self, history: History, stop: StopSignal, log: Callable[[Mapping[str, float], int], None]) -> None:
        position = self._sampler.position(self.step)
        if isinstance(self._sampler, PairSampler):
            if position.batch == 0 and self._centres is not None:
                self._mined = self._centres.clone()
            self._sampler.mine(self._mined.numpy() if self._mined is not None else None)
        self._sampler.seek(position)
        losses: list[float] = []
        seconds, seen = self.seconds, self.seen
        clock = time.perf_counter()
        for batch in self.pictures.batches(self._planned()):
            loss, rate = self._learn(batch)
            self.step += 1
            now = time.perf_counter()
            self.seconds, clock = self.seconds + now - clock, now
            losses.append(loss)
            line = {"step": self.step, "epoch": round(self.epochs, 4), "seconds": round(self.seconds, 3)}
            history.add({**line, "loss": loss, "rate": rate})
            log({"loss": loss, "rate": rate}, self.step)
            self._tell(f"epoch {position.epoch + 1} · loss {loss:.4f}")
            if self._agreed(stop.requested):
                self.save()
                raise KeyboardInterrupt
            if self.finished:
                break
            if time.perf_counter() - self._saved > self.checkpoint_seconds:
                self.save()
                clock = time.perf_counter()
        ended = self._sampler.position(self.step)
        if losses and (ended.batch == 0 or self.finished):
            rate = (self.seen - seen) / max(self.seconds - seconds, 1e-9)
            self._judge(history, log, loss=float(np.mean(losses)), speed=rate, epoch=position.epoch + 1)
            self.save()

    def _agreed(self, stop: bool) -> bool:
        """Whether any process was asked to stop; the first one's clock becomes everyone's."""
        if self.accelerator.num_processes == 1:
            return stop
        mine = torch.tensor([[self.seconds, float(stop)]], dtype=torch.float32, device=self.accelerator.device)
        every = self.accelerator.gather(mine)
        self.seconds = float(every[0, 0])
        return bool(every[:, 1].any())

    def _planned(self) -> Iterator[list[int]]:
        return iter(self._sampler)

    def _learn(self, batch: PictureBatch) -> tuple[float, float]:
        """One step; the loss and what the rates were multiplied by."""
        factor = rate_at(self._budget.progress(self.step, self.seconds), warmup=self.recipe.warmup)
        if not len(batch.rows):
            if self.accelerator.num_processes > 1:
                raise BadSource("None of the pictures of a batch can be read, which other processes wait for")
            return 0.0, factor
        seed = step_seed(self.recipe.seed, self.step, self.accelerator.process_index)
        torch.manual_seed(seed)
        device = self.accelerator.device
        pixels = self._augment(torch.from_numpy(batch.pixels).to(device), seed=seed)
        labels = torch.from_numpy(batch.labels).to(device)
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        loss, embeddings = self._gradients(pixels, labels)
        value = float(loss)
        norm = self._clipped()
        if not math.isfinite(value) or not (math.isfinite(norm) or self.recipe.precision == "fp16"):
            self._fail(value, norm, batch)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update_parameters(self._objective.model)
        if isinstance(self._sampler, PairSampler):
            self._follow(embeddings, labels)
        self.seen += len(batch.rows) * self.accelerator.num_processes
        return value, factor

    def _gradients(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.recipe.pieces == 1:
            loss, embeddings = self._wrapped(pixels, labels)
            self.accelerator.backward(loss)
            return loss.detach(), embeddings
        kept: list[Tensor] = []

        def of_all(given: Tensor, labels: Tensor) -> Tensor:
            kept.append(self._objective.embeddings(given))
            found: Tensor = self._objective.loss(given, labels)
            return found

        cache = GradientCache(
            self._objective.embed, of_all, backward=self.accelerator.backward, precision=self.accelerator.autocast
        )
        return cache.step(pixels.tensor_split(self.recipe.pieces), labels), kept[0]

    def _clipped(self) -> float:
        norm = self.accelerator.clip_grad_norm_(self._wrapped.parameters(), self.recipe.clip or math.inf)
        return float(norm)

    def _fail(self, loss: float, norm: float, batch: PictureBatch) -> None:
        first = ", ".join(self.material.train.paths[row] for row in batch.rows[:3])
        raise TrainingFailed(
            f"The loss of batch {self.step + 1} is {loss:g} and the norm of its gradient {norm:g}; its first pictures "
            f"are {first}. Try a lower rate, or precision=fp32"
        )

    def _follow(self, embeddings: Tensor, labels: Tensor) -> None:
        """Move the means of the classes in the batch towards it."""
        embeddings, labels = embeddings.cpu(), labels.cpu()
        if self._centres is None:
            self._centres = torch.zeros(int(self.material.train.labels.max()) + 1, embeddings.shape[1])
        known, places = torch.unique(labels, return_inverse=True)
        sums = torch.zeros(len(known), embeddings.shape[1]).index_add_(0, places, embeddings)
        means = sums / torch.bincount(places)[:, None]
        self._centres[known] = torch.lerp(self._centres[known], means, _CENTRE)

    # -- judging -----------------------------------------------------------------------------------------------------

    def judge(self, model: PixelModel, *, limit: int | None = None, clusters: bool = False) -> EvaluationReport:
        """A model by the test split, or by so many pictures of what is shown."""
        data = self.material.test if limit is None else self.material.shown
        encoder = as_encoder(model, self.built.pictures, self.recipe, name=str(self.folder))
        found = evaluate_data(encoder, data, limit=limit, clusters=clusters, threads=self.threads)
        set_modes(self._objective, self.recipe)
        return found

    def _judge(
        self,
        history: History,
        log: Callable[[Mapping[str, float], int], None],
        *,
        loss: float,
        speed: float,
        epoch: int,
    ) -> None:
        """The end of an epoch: the figures of what is shown, and whether they are the best so far."""
        name, value = "", None
        if self.recipe.validate and self.accelerator.is_main_process:
            report = self.shown(history, log)
            name, value = report.primary, report.metrics[report.primary]
            if self.material.watched is not None:
                self._choose(value if report.greater_is_better else -value)
        if self.recipe.patience and self.accelerator.num_processes > 1:
            self.best = broadcast_object_list([self.best])[0]
        self._tell("", EpochResult(epoch, self.step, loss, name, value, speed))

    def shown(self, history: History, log: Callable[[Mapping[str, float], int], None]) -> EvaluationReport:
        """Judge, and write the figures into the history."""
        report = self.judge(self.model, limit=max(2, self.recipe.validate))
        line = {"step": self.step, "epoch": round(self.epochs, 4), "seconds": round(self.seconds, 3)}
        history.add({**line, "metrics": dict(report.metrics)})
        log(report.metrics, self.step)
        return report

    def _choose(self, value: float) -> None:
        if self.best is None or value > self.best[0]:
            self.best = (value, 0)
            self.chosen = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        else:
            self.best = (self.best[0], self.best[1] + 1)

    def _class_means(self) -> Tensor:
        """Means ``(classes, dim)`` of the embeddings of up to two pictures of each class."""
        labels = self.material.train.labels
        order = np.argsort(labels, kind="stable")
        rank = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
        rows = [int(row) for row in order[rank < 2]]
        sums, counts = torch.zeros(int(labels.max()) + 1, self.built.dim), torch.zeros(int(labels.max()) + 1)
        self._objective.eval()
        plan = (rows[start : start + 64] for start in range(0, len(rows), 64))
        with torch.inference_mode():
            for batch in self.pictures.batches(plan):
                pixels = torch.from_numpy(batch.pixels).to(self.accelerator.device)
                made = self._objective.embeddings(self._objective.embed(pixels)).cpu()
                chosen = torch.from_numpy(batch.labels)
                sums.index_add_(0, chosen, made)
                counts.index_add_(0, chosen, torch.ones(len(chosen)))
        set_modes(self._objective, self.recipe)
        empty = counts == 0  # none of its pictures could be read
        sums[empty] = torch.randn(int(empty.sum()), self.built.dim)
        return sums / counts.clamp_min(1)[:, None]

    def _tell(self, note: str, epoch: EpochResult | None = None) -> None:
        if self.progress is None or not self.accelerator.is_main_process:
            return
        steps = self._budget.steps
        total, seen = (steps, self.step) if steps else (round(self._budget.seconds), int(self.seconds))
        self.progress(TrainingProgress(total, min(seen, total), len(self.pictures.failures), note, epoch))

    def close(self) -> None:
        """End the threads."""
        self.pictures.close()
