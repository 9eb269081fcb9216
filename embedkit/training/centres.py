"""What some pictures are to the network: where embedding layers and class vectors start, and hard classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from embedkit.errors import BadSource, ConfigError
from embedkit.training.discriminants import AT_THE_END, set_at_discriminants
from embedkit.training.features import Features
from embedkit.training.hash_heads import BlockCode, DivideAndEncode, finish_codes, start_codes
from embedkit.training.network import Objective
from embedkit.training.pictures import Pictures
from embedkit.training.recipe import TrainingRecipe
from embedkit.training.regression import start_at_regression

if TYPE_CHECKING:
    from accelerate import Accelerator

    from embedkit.types import IdArray

__all__ = ["ClassCentres", "class_means", "finish_head", "start_head"]

_FOR_CODES = (2, 2_048)  # pictures of a class, and of all, that codes start from
_FOR_CLASSES = (8, 16_384)  # and discriminants
_NEWEST = 0.5  # weight of the newest embeddings in the means that follow the batches


class ClassCentres:
    """Means ``(classes, dim)`` that follow the batches: `now`, and `mined` as they were when the epoch began."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self.now: Tensor | None = None
        self.mined: Tensor | None = None

    def follow(self, embeddings: Tensor, labels: Tensor) -> None:
        """Move the means of the classes in the batch towards it."""
        embeddings, labels = embeddings.cpu(), labels.cpu()
        if self.now is None:
            self.now = torch.zeros(self._classes, embeddings.shape[1])
        known, places = torch.unique(labels, return_inverse=True)
        sums = torch.zeros(len(known), embeddings.shape[1]).index_add_(0, places, embeddings)
        means = sums / torch.bincount(places)[:, None]
        self.now[known] = torch.lerp(self.now[known], means, _NEWEST)

    def begin_epoch(self, accelerator: Accelerator) -> None:
        """Mine by what is known now; several processes by the mean of what they know."""
        if self.now is None:
            return
        if accelerator.num_processes > 1:
            self.now = accelerator.reduce(self.now.to(accelerator.device), reduction="mean").cpu()
        self.mined = self.now.clone()


def class_means(
    objective: Objective, pictures: Pictures | Features, labels: IdArray, *, dim: int, device: torch.device
) -> Tensor:
    """Means ``(classes, dim)`` of the embeddings of up to two pictures of each class, as the network makes them now.

    Leaves the objective in evaluation mode.
    """
    sums, counts = torch.zeros(int(labels.max()) + 1, dim), torch.zeros(int(labels.max()) + 1)
    objective.eval()
    plan = _plan(_first_of_each(labels, 2))
    with torch.inference_mode():
        for batch in pictures.batches(plan):
            if len(batch.rows):
                pixels = torch.from_numpy(batch.pixels).to(device)
                made = objective.embeddings(objective.embed(pixels)).cpu()
                known = torch.from_numpy(batch.labels)
                sums.index_add_(0, known, made)
                counts.index_add_(0, known, torch.ones(len(known)))
    empty = counts == 0  # none of its pictures could be read
    sums[empty] = torch.randn(int(empty.sum()), dim)
    return sums / counts.clamp_min(1)[:, None]


def start_head(
    objective: Objective,
    pictures: Pictures | Features,
    labels: IdArray,
    recipe: TrainingRecipe,
    device: torch.device,
    *,
    targets: Tensor | None = None,
) -> None:
    """Set the embedding layer by what the network makes of some training pictures, as `recipe.start` and bits say.

    `targets`: what pictures of each label are expected near, for a start by regression. Leaves the objective in
    evaluation mode. Raises BadSource if none of them can be read, ConfigError.
    """
    per_class, most = _FOR_CLASSES if recipe.start else _FOR_CODES
    features, known = _some_features(
        objective, pictures, labels, per_class=per_class, most=most, seed=recipe.seed, device=device
    )
    if recipe.start == "ridge" and targets is not None:
        _start_at_texts(objective, features, known, targets)
    elif recipe.bits:
        start_codes(objective.head, features, known if recipe.start else None, seed=recipe.seed)
    else:
        assert isinstance(objective.head, nn.Linear)
        set_at_discriminants(objective.head, features, known)


def finish_head(
    objective: Objective, pictures: Pictures | Features, labels: IdArray, recipe: TrainingRecipe, device: torch.device
) -> None:
    """Set the embedding layer by what the trained network makes of training pictures, as `recipe.finish` says.

    Leaves the objective in evaluation mode. Raises BadSource if none of them can be read.
    """
    per_class, most = _FOR_CLASSES
    features, known = _some_features(
        objective, pictures, labels, per_class=per_class, most=most, seed=recipe.seed, device=device
    )
    head = objective.head
    if recipe.bits:
        assert isinstance(head, nn.Linear | DivideAndEncode | BlockCode)
        finish_codes(head, features, known, seed=recipe.seed)
    else:
        assert isinstance(head, nn.Linear)
        set_at_discriminants(head, features, known, shrinkage=AT_THE_END)


def _start_at_texts(objective: Objective, features: Tensor, labels: Tensor, targets: Tensor) -> None:
    pictures, texts = objective.head, objective.model.get_submodule("texts")
    assert isinstance(pictures, nn.Linear)
    assert isinstance(texts, nn.Linear)
    captions = targets.to(features.device)
    try:
        start_at_regression(pictures, texts, features, captions[labels], captions)
    except ValueError as error:
        raise ConfigError(f"start = 'ridge' finds no start: {error}; set a lower dim, or leave out start") from error


def _some_features(
    objective: Objective,
    pictures: Pictures | Features,
    labels: IdArray,
    *,
    per_class: int,
    most: int,
    seed: int,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Features ``(n, features)`` before the embedding layer, and the labels ``(n,)`` of the pictures they are of.

    They are of up to `per_class` pictures of each class, and of as many classes as give `most` pictures or fewer.
    Leaves the objective in evaluation mode. Raises BadSource if none can be read.
    """
    rows = _first_of_each(labels, per_class)
    place = np.random.default_rng(seed).permutation(int(labels.max()) + 1)
    rows = rows[np.argsort(place[labels[rows]], kind="stable")][:most]
    objective.eval()
    found, known = [], []
    with torch.inference_mode():
        for batch in pictures.batches(_plan(np.sort(rows))):
            if len(batch.rows):
                found.append(objective.features(torch.from_numpy(batch.pixels).to(device)).float())
                known.append(torch.from_numpy(batch.labels).to(device))
    if not found:
        raise BadSource(f"None of {len(rows):,} training pictures can be read; run: embedkit datasets check")
    return torch.cat(found), torch.cat(known)


def _first_of_each(labels: IdArray, count: int) -> IdArray:
    """The rows of the first pictures of each class."""
    order = np.argsort(labels, kind="stable")
    rank = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
    return order[rank < count]


def _plan(rows: IdArray) -> Iterator[list[int]]:
    return ([int(row) for row in rows[start : start + 64]] for start in range(0, len(rows), 64))
