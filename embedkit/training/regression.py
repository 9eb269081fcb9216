"""Where a space of pictures and texts can start: at the texts that pictures are likely to have, by least squares."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ridge_regression", "start_at_regression"]


def ridge_regression(features: Tensor, targets: Tensor, *, penalty: float = 1.0) -> tuple[Tensor, Tensor]:
    """Weights ``(m, f)`` and biases ``(m,)`` that foretell targets ``(n, m)`` by features ``(n, f)``, float64.

    Hoerl & Kennard 1970: W = Y'X (X'X + λ I)⁻¹ of rows less their means. λ is `penalty` times the mean of the diagonal
    of X'X, so that it means the same for features of any size. Raises ValueError where no feature varies.
    """
    features, targets = features.double(), targets.double()
    middle, level = features.mean(dim=0), targets.mean(dim=0)
    centred = features - middle
    scatter = centred.T @ centred
    size = scatter.trace() / len(scatter)
    if not size > 0 or not torch.isfinite(size):
        raise ValueError("no feature varies")
    scatter.diagonal().add_(penalty * size)
    weights: Tensor = torch.linalg.solve(scatter, centred.T @ (targets - level)).T
    return weights, level - weights @ middle


@torch.no_grad()
def start_at_regression(
    pictures: nn.Linear, texts: nn.Linear, features: Tensor, targets: Tensor, captions: Tensor
) -> None:
    """Set the layers of pictures and texts so that a picture lies where its texts are expected.

    `features` ``(n, f)`` are of pictures whose texts have the mean vectors `targets` ``(n, m)``; `captions` ``(c, m)``
    are those of all that there are. Texts keep the directions in which they differ most, as many as the layer has
    numbers, and lose their mean; vectors of both stay as long as they were. Raises ValueError where no feature varies.
    """
    mean = captions.double().mean(dim=0)
    axes = torch.linalg.svd(captions.double() - mean, full_matrices=False).Vh[: texts.out_features]
    if len(axes) < texts.out_features:
        raise ValueError(f"{len(captions)} captions of {captions.shape[1]} numbers have no {texts.out_features} axes")
    weights, bias = ridge_regression(features, (targets.double() - mean) @ axes.T)
    _set(pictures, weights, bias, features)
    _set(texts, axes, -axes @ mean, captions)


def _set(layer: nn.Linear, weights: Tensor, bias: Tensor, given: Tensor) -> None:
    """Weights times the number by which what is given comes out as long as before."""
    length = layer(given.to(layer.weight)).square().mean().sqrt()
    made = given.double() @ weights.T + bias
    times = length / made.square().mean().sqrt().clamp_min(1e-6)
    layer.weight.copy_(weights * times)
    layer.bias.copy_(bias * times)
