"""The last layer of a hash encoder: the numbers whose signs are the bits, and where training starts them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from embedkit.encoders.projections import directions
from embedkit.errors import ConfigError
from embedkit.training.discriminants import AT_THE_END, SHRINKAGE, fisher_directions, set_at_discriminants
from embedkit.training.evaluation.clustering import cluster
from embedkit.training.losses.build import build_loss
from embedkit.training.losses.hash_classes import BLOCK
from embedkit.training.recipe import TrainingRecipe

if TYPE_CHECKING:
    from embedkit.types import FloatArray

__all__ = ["BlockCode", "DivideAndEncode", "build_head", "finish_codes", "head_of", "start_codes"]

_SLICE = 50
_log = logging.getLogger(__name__)


class DivideAndEncode(nn.Module):
    """Lai 2015, section 3.2: an intermediate layer of 50 numbers for each bit; each bit sees only its own 50.

    ``(n, features)`` in, ``(n, bits)`` out, before the sigmoid. The paper has fewer bits depend on one another so.
    """

    def __init__(self, features: int, bits: int, *, width: int = _SLICE) -> None:
        super().__init__()
        self.bits, self.width = bits, width
        self.divide = nn.Linear(features, bits * width)
        self.encode = nn.Parameter(torch.randn(bits, width) / width**0.5)
        self.bias = nn.Parameter(torch.zeros(bits))

    @torch.no_grad()
    def start_at(self, layer: nn.Linear) -> None:
        """Give what a linear layer gives: of each slice two numbers are its positive and its negative part."""
        weight, bias = self.divide.weight.view(self.bits, self.width, -1), self.divide.bias.view(self.bits, self.width)
        for place, sign in ((0, 1), (1, -1)):
            weight[:, place], bias[:, place] = sign * layer.weight, sign * layer.bias
        self.encode.zero_()
        self.encode[:, 0], self.encode[:, 1] = 1, -1
        self.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        slices = torch.relu(self.divide(features)).view(-1, self.bits, self.width)
        numbers: Tensor = (slices * self.encode).sum(2) + self.bias
        return numbers


class BlockCode(nn.Module):
    """Jain 2017 (SuBiC): in every block of `block` bits exactly one is 1, that of the largest number.

    ``(n, features)`` in, ``(n, bits)`` out: a linear layer, each block less the middle between its largest number and
    the next. So the signs are the one-hot code, and the softmax over a block is as without that.
    """

    def __init__(self, features: int, bits: int, *, block: int = BLOCK) -> None:
        super().__init__()
        self.block = block
        self.linear = nn.Linear(features, bits)

    def forward(self, features: Tensor) -> Tensor:
        blocks = self.linear(features).view(-1, self.linear.out_features // self.block, self.block)
        middle = blocks.topk(2, dim=2).values.mean(dim=2, keepdim=True)
        numbers: Tensor = (blocks - middle).flatten(1)
        return numbers


def head_of(recipe: TrainingRecipe) -> str:
    """How the bits are made: as the recipe says, else as its loss asks for. Raises ConfigError, UnknownName."""
    if recipe.head or recipe.task == "image-text":
        return recipe.head or "linear"
    with torch.random.fork_rng():  # this loss is only asked
        return build_loss(recipe.loss, dim=recipe.bits, classes=2).head


def build_head(kind: str, features: int, bits: int) -> nn.Module:
    """A layer from features to the numbers of bits."""
    kinds: dict[str, Callable[[int, int], nn.Module]] = {
        "linear": nn.Linear,
        "divide": DivideAndEncode,
        "blocks": BlockCode,
    }
    return kinds[kind](features, bits)


@torch.no_grad()
def start_codes(head: nn.Module, features: Tensor, labels: Tensor | None, *, seed: int) -> None:
    """Set a layer so that the signs of some pictures' features ``(n, features)`` are good codes before training.

    They start from ITQ, which keeps most of what the network knows, with every bit in balance, and have a mean square
    of 1; block codes from product quantisation. With labels ``(n,)`` both begin at the discriminants of the classes,
    not at the directions of most spread.
    """
    if isinstance(head, nn.Linear):
        _from_itq(head, features, labels, seed)
    elif isinstance(head, BlockCode):
        _from_codebooks(head, features, labels, seed)
    elif isinstance(head, DivideAndEncode):
        both = nn.Linear(features.shape[1], head.bits).to(features)
        _from_itq(both, features, labels, seed)
        head.start_at(both)


@torch.no_grad()
def finish_codes(
    head: nn.Linear | DivideAndEncode | BlockCode, features: Tensor, labels: Tensor, *, seed: int = 0
) -> None:
    """Set a layer so that its bits are the signs of the discriminants of features ``(n, f)`` with labels ``(n,)``.

    These are not turned by ITQ: each one's noise within a class has nothing to do with the others', which the signs of
    a mixture of them would lose. Block codes quantise the discriminants. The layer of classes that do not vary stays
    as it is.
    """
    if isinstance(head, BlockCode):
        _from_codebooks(head, features, labels, seed, shrinkage=AT_THE_END)
        return
    layer = head if isinstance(head, nn.Linear) else nn.Linear(features.shape[1], head.bits).to(features)
    known = set_at_discriminants(layer, features, labels, shrinkage=AT_THE_END, even=True)
    if known and isinstance(head, DivideAndEncode):
        head.start_at(layer)


def _from_itq(layer: nn.Linear, features: Tensor, labels: Tensor | None, seed: int) -> None:
    bits, mean = layer.out_features, features.mean(dim=0)
    try:
        chosen = None if labels is None else fisher_directions(features, labels, bits).to(features)
        shown = features - mean if chosen is None else (features - mean) @ chosen.T
        centred: FloatArray = shown.cpu().numpy()
        axes = torch.from_numpy(directions(centred, bits, "itq", seed=seed)).to(features)
        axes = axes if chosen is None else axes @ chosen
    except (ConfigError, ValueError) as error:  # few or like pictures: the random directions of the layer have to do
        _log.debug("The hash layer starts at random: %s", error)
        axes = layer.weight.detach().clone()
    numbers = (features - mean) @ axes.T
    layer.weight.copy_(axes / numbers.square().mean().sqrt().clamp_min(1e-6))
    layer.bias.copy_(-layer.weight @ mean)


def _from_codebooks(
    head: BlockCode, features: Tensor, labels: Tensor | None, seed: int, *, shrinkage: float = SHRINKAGE
) -> None:
    """Product quantisation (Jégou 2011): the bit of a block says which of its means is nearest in its own directions.

    ‖x - c‖² = ‖x‖² - 2 (c·x - ‖c‖² / 2), so the nearest mean c has the largest of as many linear numbers. The blocks
    take the directions, strongest first, in turn there and back.
    """
    layer, block = head.linear, head.block
    bits, mean = layer.out_features, features.mean(dim=0)
    try:
        if labels is None:
            centred: FloatArray = (features - mean).cpu().numpy()
            axes = torch.from_numpy(directions(centred, bits, "pca")).to(features)
        else:
            axes = fisher_directions(features, labels, bits, shrinkage=shrinkage).to(features)
        turns = torch.arange(bits).view(block, -1)
        turns[1::2] = turns[1::2].flip(1)
        books = [_means((features - mean) @ axes[of].T, block, seed) for of in turns.T]
    except (ConfigError, ValueError) as error:
        _log.debug("The layer of block codes stays as it is: %s", error)
        return
    centres = torch.stack(books)  # (blocks, block, block)
    squares = centres.square().sum(dim=2) / 2
    centres = centres - centres.mean(dim=1, keepdim=True)  # what all numbers of a block share changes nothing
    weight = torch.einsum("bkj,bjf->bkf", centres, axes[turns.T]).flatten(0, 1)
    bias = -(squares - squares.mean(dim=1, keepdim=True)).flatten() - weight @ mean
    scale = 1 / (features @ weight.T + bias).square().mean().sqrt().clamp_min(1e-6)
    layer.weight.copy_(scale * weight)
    layer.bias.copy_(scale * bias)


def _means(rows: Tensor, count: int, seed: int) -> Tensor:
    """The means ``(count, d)`` of clusters of rows ``(n, d)``. Raises ValueError where there are fewer."""
    places = torch.from_numpy(cluster(rows.cpu().numpy(), count, seed=seed)).to(rows.device)
    sizes = torch.bincount(places, minlength=count)
    if len(sizes) != count or not sizes.all():
        raise ValueError(f"{len(rows)} pictures make no {count} clusters")
    return torch.zeros(count, rows.shape[1], device=rows.device).index_add_(0, places, rows) / sizes[:, None]
