"""What losses and miners look at: a batch, what it is compared with, and who belongs together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "Bank",
    "Batch",
    "Triplets",
    "balanced",
    "distances",
    "masked_logsumexp",
    "mean_of",
    "squared_distances",
    "unit",
]

_ZERO = 1e-12  # a squared distance below it is none: the root has no finite slope there
_SHORT = 1e-12  # a length below it is none


@dataclass(frozen=True, slots=True)
class Bank:
    """Embeddings ``(m, d)`` and labels ``(m,)`` of earlier batches, which a batch is compared with as well."""

    embeddings: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class Triplets:
    """Row numbers, all of one length: `anchor` in the batch, `positive` and `negative` in what it is compared with."""

    anchor: Tensor
    positive: Tensor
    negative: Tensor

    def __len__(self) -> int:
        return len(self.anchor)


@dataclass(frozen=True, slots=True)
class Batch:
    """`n` anchors and the `m` others they are compared with, the first `n` of which are the anchors themselves.

    (Not so in what `seen_from` gives, whose anchors are any of the others.)

    `positive` and `negative` are masks ``(n, m)``: alike but not the same row, and not alike. Alike is what is of one
    class, or whose classes the mask `alike` ``(classes, classes)`` pairs.
    """

    anchors: Tensor
    labels: Tensor
    others: Tensor
    other_labels: Tensor
    positive: Tensor
    negative: Tensor
    alike: Tensor | None = None

    @classmethod
    def of(cls, embeddings: Tensor, labels: Tensor, bank: Bank | None = None, alike: Tensor | None = None) -> Batch:
        """The batch alone, or together with a bank."""
        others = embeddings if bank is None else torch.cat([embeddings, bank.embeddings])
        other_labels = labels if bank is None else torch.cat([labels, bank.labels])
        rows = torch.arange(len(labels), device=labels.device)
        return cls(embeddings, labels, others, other_labels, *_masks(rows, labels, other_labels, alike), alike)

    def seen_from(self, rows: Tensor) -> Batch:
        """The same others, of which these rows are the anchors; here they need not be the first."""
        labels = self.other_labels[rows]
        masks = _masks(rows, labels, self.other_labels, self.alike)
        return Batch(self.others[rows], labels, self.others, self.other_labels, *masks, self.alike)

    def similarities(self) -> Tensor:
        """Inner products ``(n, m)``."""
        return self.anchors @ self.others.T

    def distances(self) -> Tensor:
        """Euclidean distances ``(n, m)``."""
        return distances(self.anchors, self.others)

    def squared_distances(self) -> Tensor:
        """Squared Euclidean distances ``(n, m)``."""
        return squared_distances(self.anchors, self.others)

    def triplets(self, positive: Tensor | None = None, negative: Tensor | None = None) -> Triplets:
        """Every anchor with each of its positives and each of its negatives, out of two masks (all by default)."""
        positive = self.positive if positive is None else positive
        negative = self.negative if negative is None else negative
        anchor, near = positive.nonzero(as_tuple=True)
        pair, far = negative[anchor].nonzero(as_tuple=True)
        return Triplets(anchor[pair], near[pair], far)


def _masks(rows: Tensor, labels: Tensor, other_labels: Tensor, alike: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which others are alike anchors, but not their own `rows`, and which are not alike."""
    same = labels[:, None] == other_labels[None, :] if alike is None else alike[labels][:, other_labels]
    itself = rows[:, None] == torch.arange(len(other_labels), device=rows.device)
    return same & ~itself, ~same


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """Squared Euclidean distances ``(n, m)`` of the rows of two matrices.

    >>> squared_distances(torch.tensor([[0.0, 3.0]]), torch.tensor([[4.0, 0.0]]))
    tensor([[25.]])
    """
    squares = left.square().sum(-1, keepdim=True) + right.square().sum(-1)[..., None, :]
    return (squares - 2 * left @ right.transpose(-1, -2)).clamp_min(0)


def distances(left: Tensor, right: Tensor) -> Tensor:
    """Euclidean distances ``(n, m)``; the gradient of two rows that coincide is 0, not NaN."""
    squared = squared_distances(left, right)
    apart = squared > _ZERO
    return torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)


def masked_logsumexp(values: Tensor, mask: Tensor, *, dim: int = -1) -> Tensor:
    """Logarithm of Σ exp over the entries in the mask; a very large negative number where there are none."""
    return values.masked_fill(~mask, torch.finfo(values.dtype).min / 4).logsumexp(dim)


def mean_of(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the entries in the mask; 0, still with a gradient path, when there are none."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp_min(1)


def unit(embeddings: Tensor) -> Tensor:
    """The rows scaled to length 1; a row of zeros stays, and has no slope.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    lengths = embeddings.norm(dim=-1, keepdim=True)
    return torch.where(lengths > _SHORT, embeddings / lengths.clamp_min(_SHORT), 0)


def balanced(cost: Tensor, positive: Tensor, negative: Tensor, share: float) -> Tensor:
    """The mean over the pairs of one class, which weighs `share`, and the mean over those of two.

    ½ is the weight of HashNet and DCH, up to a factor: w = |S| / |S₁| for a similar pair, |S| / |S₀| for another.
    """
    return 2 * (share * mean_of(cost, positive) + (1 - share) * mean_of(cost, negative))
