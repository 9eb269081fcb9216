"""Low-rank adapters: a network that stays, and a small learned product beside each of its matrices."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from embedkit.errors import ConfigError

__all__ = ["LowRank", "adapter_parameters", "add_adapters", "merge_adapters"]

_MATRICES: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Linear, "weight"),
    (nn.Conv2d, "weight"),
    (nn.MultiheadAttention, "in_proj_weight"),
)


class LowRank(nn.Module):
    """Hu 2021, eq. 3, of a weight W ``(m, …)`` seen as a matrix ``(m, n)``: W + B A, B ``(m, rank)``, A ``(rank, n)``.

    B starts at 0, so that training starts from the network as it is. The paper's factor α / rank is 1: the learning
    rate says as much.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        height, width = weight.flatten(1).shape
        self.a = nn.Parameter(torch.randn(rank, width, device=weight.device) / width**0.5)
        self.b = nn.Parameter(torch.zeros(height, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).view_as(weight)


def add_adapters(network: nn.Module, rank: int) -> int:
    """Give every linear layer, plain convolution and attention of a network an adapter; how many there are.

    A matrix with a side of no more than `rank` and the filters of grouped convolutions, a few numbers each, have none.
    Raises ConfigError where nothing is left.
    """
    found = [
        (module, name)
        for module in network.modules()
        for kind, name in _MATRICES
        if isinstance(module, kind) and _large(module, name, rank)
    ]
    if not found:
        raise ConfigError(
            f"The network has no matrix that lora = {rank} would make smaller; lower lora, or leave it out"
        )
    for module, name in found:
        parametrize.register_parametrization(module, name, LowRank(getattr(module, name), rank))
    return len(found)


def _large(module: nn.Module, name: str, rank: int) -> bool:
    weight = getattr(module, name)
    plain = not isinstance(module, nn.Conv2d) or module.groups == 1
    return plain and weight is not None and min(weight.flatten(1).shape) > rank


def adapter_parameters(network: nn.Module) -> Iterator[nn.Parameter]:
    """The numbers of its adapters."""
    for module in network.modules():
        if isinstance(module, LowRank):
            yield from module.parameters()


@torch.no_grad()
def merge_adapters(network: nn.Module) -> None:
    """Add each product to its matrix, and leave a network of the shape that it had."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                if any(isinstance(one, LowRank) for one in module.parametrizations[name]):  # type: ignore[index]
                    parametrize.remove_parametrizations(module, name, leave_parametrized=True)
