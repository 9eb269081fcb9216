"""Classifiers with a margin on the angle: SphereFace, CosFace, ArcFace and its sub-centres."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embedkit.specs import SpecText
from embedkit.training.losses.contract import ClassLoss, class_vectors, known_classes, nothing
from embedkit.training.pairs import unit

__all__ = ["ArcFace", "CosFace", "SphereFace", "arcface", "cosface", "sphereface", "subcentre_arcface"]


class _Angle(ClassLoss):
    """Cross-entropy over s·cos θ, in which the own class's cosine is replaced by a smaller one."""

    def __init__(self, dim: int, classes: int, *, scale: float, centres: int = 1) -> None:
        super().__init__(classes)
        self.scale, self.centres = scale, centres
        self.weight = class_vectors(dim, classes, centres=centres)

    @property
    def vectors(self) -> nn.Parameter:
        return self.weight

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        embeddings = self.prepare(embeddings, labels)
        cosines = unit(embeddings) @ unit(self.weight).T
        cosines = cosines.view(len(embeddings), self.classes, self.centres).amax(2).clamp(-1, 1)
        own = cosines.gather(1, labels[:, None])
        logits = cosines.scatter(1, labels[:, None], self.smaller(own))
        scale: float | Tensor = self.scale if self.normalise else self.scale * embeddings.norm(dim=1, keepdim=True)
        return F.cross_entropy(scale * logits, labels) + nothing(embeddings)

    @abstractmethod
    def smaller(self, cosines: Tensor) -> Tensor:
        """What stands in for the cosine of the own class."""


class CosFace(_Angle):
    """Wang 2018, eq. 4: cos θ - m; s = 64, m = 0.35."""

    def __init__(self, dim: int, classes: int, *, scale: float = 64.0, margin: float = 0.35) -> None:
        super().__init__(dim, classes, scale=scale)
        self.margin = margin

    def smaller(self, cosines: Tensor) -> Tensor:
        return cosines - self.margin


class ArcFace(_Angle):
    """Deng 2019, eq. 3: cos(θ + m); s = 64, m = 0.5. Several centres a class: sub-centre ArcFace, Deng 2020.

    Where θ + m is beyond π it would rise again; cos θ - m sin m stands there, as in the authors' code.
    """

    def __init__(self, dim: int, classes: int, *, scale: float = 64.0, margin: float = 0.5, centres: int = 1) -> None:
        super().__init__(dim, classes, scale=scale, centres=centres)
        self.margin = margin

    def smaller(self, cosines: Tensor) -> Tensor:
        sines = (1 - cosines.square()).clamp_min(1e-12).sqrt()
        moved = cosines * math.cos(self.margin) - sines * math.sin(self.margin)
        beyond = cosines < math.cos(math.pi - self.margin)
        return torch.where(beyond, cosines - self.margin * math.sin(self.margin), moved)


class SphereFace(_Angle):
    """Liu 2017, eq. 7: ‖x‖ ψ(θ), ψ(θ) = (-1)^k cos(mθ) - 2k for θ in [kπ/m, (k+1)π/m]; m = 4.

    The class vectors have length 1, the embeddings keep theirs. Training starts near the plain softmax: the own class
    has ‖x‖ (λ cos θ + ψ(θ)) / (1 + λ), λ = max(5, 1000 / (1 + 0.12 t)) at step t, as in the authors' code.
    """

    normalise = False
    steps: Tensor

    def __init__(self, dim: int, classes: int, *, m: int = 4, anneal: float = 0.12, least: float = 5.0) -> None:
        super().__init__(dim, classes, scale=1.0)
        self.m, self.anneal, self.least = m, anneal, least
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
        return super().forward(embeddings, labels)

    def smaller(self, cosines: Tensor) -> Tensor:
        share = (1000 / (1 + self.anneal * self.steps)).clamp_min(self.least)
        return (share * cosines + self.psi(cosines)) / (1 + share)

    def psi(self, cosines: Tensor) -> Tensor:
        """ψ of the angles with these cosines; cos(mθ) by the recurrence of the Chebyshev polynomials."""
        before, multiple = torch.ones_like(cosines), cosines
        for _ in range(self.m - 1):
            before, multiple = multiple, 2 * cosines * multiple - before
        k = (torch.acos(cosines.detach()) * self.m / math.pi).floor().clamp_max(self.m - 1)
        return (1 - 2 * (k % 2)) * multiple - 2 * k


def cosface(spec: SpecText, *, dim: int, classes: int) -> CosFace:
    """``cosface(s=64, m=0.35)``."""
    scale, angle = _scale_and_margin(spec.only("s", "m"), 0.35)
    return CosFace(dim, known_classes(spec, classes), scale=scale, margin=angle)


def arcface(spec: SpecText, *, dim: int, classes: int) -> ArcFace:
    """``arcface(s=64, m=0.5)``; m in radians."""
    scale, angle = _scale_and_margin(spec.only("s", "m"), 0.5)
    return ArcFace(dim, known_classes(spec, classes), scale=scale, margin=angle)


def subcentre_arcface(spec: SpecText, *, dim: int, classes: int) -> ArcFace:
    """``subcentre-arcface(s=64, m=0.5, centres=3)``."""
    scale, angle = _scale_and_margin(spec.only("s", "m", "centres"), 0.5)
    centres = spec.whole_number("centres", 3, 1, 100)
    return ArcFace(dim, known_classes(spec, classes), scale=scale, margin=angle, centres=centres)


def sphereface(spec: SpecText, *, dim: int, classes: int) -> SphereFace:
    """``sphereface(m=4, anneal=0.12, least=5)``."""
    spec.only("m", "anneal", "least")
    return SphereFace(
        dim,
        known_classes(spec, classes),
        m=spec.whole_number("m", 4, 1, 8),
        anneal=spec.number("anneal", 0.12, 0.0, 1e6),
        least=spec.number("least", 5.0, 0.0, 1000.0),
    )


def _scale_and_margin(spec: SpecText, margin: float) -> tuple[float, float]:
    return spec.number("s", 64.0, 1e-3, 1e6), spec.number("m", margin, 0.0, math.pi / 2)
