"""The figures of a model on the way and at the end, and the weights that were best by what is watched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedkit.encoders.torch_model import PixelModel
from embedkit.training.evaluation.evaluate import EvaluationReport, evaluate_data
from embedkit.training.material import Material
from embedkit.training.network import Built
from embedkit.training.recipe import TrainingRecipe

__all__ = ["Judge"]


class Judge:
    """Judges in one process; the others are told by the trainer.

    `best`: the best figure so far and how many validations came since, where the recipe watches one; `chosen`: the
    weights that had it. `start`: the figures before training.
    """

    def __init__(self, recipe: TrainingRecipe, material: Material, built: Built, *, name: str, threads: int) -> None:
        self._recipe, self._material, self._built = recipe, material, built
        self._name, self._threads = name, threads
        self.best: tuple[float, int] | None = None
        self.chosen: Mapping[str, Any] | None = None
        self.start: Mapping[str, float] | None = None

    @property
    def satisfied(self) -> bool:
        """Whether the figure that is watched stopped growing."""
        return bool(self._recipe.patience and self.best and self.best[1] >= self._recipe.patience)

    def tested(self, model: PixelModel, *, clusters: bool = False) -> EvaluationReport:
        """By all of the test split. Leaves the model in evaluation mode."""
        return evaluate_data(
            self._encoder(model), self._material.test, limit=None, clusters=clusters, threads=self._threads
        )

    def shown(self, model: PixelModel) -> EvaluationReport:
        """By so many pictures as the recipe says, of what is shown. Leaves the model in evaluation mode."""
        limit = max(2, self._recipe.validate)
        return evaluate_data(
            self._encoder(model), self._material.shown, limit=limit, clusters=False, threads=self._threads
        )

    def _encoder(self, model: PixelModel) -> Any:
        return self._built.encoder(model, self._recipe, name=self._name, threads=self._threads)

    def choose(self, report: EvaluationReport, model: PixelModel) -> None:
        """Keep the weights if they are the best so far, and something is watched that was not trained on."""
        if self._material.watched is None:
            return
        value = report.metrics[report.primary]
        value = value if report.greater_is_better else -value
        if self.best is None or value > self.best[0]:
            self.best = (value, 0)
            self.chosen = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        else:
            self.best = (self.best[0], self.best[1] + 1)
