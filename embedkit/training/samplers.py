"""Which images make a batch. Every order follows from (labels, seed, epoch), in every process the same.

A sampler is a batch sampler of PyTorch: iterating gives lists of row numbers. Where it stands is a `Position`, which
the trainer counts: a loader reads ahead, so that the sampler cannot know what was used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import BadInput, ConfigError
from embedkit.training.miners import hard_classes

__all__ = ["BalancedSampler", "ClassSampler", "PairSampler", "Position", "Sampler"]

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Position:
    """The next batch to be used: `batch` counts from 0 within `epoch`."""

    epoch: int = 0
    batch: int = 0


class Sampler(ABC):
    """Batches of `classes` classes with `per_class` images each, for one of `shards` processes.

    Raises BadInput when there are fewer classes than a batch needs. Length and order are the same in every process;
    each takes every `shards`-th batch.
    """

    def __init__(
        self,
        labels: NDArray[np.int64] | list[int],
        *,
        classes: int,
        per_class: int,
        seed: int = 0,
        shard: int = 0,
        shards: int = 1,
    ) -> None:
        if classes < 1 or per_class < 1 or not 0 <= shard < shards:
            raise ConfigError(f"No batches of {classes} classes × {per_class} images for part {shard} of {shards}")
        names, self._labels = np.unique(np.asarray(labels), return_inverse=True)
        if len(names) < classes:
            raise BadInput(
                f"A batch of {classes} classes needs as many, but the data has {len(names)}; ask for fewer classes"
            )
        self.classes, self.per_class, self.seed, self.shard, self.shards = classes, per_class, seed, shard, shards
        self._rows: Rows = np.argsort(self._labels, kind="stable")  # the rows class by class,
        self._sizes: Rows = np.bincount(self._labels)  # how many each class has,
        self._starts: Rows = np.concatenate([[0], np.cumsum(self._sizes)[:-1]])  # and where it starts
        self._position = Position()

    @abstractmethod
    def __len__(self) -> int:
        """The batches of an epoch for one process."""

    @abstractmethod
    def _epoch(self, epoch: int) -> _Plan:
        """The epoch of all processes together."""

    def seek(self, position: Position) -> None:
        """Start the next iteration there."""
        self._position = position

    def position(self, steps: int) -> Position:
        """Where it stands after so many batches of this process since the start of training."""
        return Position(*divmod(steps, len(self)))

    def __iter__(self) -> Iterator[list[int]]:
        """The rest of the epoch; the next iteration starts the next one."""
        epoch, first = self._position.epoch, self._position.batch
        self._position = Position(epoch + 1)
        plan = self._epoch(epoch)
        for batch in range(first, len(self)):
            yield plan.batch(batch * self.shards + self.shard)


class _Plan(ABC):
    @abstractmethod
    def batch(self, number: int) -> list[int]:
        """The rows of a batch."""


class BalancedSampler(Sampler):
    """P classes × K images (PK), where an epoch shows every image about once.

    A class's images are shuffled and cut into groups of K, the last group filled up from the first ones; a class of
    fewer than K images repeats them. The groups are dealt out so that no batch holds a class twice, and places left
    over are filled with groups drawn again. A class with more groups than there are batches shows a different part of
    itself each epoch.
    """

    def __init__(
        self,
        labels: NDArray[np.int64] | list[int],
        *,
        classes: int,
        per_class: int,
        seed: int = 0,
        shard: int = 0,
        shards: int = 1,
    ) -> None:
        super().__init__(labels, classes=classes, per_class=per_class, seed=seed, shard=shard, shards=shards)
        groups = -(-self._sizes // per_class)
        in_turns = -(-int(groups.sum()) // (classes * shards))
        self._batches = max(1, in_turns) * shards
        self._groups: Rows = np.minimum(groups, self._batches)

    def __len__(self) -> int:
        return self._batches // self.shards

    def _epoch(self, epoch: int) -> _Plan:
        rng = np.random.default_rng((self.seed, epoch))
        order = np.lexsort((rng.random(len(self._labels)), self._labels))  # class by class, shuffled within
        ranks = self._deal(rng)
        owner = np.repeat(ranks, self._groups[ranks])
        number = np.arange(len(owner)) - np.repeat(
            np.cumsum(self._groups[ranks]) - self._groups[ranks], self._groups[ranks]
        )
        within = number[:, None] * self.per_class + np.arange(self.per_class)
        rows = order[self._starts[owner][:, None] + within % self._sizes[owner][:, None]]
        return _Dealt(self, rng.permutation(self._batches), owner, rows, (self.seed, epoch))

    def _deal(self, rng: np.random.Generator) -> Rows:
        """The order in which the classes are dealt out."""
        return rng.permutation(len(self._sizes))


class _Dealt(_Plan):
    """Group i lies in batch ``places[i % batches]``: the groups of a class, in a row, go to different batches."""

    def __init__(self, sampler: BalancedSampler, places: Rows, owner: Rows, rows: Rows, seed: tuple[int, int]) -> None:
        self._sampler, self._owner, self._rows, self._seed = sampler, owner, rows, seed
        self._first = np.argsort(places)

    def batch(self, number: int) -> list[int]:
        sampler = self._sampler
        mine = np.arange(self._first[number], len(self._owner), sampler._batches)
        rows = self._rows[mine]
        lacking = sampler.classes - len(mine)
        if lacking > 0:
            rng = np.random.default_rng((*self._seed, number))
            fill = _others(rng, len(sampler._sizes), lacking, set(self._owner[mine].tolist()))
            rows = np.concatenate([rows, *(_draw(rng, sampler, cls)[None] for cls in fill)])
        return [int(row) for row in rows.flatten()]


class PairSampler(BalancedSampler):
    """Two images of each of `classes` classes, as the N-pair losses want them.

    With `mine(centres)` the classes of a batch are hard to tell apart (Sohn 2016, section 3.2.1): among ten times as
    many classes as a batch holds, taken in random order, each next one is the most similar to those before it.
    """

    _POOL = 10

    def __init__(
        self, labels: NDArray[np.int64] | list[int], *, classes: int, seed: int = 0, shard: int = 0, shards: int = 1
    ) -> None:
        super().__init__(labels, classes=classes, per_class=2, seed=seed, shard=shard, shards=shards)
        self._centres: NDArray[np.floating] | None = None

    def mine(self, centres: NDArray[np.floating] | None) -> None:
        """Class means ``(classes, d)`` in the order of the sorted labels; None ends the mining."""
        if centres is not None and len(centres) != len(self._sizes):
            raise BadInput(f"There are {len(self._sizes)} classes, but {len(centres)} class means")
        self._centres = centres

    def _epoch(self, epoch: int) -> _Plan:
        if self._centres is None:
            return super()._epoch(epoch)
        return _Mined(self, self._centres, np.random.default_rng((self.seed, epoch)), (self.seed, epoch))


class _Mined(_Plan):
    """Batches of classes that are alike; every batch has its own pool out of one shuffle of the classes."""

    def __init__(
        self,
        sampler: PairSampler,
        centres: NDArray[np.floating],
        rng: np.random.Generator,
        seed: tuple[int, int],
    ) -> None:
        self._sampler, self._centres, self._seed = sampler, centres, seed
        self._order = rng.permutation(len(centres))

    def batch(self, number: int) -> list[int]:
        sampler, count = self._sampler, len(self._order)
        size = min(count, sampler.classes * sampler._POOL)
        pool = self._order[(number * sampler.classes + np.arange(size)) % count]
        rng = np.random.default_rng((*self._seed, number))
        chosen = pool[hard_classes(self._centres[pool], count=sampler.classes, seed=int(rng.integers(2**31)))]
        return [int(row) for cls in chosen for row in _draw(rng, sampler, int(cls))]


class ClassSampler(Sampler):
    """P classes × K images where an epoch shows every *class* about once: for catalogs of 100,000 classes and more.

    A class of a thousand images counts as much as one of two. The classes are shuffled once an epoch; the work of a
    batch does not grow with their number.
    """

    def __len__(self) -> int:
        return -(-len(self._sizes) // (self.classes * self.shards))

    def _epoch(self, epoch: int) -> _Plan:
        return _Shuffled(self, epoch)


class _Shuffled(_Plan):
    def __init__(self, sampler: ClassSampler, epoch: int) -> None:
        self._sampler, self._seed = sampler, (sampler.seed, epoch)
        self._order = np.random.default_rng(self._seed).permutation(len(sampler._sizes))

    def batch(self, number: int) -> list[int]:
        sampler, count = self._sampler, len(self._order)
        rng = np.random.default_rng((*self._seed, number))
        chosen = self._order[number * sampler.classes : (number + 1) * sampler.classes].tolist()
        chosen += _others(rng, count, sampler.classes - len(chosen), set(chosen))
        return [int(row) for cls in chosen for row in _draw(rng, sampler, cls)]


def _draw(rng: np.random.Generator, sampler: Sampler, cls: int) -> Rows:
    """K images of a class, each as often as any other up to one."""
    size, wanted = int(sampler._sizes[cls]), sampler.per_class
    if size <= 4 * wanted:
        picked = np.concatenate([rng.permutation(size) for _ in range(-(-wanted // size))])[:wanted]
    else:
        picked = rng.choice(size, wanted, replace=False)
    rows: Rows = sampler._rows[int(sampler._starts[cls]) + picked]
    return rows


def _others(rng: np.random.Generator, count: int, wanted: int, taken: set[int]) -> list[int]:
    """Classes drawn at random that are not taken."""
    drawn: list[int] = []
    while len(drawn) < wanted:
        cls = int(rng.integers(count))
        if cls not in taken:
            taken.add(cls)
            drawn.append(cls)
    return drawn
