"""More to compare with than a card holds: a memory across batches, and large batches in small pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from embedkit.errors import BadInput, ConfigError
from embedkit.training.losses.contract import Loss, PairLoss
from embedkit.training.pairs import Bank

__all__ = ["CrossBatchMemory", "GradientCache"]


class CrossBatchMemory(Loss):
    """Cross-batch memory (Wang 2020): a pair loss that compares a batch with the last `size` embeddings as well.

    The anchors are the batch; positives and negatives come from the batch and the memory, and the memory carries no
    gradient. It is written after the loss is computed, and only in training. As the embedding moves fast in the
    beginning, `after` batches pass before it is read.
    """

    embeddings: Tensor
    labels: Tensor
    seen: Tensor
    batches: Tensor

    def __init__(self, loss: PairLoss, *, size: int, dim: int, after: int = 0) -> None:
        if not isinstance(loss, PairLoss):
            raise ConfigError(f"A cross-batch memory needs a loss over pairs, which {type(loss).__name__} is not")
        super().__init__()
        self.loss, self.size, self.after = loss, size, after
        self.normalise, self.rate, self.per_class = loss.normalise, loss.rate, loss.per_class
        self.makes_codes = loss.makes_codes
        self.register_buffer("embeddings", torch.zeros(size, dim))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("seen", torch.tensor(0))
        self.register_buffer("batches", torch.tensor(0))

    @property
    def bank(self) -> Bank:
        """What the memory holds."""
        held = min(int(self.seen), self.size)
        return Bank(self.embeddings[:held], self.labels[:held])

    def relate(self, concepts: Tensor) -> None:
        self.loss.relate(concepts)

    def prepare(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return self.loss.prepare(embeddings, labels)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.loss.progress = self.progress
        bank = self.bank if int(self.batches) >= self.after else None
        loss: Tensor = self.loss(embeddings, labels, bank)
        if self.training:
            self._remember(self.prepare(embeddings.detach(), labels), labels)
        return loss

    def _remember(self, embeddings: Tensor, labels: Tensor) -> None:
        embeddings, labels = embeddings[-self.size :], labels[-self.size :]
        places = (int(self.seen) + torch.arange(len(labels), device=labels.device)) % self.size
        self.embeddings[places] = embeddings.to(self.embeddings.dtype)
        self.labels[places] = labels
        self.seen += len(labels)
        self.batches += 1


class GradientCache:
    """Gradient caching (Gao 2021): the loss and the gradients of one large batch, in the memory of a small one.

    The pieces go through the network without a graph; the loss of all embeddings together gives the gradient of each;
    then every piece goes through again, with the same random numbers, and takes its part backwards. A network whose
    output depends on its batch (batch normalisation that is not frozen) sees pieces, and is not equal.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        loss: Callable[[Tensor, Tensor], Tensor],
        *,
        backward: Callable[[Tensor], None] = torch.Tensor.backward,
        precision: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """`backward` and `precision` (a context such as autocast) are the trainer's own."""
        self.network, self.loss = network, loss
        self._backward, self._precision = backward, precision

    def step(self, pieces: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Add the gradients of the batch to the parameters and return its loss. Raises BadInput."""
        if sum(len(piece) for piece in pieces) != len(labels):
            raise BadInput(f"{sum(len(piece) for piece in pieces)} images came with {len(labels)} labels")
        states, parts = [], []
        with torch.no_grad():
            for piece in pieces:
                states.append(_RandomState(piece.device))
                parts.append(self._embed(piece))
        embeddings = torch.cat(parts).requires_grad_()
        loss = self.loss(embeddings, labels)
        self._backward(loss)
        assert embeddings.grad is not None
        after = _RandomState(embeddings.device)
        for piece, state, gradient in zip(
            pieces, states, torch.split(embeddings.grad, [len(part) for part in parts]), strict=True
        ):
            state.restore()
            embedded = self._embed(piece)
            if not embedded.requires_grad:
                break  # nothing before the loss learns
            torch.autograd.backward(embedded, gradient)
        after.restore()
        return loss.detach()

    def _embed(self, piece: Tensor) -> Tensor:
        with self._precision():
            embedded = self.network(piece)
        return embedded


class _RandomState:
    """The random numbers of the CPU and of one device, as they are now."""

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if self._device else None

    def restore(self) -> None:
        torch.set_rng_state(self._cpu)
        if self._cuda is not None and self._device:
            torch.cuda.set_rng_state(self._cuda, self._device)
