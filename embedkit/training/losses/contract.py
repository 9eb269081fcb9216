"""The contract of a loss: what it is given, what it gives back, and what it asks of the trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from embedkit.errors import BadInput, ConfigError
from embedkit.specs import SpecText
from embedkit.training.miners import AllPairs, Miner
from embedkit.training.pairs import Bank, Batch, unit

__all__ = ["ClassLoss", "Loss", "PairLoss", "check_labels", "class_vectors", "known_classes", "nothing"]


class Loss(nn.Module, ABC):
    """Embeddings ``(n, d)`` and labels ``(n,)`` of int64 in, a scalar out; 0 where a batch teaches nothing.

    `normalise`: the loss is defined on vectors of length 1 and scales them itself, so that either kind may be handed
    in; where it is False the lengths carry meaning, and the trainer must not scale before.
    `needs_classes`: it has numbers for every class, and labels lie within 0 to classes - 1.
    `rate`: the learning rate of its own parameters, as a multiple of the rate of the embedding layer.
    `per_class`: how many images of a class its sampler should put into a batch, of pictures of one class each.
    `takes_features`: see `losses/daml.py`.
    `makes_codes`: it is for hash encoders, whose bits are the signs of the embeddings; `head`: the layer in
    `training/hash_heads.py` that such an encoder gets where the recipe names none.
    `progress`: the share of the budget that is used up, 0 to 1, which the trainer sets before every step.
    `alike`: (classes, classes) bool, which classes belong together, where that is more than each with itself.
    """

    normalise: bool = True
    needs_classes: bool = False
    rate: float = 1.0
    per_class: int = 4
    takes_features: bool = False
    makes_codes: bool = False
    head: str = "linear"
    progress: float = 0.0
    alike: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("alike", None, persistent=False)

    def relate(self, concepts: Tensor) -> None:
        """Pictures have several concepts, and belong together if they share one.

        `concepts`: (classes, c) bool, those of every label. Losses over pairs follow it; those that learn or choose
        something for every class keep to the classes, which are the sets of concepts that occur.
        """
        flags = concepts.float()
        self.alike = flags @ flags.T > 0

    @abstractmethod
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """What a subclass computes, on what `prepare` gives."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Half precision is computed in full, also within autocast: differences of distances need it."""
        with torch.autocast(args[0].device.type, enabled=False):
            return super().__call__(*args, **kwargs)

    def attach(self, layer: nn.Module, features: int) -> None:
        """Where it `takes_features`: the layer that makes embeddings of so many of them."""

    def prepare(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Checked, in full precision, and of length 1 where the loss is defined so. Raises BadInput."""
        if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1] or labels.dtype != torch.int64:
            raise BadInput(
                f"A loss takes embeddings (n, d) and n labels of int64, "
                f"not {tuple(embeddings.shape)} and {tuple(labels.shape)} of {labels.dtype}"
            )
        if embeddings.dtype in (torch.float16, torch.bfloat16):
            embeddings = embeddings.float()
        return unit(embeddings) if self.normalise else embeddings


class PairLoss(Loss):
    """A loss over pairs or triplets, which may compare a batch with a bank of earlier embeddings as well.

    Its miner chooses the pairs; replace the attribute to use another.
    """

    def __init__(self, miner: Miner | None = None) -> None:
        super().__init__()
        self.miner = miner or AllPairs()

    def forward(self, embeddings: Tensor, labels: Tensor, bank: Bank | None = None) -> Tensor:
        """The embeddings of a bank are as `prepare` makes them."""
        embeddings = self.prepare(embeddings, labels)
        return self.of_batch(Batch.of(embeddings, labels, bank, self.alike)) + nothing(embeddings)

    @abstractmethod
    def of_batch(self, batch: Batch) -> Tensor:
        """The loss of a batch with everything it is compared with."""


class ClassLoss(Loss):
    """A loss with learned numbers of every class."""

    needs_classes = True
    per_class = 2

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    @property
    @abstractmethod
    def vectors(self) -> Tensor:
        """The class vectors ``(classes · centres, d)``, learned or fixed."""

    @torch.no_grad()
    def start_at(self, means: Tensor) -> None:
        """Set the class vectors to the class means ``(classes, d)`` of the embedding as it is before training.

        Random vectors first drag the embedding to random places, which costs what it had learned elsewhere; with many
        classes and few epochs it does not recover. Several centres of a class get a little noise each. Raises BadInput.
        """
        if means.shape != (self.classes, self.vectors.shape[1]):
            raise BadInput(f"The class means {tuple(means.shape)} do not fit {self.classes} class vectors")
        repeats = len(self.vectors) // self.classes
        start = (unit(means) if self.normalise else means).repeat_interleave(repeats, dim=0)
        noise = torch.randn_like(start) * start.std() * 0.1 if repeats > 1 else 0
        self.vectors.copy_(start + noise)

    def prepare(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        embeddings = super().prepare(embeddings, labels)
        check_labels(labels, self.classes)
        return embeddings


def check_labels(labels: Tensor, classes: int) -> None:
    """Raises BadInput for labels beyond 0 to classes - 1, of which a card would only say that something went wrong."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise BadInput(
            f"The labels {int(labels.min())} to {int(labels.max())} do not fit a loss of {classes} classes; "
            "number the classes from 0"
        )


def class_vectors(dim: int, classes: int, *, centres: int = 1) -> nn.Parameter:
    """Random vectors ``(classes · centres, dim)``; class c owns the rows c·centres to (c + 1)·centres - 1."""
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(classes * centres, dim)))


def nothing(embeddings: Tensor) -> Tensor:
    """0, with a gradient path to the embeddings."""
    return embeddings.sum() * 0


def known_classes(spec: SpecText, classes: int) -> int:
    """The number of classes. Raises ConfigError when it is not given."""
    if classes < 1:
        raise ConfigError(f"The loss {spec.text!r} learns a vector for every class and must be told how many there are")
    return classes
