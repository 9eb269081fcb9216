"""Losses over pictures and texts: what belongs together must be alike in one space, both ways."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embedkit.errors import BadInput
from embedkit.plugins import load
from embedkit.specs import SpecText, parse_spec
from embedkit.training.losses.contract import check_labels, class_vectors, known_classes
from embedkit.training.pairs import unit

__all__ = [
    "Clip",
    "Instance",
    "JointLoss",
    "SigLip",
    "VsePlusPlus",
    "build_joint_loss",
    "clip",
    "instance",
    "siglip",
    "vse_plus_plus",
]

_GREATEST = math.log(100)  # of CLIP's logarithmic scale


class JointLoss(nn.Module, ABC):
    """Pictures ``(n, d)``, texts ``(n, d)``, labels ``(n,)`` of int64 in, a scalar out; row i of both belong together.

    So do rows of one label. Vectors are scaled to length 1. `rate`: of its own numbers, as a multiple of the rate of
    the embedding layer. `per_class`: how many pictures of a class its sampler should put into a batch. `makes_codes`:
    whether the signs of the vectors are meant, not the vectors.
    """

    rate: float = 1.0
    per_class: int = 1
    takes_features: bool = False
    makes_codes: bool = False

    @abstractmethod
    def of_batch(self, pictures: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
        """The loss of unit vectors."""

    def forward(self, pictures: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
        """Half precision is computed in full, also within autocast. Raises BadInput."""
        if pictures.ndim != 2 or pictures.shape != texts.shape or labels.shape != pictures.shape[:1]:
            raise BadInput(
                f"A loss takes pictures (n, d), texts (n, d) and n labels, "
                f"not {tuple(pictures.shape)}, {tuple(texts.shape)} and {tuple(labels.shape)}"
            )
        with torch.autocast(pictures.device.type, enabled=False):
            return self.of_batch(unit(pictures.float()), unit(texts.float()), labels)


def _same(labels: Tensor) -> Tensor:
    return labels[:, None] == labels[None, :]


class VsePlusPlus(JointLoss):
    """Faghri 2018, eq. 6, the max of hinges: [α + s(i, c′) - s(i, c)]₊ + [α + s(i′, c) - s(i, c)]₊ with the hardest
    c′ and i′ of the batch, summed over its pairs.

    For the first `warmup` batches it is the sum of hinges over all of them (eq. 5), since the hardest alone may let
    training collapse at its start.
    """

    batches: Tensor

    def __init__(self, *, margin: float = 0.2, warmup: int = 0) -> None:
        super().__init__()
        self.margin, self.warmup = margin, warmup
        self.register_buffer("batches", torch.tensor(0))

    def of_batch(self, pictures: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
        similar = pictures @ texts.T
        own, same = similar.diagonal(), _same(labels)
        of_pictures = (self.margin + similar - own[:, None]).clamp_min(0).masked_fill(same, 0)
        of_texts = (self.margin + similar - own[None, :]).clamp_min(0).masked_fill(same, 0)
        sums = int(self.batches) < self.warmup
        if self.training:
            self.batches += 1
        if sums:
            return of_pictures.sum() + of_texts.sum()
        return of_pictures.amax(1).sum() + of_texts.amax(0).sum()


class Clip(JointLoss):
    """Radford 2021, figure 3: cross-entropy over the scaled cosines of a batch, from pictures and from texts, halved.

    The scale exp(t) is learned from 1 / `temperature` on and at most 100: where a step took t above that, it is set
    back. Of several rows of one label each counts as right by an even share.
    """

    def __init__(self, *, temperature: float = 0.07) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def of_batch(self, pictures: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():  # a clamp in the graph has no gradient above its limit, and t would stay there
            self.scale.clamp_(max=_GREATEST)
        logits = self.scale.exp() * (pictures @ texts.T)
        right = _same(labels).float()
        right = right / right.sum(1, keepdim=True)
        return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


class SigLip(JointLoss):
    """Zhai 2023, eq. 1: -1/n Σ log σ(z (exp(t′) · cos + b)) over all pairs, z = 1 for a pair and -1 for any other.

    t′ starts at log `scale`, b at `bias`; both are learned.
    """

    def __init__(self, *, scale: float = 10.0, bias: float = -10.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(bias))

    def of_batch(self, pictures: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
        logits = self.scale.exp() * (pictures @ texts.T) + self.bias
        signs = torch.where(_same(labels), 1.0, -1.0)
        return -F.logsigmoid(signs * logits).sum() / len(labels)


class Instance(JointLoss):
    """Zheng 2020, eq. 4 and 5: every label is a class, and one classifier tells them apart for pictures and for texts.

    The classifier's vectors and the embeddings have length 1 and their cosines are multiplied by `scale`, where the
    paper takes inner products as they are: the two towers start with vectors of very different lengths. With `ranking`
    above 0, the paper's second stage, so many times the ranking loss (eq. 6) is added: the mean over the batch of
    [α - s(i, c) + s(i, c′)]₊ + [α - s(i, c) + s(i′, c)]₊, whose c′ and i′ are every other one of the batch.
    """

    def __init__(
        self, dim: int, classes: int, *, scale: float = 16.0, ranking: float = 0.0, margin: float = 1.0
    ) -> None:
        super().__init__()
        self.classes, self.scale, self.ranking, self.margin = classes, scale, ranking, margin
        self.weight = class_vectors(dim, classes)

    def of_batch(self, pictures: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
        check_labels(labels, self.classes)
        vectors = self.scale * unit(self.weight).T
        loss = F.cross_entropy(pictures @ vectors, labels) + F.cross_entropy(texts @ vectors, labels)
        return loss + self.ranking * self._ranked(pictures, texts, labels) if self.ranking else loss

    def _ranked(self, pictures: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
        similar, other = pictures @ texts.T, ~_same(labels)
        own = similar.diagonal()
        of_pictures = (self.margin + similar - own[:, None]).clamp_min(0)
        of_texts = (self.margin + similar - own[None, :]).clamp_min(0)
        return torch.where(other, of_pictures + of_texts, 0).sum() / other.sum().clamp_min(1)


def vse_plus_plus(spec: SpecText, *, dim: int, classes: int) -> VsePlusPlus:
    """``vse++(margin=0.2, warmup=0)``; warmup in batches."""
    spec.only("margin", "warmup")
    margin = spec.number("margin", 0.2, 0.0, 2.0)
    return VsePlusPlus(margin=margin, warmup=spec.whole_number("warmup", 0, 0, 10**9))


def clip(spec: SpecText, *, dim: int, classes: int) -> Clip:
    """``clip(temperature=0.07)``."""
    return Clip(temperature=spec.only("temperature").number("temperature", 0.07, 0.01, 10.0))


def siglip(spec: SpecText, *, dim: int, classes: int) -> SigLip:
    """``siglip(scale=10, bias=-10)``."""
    spec.only("scale", "bias")
    return SigLip(scale=spec.number("scale", 10.0, 0.01, 100.0), bias=spec.number("bias", -10.0, -1000.0, 1000.0))


def instance(spec: SpecText, *, dim: int, classes: int) -> Instance:
    """``instance(scale=16, ranking=0, margin=1)``."""
    spec.only("scale", "ranking", "margin")
    return Instance(
        dim,
        known_classes(spec, classes),
        scale=spec.number("scale", 16.0, 1e-3, 1e6),
        ranking=spec.number("ranking", 0.0, 0.0, 1e6),
        margin=spec.number("margin", 1.0, 0.0, 2.0),
    )


def build_joint_loss(text: str, *, dim: int, classes: int) -> JointLoss:
    """The loss that a text names. Raises ConfigError, UnknownName.

    >>> build_joint_loss("vse++(margin=0.1)", dim=8, classes=3).margin
    0.1
    """
    spec = parse_spec(text, kind="loss")
    loss: JointLoss = load("joint_losses", spec.name)(spec, dim=dim, classes=classes)
    return loss
