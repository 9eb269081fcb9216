"""The features of the training pictures, made once, where nothing before the embedding layer learns or varies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from embedkit.errors import BadSource
from embedkit.training.network import Objective, set_modes
from embedkit.training.pictures import PictureBatch, Pictures
from embedkit.training.recipe import TrainingRecipe

if TYPE_CHECKING:
    from embedkit.training.datasets.contract import BoolArray
    from embedkit.types import FloatArray, IdArray

__all__ = ["Features", "nothing_varies"]

_AT_ONCE = 64


def nothing_varies(objective: Objective, recipe: TrainingRecipe) -> bool:
    """Whether every epoch would show the embedding layer the same numbers."""
    augment = recipe.augment
    same = not (augment.flip or augment.colour or augment.rotate or augment.erase or augment.size) and augment.crop == 1
    return same and recipe.freeze_norm and not any(one.requires_grad for one in objective.body)


class Features:
    """`Pictures` whose batches hold features ``(n, f)``, which the network makes of all of them at the first batch.

    They are made in the order of the split, so that a run that goes on has the same bits.
    """

    def __init__(self, pictures: Pictures, objective: Objective, recipe: TrainingRecipe, device: torch.device) -> None:
        self._pictures, self._objective, self._recipe, self._device = pictures, objective, recipe, device
        self.threads, self.failures = pictures.threads, pictures.failures
        self._features: FloatArray | None = None
        self._good: BoolArray = np.zeros(0, np.bool_)
        self._labels: IdArray = np.zeros(0, np.int64)

    def batches(self, plan: Iterable[list[int]]) -> Iterator[PictureBatch]:
        """A batch for each of a plan, in its order. Raises BadSource when no picture can be read."""
        if self._features is None:
            self._features = self._made()
        for planned in plan:
            rows = np.array(planned, np.int64)
            rows = rows[self._good[rows]]
            yield PictureBatch(rows, self._features[rows], self._labels[rows])

    def _made(self) -> FloatArray:
        split = self._pictures.split
        self._labels, self._good = split.labels, np.zeros(len(split), np.bool_)
        made: FloatArray | None = None
        training = self._objective.training
        self._objective.eval()
        plan = (list(range(at, min(at + _AT_ONCE, len(split)))) for at in range(0, len(split), _AT_ONCE))
        with torch.inference_mode():
            for batch in self._pictures.batches(plan):
                if not len(batch.rows):
                    continue
                pixels = torch.from_numpy(batch.pixels).to(self._device)
                found: FloatArray = self._objective.features(pixels).float().cpu().numpy()
                if made is None:
                    made = np.zeros((len(split), found.shape[1]), np.float32)
                made[batch.rows], self._good[batch.rows] = found, True
        if training:
            set_modes(self._objective, self._recipe)
        if made is None:
            raise BadSource("None of the pictures to train on can be read")
        return made

    def close(self) -> None:
        """End the threads."""
        self._pictures.close()
