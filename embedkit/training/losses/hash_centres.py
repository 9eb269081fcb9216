"""Losses that draw every class to a code of its own, chosen before training: CSQ, DPN, OrthoHash, CNNH."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from embedkit.errors import ConfigError
from embedkit.specs import SpecText
from embedkit.training.losses.contract import ClassLoss, known_classes, nothing

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["CNNH", "CSQ", "DPN", "OrthoHash", "cnnh", "csq", "dpn", "factored_codes", "hadamard_codes", "orthohash"]

_CODES = ("auto", "hadamard", "means", "random")
_MOST_FACTORED = 4_096  # classes, each compared with each


class _Centres(ClassLoss):
    """A code of ±1 for every class, ``(classes, bits)``, that learns nothing.

    `codes`: ``hadamard``: rows of a Hadamard matrix and their opposites, each given to the class whose mean it suits
    best; ``means``: the signs of the class means, less the mean of all; ``random``: fair coins. ``auto`` is Hadamard
    where there are rows enough and bits are a power of 2, else means: many classes that random codes tear from where
    they are cost more than well separated codes bring.
    """

    centres: Tensor
    normalise = False
    makes_codes = True

    def __init__(self, dim: int, classes: int, *, codes: str = "auto") -> None:
        super().__init__(classes)
        self.register_buffer("centres", torch.randn(classes, dim).sign())
        self.codes = codes
        if codes == "auto":
            self.codes = "hadamard" if _has_hadamard(dim, classes) else "means"
        if self.codes == "hadamard" and not _has_hadamard(dim, classes):
            raise ConfigError(
                f"codes=hadamard has no codes of {dim} bits for {classes:,} classes, only for up to twice the bits "
                "where these are a power of 2; take codes=means"
            )

    @property
    def vectors(self) -> Tensor:
        return self.centres

    @torch.no_grad()
    def start_at(self, means: Tensor) -> None:
        super().start_at(means)  # which checks them
        centred = means - means.mean(0)
        signs = torch.where(centred > 0, 1.0, -1.0)
        if self.codes == "hadamard":
            signs = torch.from_numpy(hadamard_codes(centred.double().cpu().numpy())).to(means)
        elif self.codes == "random":
            signs = torch.randn_like(means).sign()
        self.centres.copy_(signs)


def _has_hadamard(bits: int, classes: int) -> bool:
    return classes <= 2 * bits and bits & (bits - 1) == 0


def hadamard_codes(means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A row of a Hadamard matrix, or its opposite, for each class mean ``(classes, bits)``: the best assignment."""
    from scipy.linalg import hadamard
    from scipy.optimize import linear_sum_assignment

    rows = hadamard(means.shape[1]).astype(np.float64)
    rows = np.concatenate([rows, -rows])
    _, chosen = linear_sum_assignment(-means @ rows.T)
    codes: npt.NDArray[np.float64] = rows[chosen]
    return codes


class CSQ(_Centres):
    """Yuan 2020: cross-entropy of each bit with the hash centre of the class + λ log cosh(|2h - 1| - 1).

    h = (tanh(z) + 1) / 2 is the probability of a 1; the mean over the bits; λ = `quantise`, 1e-4 in the authors' code.
    """

    def __init__(self, dim: int, classes: int, *, codes: str = "auto", quantise: float = 1e-4) -> None:
        super().__init__(dim, classes, codes=codes)
        self.quantise = quantise

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        embeddings = self.prepare(embeddings, labels)
        wanted = self.centres[labels].to(embeddings)
        central = F.softplus(-2 * embeddings * wanted).mean()  # (tanh(z) + 1) / 2 = σ(2z)
        loose = torch.tanh(embeddings).abs() - 1
        return central + self.quantise * torch.log(torch.cosh(loose)).mean() + nothing(embeddings)


class DPN(_Centres):
    """Fan 2020, the polarisation loss: max(0, m - z t), t the code of the class, the mean over the bits; m = 1."""

    def __init__(self, dim: int, classes: int, *, codes: str = "auto", margin: float = 1.0) -> None:
        super().__init__(dim, classes, codes=codes)
        self.margin = margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        embeddings = self.prepare(embeddings, labels)
        wanted = self.centres[labels].to(embeddings)
        return (self.margin - embeddings * wanted).clamp_min(0).mean() + nothing(embeddings)


class OrthoHash(_Centres):
    """Hoe 2021: softmax over s·cos θ between z and every class's code, the own cosine less m; m = 0.2.

    One loss for both: a large cosine with a code is also a small loss by the sign. s = `scale`, 0 stands for
    √2 log(classes - 1) as in the authors' code.
    """

    normalise = True

    def __init__(self, dim: int, classes: int, *, codes: str = "auto", margin: float = 0.2, scale: float = 0.0) -> None:
        super().__init__(dim, classes, codes=codes)
        self.margin, self.scale = margin, scale or math.sqrt(2) * math.log(max(classes - 1, 2))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        embeddings = self.prepare(embeddings, labels)
        cosines = embeddings @ self.centres.to(embeddings).T / math.sqrt(embeddings.shape[1])
        logits = self.scale * (cosines - self.margin * F.one_hot(labels, self.classes))
        return F.cross_entropy(logits, labels) + nothing(embeddings)


class CNNH(_Centres):
    """Xia 2014: codes from a factorisation of the similarities (stage 1), then regressed on (stage 2).

    Stage 1 is done for classes, since pictures of one class share their similarities: ‖S - H Hᵀ / bits‖² over H of
    ±1, S being 1 on the diagonal and -1 beside it, bit by bit and class by class, from the signs of the class means.
    Stage 2: the mean of (tanh(z) - h)².
    """

    def __init__(self, dim: int, classes: int, *, rounds: int = 1) -> None:
        super().__init__(dim, classes, codes="means")
        self.rounds = rounds
        if classes > _MOST_FACTORED:
            raise ConfigError(
                f"cnnh compares every class with every other and takes up to {_MOST_FACTORED:,}, not {classes:,}; "
                "take another loss, such as csq"
            )

    @torch.no_grad()
    def start_at(self, means: Tensor) -> None:
        super().start_at(means)
        codes = factored_codes(self.centres.double().cpu().numpy(), rounds=self.rounds)
        self.centres.copy_(torch.from_numpy(codes).to(self.centres))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        embeddings = self.prepare(embeddings, labels)
        wanted = self.centres[labels].to(embeddings)
        return (torch.tanh(embeddings) - wanted).square().mean() + nothing(embeddings)


def factored_codes(start: npt.NDArray[np.float64], *, rounds: int) -> npt.NDArray[np.float64]:
    """Coordinate descent on ‖S - H Hᵀ / bits‖² over ±1 ``(classes, bits)``; each step sets one number the best way."""
    codes = start.copy()
    classes, bits = codes.shape
    rest = bits * (2 * np.eye(classes) - 1) - codes @ codes.T
    for _ in range(rounds):
        for bit in range(bits):
            column = codes[:, bit].copy()
            rest += np.outer(column, column)  # what the other bits leave to this one
            for row in range(classes):
                pull = float(rest[row] @ column) - rest[row, row] * column[row]
                column[row] = 1.0 if pull > 0 or (pull == 0 and column[row] > 0) else -1.0
            rest -= np.outer(column, column)
            codes[:, bit] = column
    return codes


def csq(spec: SpecText, *, dim: int, classes: int) -> CSQ:
    """``csq(codes=auto, quantise=0.0001)``."""
    spec.only("codes", "quantise")
    codes, quantise = spec.choice("codes", "auto", _CODES), spec.number("quantise", 1e-4, 0.0, 1e6)
    return CSQ(dim, known_classes(spec, classes), codes=codes, quantise=quantise)


def dpn(spec: SpecText, *, dim: int, classes: int) -> DPN:
    """``dpn(codes=auto, margin=1)``."""
    spec.only("codes", "margin")
    codes, margin = spec.choice("codes", "auto", _CODES), spec.number("margin", 1.0, 1e-3, 1e6)
    return DPN(dim, known_classes(spec, classes), codes=codes, margin=margin)


def orthohash(spec: SpecText, *, dim: int, classes: int) -> OrthoHash:
    """``orthohash(codes=auto, m=0.2, s=0)``."""
    spec.only("codes", "m", "s")
    return OrthoHash(
        dim,
        known_classes(spec, classes),
        codes=spec.choice("codes", "auto", _CODES),
        margin=spec.number("m", 0.2, 0.0, 2.0),
        scale=spec.number("s", 0.0, 0.0, 1e6),
    )


def cnnh(spec: SpecText, *, dim: int, classes: int) -> CNNH:
    """``cnnh(rounds=1)``."""
    rounds = spec.only("rounds").whole_number("rounds", 1, 0, 1000)
    return CNNH(dim, known_classes(spec, classes), rounds=rounds)
