"""What several processes share: the batches that one loss compares, and the numbers that they start from."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

__all__ = ["joined", "make_same"]


def joined(*parts: Tensor) -> tuple[Tensor, ...]:
    """The rows ``(n, …)`` of all processes, by process and in order; the parts themselves where there is one process.

    Each process may have another n, the same in all of its parts. A loss of them is the same number everywhere, and a
    process has its gradient for its own rows alone. Those count as often as there are processes, so that the mean
    over the processes, which follows, is the gradient that one process with all rows would have.
    """
    if _alone():
        return parts
    count = torch.tensor([len(parts[0])], device=parts[0].device)
    lengths = [int(one) for one in _gathered(count)]
    return tuple(_joined(part, lengths) for part in parts)


@torch.no_grad()
def make_same(module: nn.Module) -> None:
    """Give a module the parameters and buffers that the first process has.

    Each process averages gradients with the others, and never looks again at what they are applied to.
    """
    if _alone():
        return
    for own in module.state_dict().values():
        sent = own.detach().clone(memory_format=torch.contiguous_format)
        distributed.broadcast(sent, src=0)
        own.copy_(sent)


def _alone() -> bool:
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1


def _joined(own: Tensor, lengths: list[int]) -> Tensor:
    room = own.new_zeros((max(lengths), *own.shape[1:]))  # all processes send as much
    room[: len(own)] = own.detach()
    rows = [part[:length] for part, length in zip(_gathered(room), lengths, strict=True)]
    rows[distributed.get_rank()] = own.detach() + len(rows) * (own - own.detach())
    return torch.cat(rows)


def _gathered(own: Tensor) -> list[Tensor]:
    """Tensors of one shape, of every process."""
    every = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(every, own.contiguous())
    return every
