"""Losses over pictures and texts whose codes are compared across: deep cross-modal hashing."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from embedkit.specs import SpecText
from embedkit.training.losses.joint import JointLoss
from embedkit.training.pairs import balanced

__all__ = ["Dcmh", "dcmh"]


class Dcmh(JointLoss):
    """Jiang & Li 2017 (DCMH), eq. 1: -Σ (s Θ - log(1 + exp Θ)) + γ (‖B - F‖² + ‖B - G‖²) + η (‖F1‖² + ‖G1‖²).

    F are pictures, G texts, Θ = ½ FᵀG, s = 1 where both have one label; B = sign(F + G) is the code that a picture and
    its text share, and the last term has every bit be 1 as often as not. Here F and G have length √bits, as in
    `HashNet`; Θ is `sharp` (FᵀG / bits - `boundary`), `share` is what the similar pairs weigh together, and the other
    two terms are means over batch and bits. The paper updates F, G and B in turns over all data; here B is the batch's.
    """

    makes_codes = True

    def __init__(
        self,
        *,
        sharp: float = 20.0,
        boundary: float = 0.3,
        share: float = 0.2,
        quantise: float = 0.1,
        balance: float = 0.1,
    ) -> None:
        super().__init__()
        self.sharp, self.boundary, self.share = sharp, boundary, share
        self.quantise, self.balance = quantise, balance

    def of_batch(self, pictures: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
        theta = self.sharp * (pictures @ texts.T - self.boundary)
        same = labels[:, None] == labels[None, :]
        likely = balanced(F.softplus(torch.where(same, -theta, theta)), same, ~same, self.share)
        left, right = (part * math.sqrt(part.shape[1]) for part in (pictures, texts))
        codes = (left + right).detach().sign()
        loose = (codes - left).square().mean() + (codes - right).square().mean()
        uneven = left.mean(dim=0).square().mean() + right.mean(dim=0).square().mean()
        return likely + self.quantise * loose + self.balance * uneven


def dcmh(spec: SpecText, *, dim: int, classes: int) -> Dcmh:
    """``dcmh(sharp=20, boundary=0.3, share=0.2, quantise=0.1, balance=0.1)``."""
    spec.only("sharp", "boundary", "share", "quantise", "balance")
    return Dcmh(
        sharp=spec.number("sharp", 20.0, 1e-3, 1e6),
        boundary=spec.number("boundary", 0.3, -1.0, 1.0),
        share=spec.number("share", 0.2, 0.0, 1.0),
        quantise=spec.number("quantise", 0.1, 0.0, 1e6),
        balance=spec.number("balance", 0.1, 0.0, 1e6),
    )
