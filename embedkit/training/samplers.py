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

__all__ = ["BalancedSampler", "ClassSampler", "DomainSampler", "PairSampler", "Position", "Sampler", "shared"]

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

    def _draw(self, rng: np.random.Generator, cls: int) -> Rows:
        """K images of a class, each as often as any other up to one."""
        return _drawn(rng, self._rows, int(self._starts[cls]), int(self._sizes[cls]), self.per_class)


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
        groups = self._count_groups()
        in_turns = -(-int(groups.sum()) // (classes * shards))
        self._batches = max(1, in_turns) * shards
        self._groups: Rows = np.minimum(groups, self._batches)

    def __len__(self) -> int:
        return self._batches // self.shards

    def _epoch(self, epoch: int) -> _Plan:
        rng = np.random.default_rng((self.seed, epoch))
        order = self._shuffle(rng)
        owner, number = self._numbered(self._deal(rng))
        rows = self._cut(order, owner, number)
        return _Dealt(self, rng.permutation(self._batches), owner, rows, (self.seed, epoch))

    def _numbered(self, classes: Rows) -> tuple[Rows, Rows]:
        """The groups of these classes in a row: whose each is, and which of its own."""
        counts = self._groups[classes]
        owner = np.repeat(classes, counts)
        return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)

    def _count_groups(self) -> Rows:
        """Into how many groups each class is cut."""
        return -(-self._sizes // self.per_class)

    def _shuffle(self, rng: np.random.Generator) -> Rows:
        """The rows class by class, shuffled within."""
        return np.lexsort((rng.random(len(self._labels)), self._labels))

    def _cut(self, order: Rows, owner: Rows, number: Rows) -> Rows:
        """The rows of groups ``(g, K)``, each the `number`-th of the class `owner`."""
        within = number[:, None] * self.per_class + np.arange(self.per_class)
        return order[self._starts[owner][:, None] + within % self._sizes[owner][:, None]]

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
            rows = np.concatenate([rows, *(sampler._draw(rng, cls)[None] for cls in fill)])
        return [int(row) for row in rows.flatten()]


class PairSampler(BalancedSampler):
    """Two images of each of `classes` classes, as the N-pair losses want them.

    With `mine(centres)` the classes of a batch are hard to tell apart (Sohn 2016, section 3.2.1): among ten times as
    many classes as a batch holds, taken in random order, each next one is the most similar to those before it. What is
    not taken waits for the next batches, so that an epoch shows as much as without; the paper draws anew each time.
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
        rng = np.random.default_rng((self.seed, epoch))
        order = self._shuffle(rng)
        owner, number = self._numbered(np.arange(len(self._sizes)))
        turn = np.argsort((number + rng.random(len(owner))) / self._groups[owner])  # those of a class far apart
        owner, rows = owner[turn], self._cut(order, owner, number)[turn]
        return _Mined(self, self._centres, owner, rows, (self.seed, epoch))


class _Mined(_Plan):
    """Batches of classes that are alike, each out of the first of those that still wait; group i is of ``owner[i]``.

    A batch depends on those before it, which are made first.
    """

    def __init__(
        self,
        sampler: PairSampler,
        centres: NDArray[np.floating],
        owner: Rows,
        rows: Rows,
        seed: tuple[int, int],
    ) -> None:
        self._sampler, self._centres, self._owner, self._rows, self._seed = sampler, centres, owner, rows, seed
        self._waiting = np.arange(len(owner))
        self._made: list[list[int]] = []

    def batch(self, number: int) -> list[int]:
        while len(self._made) <= number:
            self._made.append(self._next(len(self._made)))
        return self._made[number]

    def _next(self, number: int) -> list[int]:
        sampler = self._sampler
        rng = np.random.default_rng((*self._seed, number))
        pool, first = self._pool()
        chosen = np.empty(0, np.int64)
        if len(pool):
            count, seed = min(sampler.classes, len(pool)), int(rng.integers(2**31))
            chosen = hard_classes(self._centres[pool], count=count, seed=seed)
        taken = self._waiting[first[chosen]]
        self._waiting = np.delete(self._waiting, first[chosen])
        fill = _others(rng, len(sampler._sizes), sampler.classes - len(taken), set(self._owner[taken].tolist()))
        rows = np.concatenate([self._rows[taken].flatten(), *(sampler._draw(rng, cls) for cls in fill)])
        return [int(row) for row in rows]

    def _pool(self) -> tuple[Rows, Rows]:
        """The classes to choose from, and where the first group of each waits."""
        size = self._sampler.classes * self._sampler._POOL
        pool, first = np.unique(self._owner[self._waiting[:size]], return_index=True)
        while len(pool) < self._sampler.classes and size < len(self._waiting):
            size *= 2
            pool, first = np.unique(self._owner[self._waiting[:size]], return_index=True)
        return pool, first


class DomainSampler(BalancedSampler):
    """P classes × K images, equally many of each domain: sketches and pictures, which are to lie side by side.

    A batch has every class in all domains, so that any loss over pairs finds its positives across them, and negatives
    within and across. Shuffled and cut as in `BalancedSampler`, each domain for itself; the domain of a class that has
    fewer images repeats them. Classes that lack a domain are left out, see `shared`.
    """

    def __init__(
        self,
        labels: NDArray[np.int64] | list[int],
        domains: NDArray[np.int64] | list[int],
        *,
        classes: int,
        per_class: int = 2,
        seed: int = 0,
        shard: int = 0,
        shards: int = 1,
    ) -> None:
        labels, known = np.asarray(labels), np.unique(np.asarray(domains))
        if per_class % len(known):
            raise ConfigError(f"{per_class} images of a class cannot be equally many of each of {len(known)} domains")
        self._kept: Rows = np.flatnonzero(shared(labels, domains))
        self._domains: Rows = np.searchsorted(known, np.asarray(domains)[self._kept])
        self._share = per_class // len(known)
        super().__init__(
            labels[self._kept], classes=classes, per_class=per_class, seed=seed, shard=shard, shards=shards
        )
        self._rows = self._kept[np.lexsort((self._domains, self._labels))]

    def _count_groups(self) -> Rows:
        parts = self._labels * (int(self._domains.max()) + 1) + self._domains
        self._part_sizes: Rows = np.bincount(parts).reshape(len(self._sizes), -1)  # by class and domain
        self._part_starts: Rows = np.concatenate([[0], np.cumsum(self._part_sizes)[:-1]]).reshape(len(self._sizes), -1)
        groups: Rows = -(-self._part_sizes.max(axis=1) // self._share)
        return groups

    def _shuffle(self, rng: np.random.Generator) -> Rows:
        return np.lexsort((rng.random(len(self._labels)), self._domains, self._labels))

    def _cut(self, order: Rows, owner: Rows, number: Rows) -> Rows:
        within = (number[:, None] * self._share + np.arange(self._share))[:, None, :]
        places = self._part_starts[owner][:, :, None] + within % self._part_sizes[owner][:, :, None]
        rows: Rows = self._kept[order[places.reshape(len(owner), -1)]]
        return rows

    def _draw(self, rng: np.random.Generator, cls: int) -> Rows:
        parts = zip(self._part_starts[cls].tolist(), self._part_sizes[cls].tolist(), strict=True)
        return np.concatenate([_drawn(rng, self._rows, start, size, self._share) for start, size in parts])


def shared(labels: NDArray[np.int64] | list[int], domains: NDArray[np.int64] | list[int]) -> NDArray[np.bool_]:
    """Which images are of classes that have some in every domain, ``(n,)``.

    >>> shared([5, 5, 6], [0, 1, 0])
    array([ True,  True, False])
    """
    known, places = np.unique(np.asarray(domains), return_inverse=True)
    _, classes = np.unique(np.asarray(labels), return_inverse=True)
    there = np.zeros((int(classes.max(initial=-1)) + 1, len(known)), np.bool_)
    there[classes, places] = True
    mask: NDArray[np.bool_] = np.asarray(there.all(axis=1))[classes]
    return mask


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
        return [int(row) for cls in chosen for row in sampler._draw(rng, cls)]


def _drawn(rng: np.random.Generator, rows: Rows, start: int, size: int, wanted: int) -> Rows:
    """So many of the `size` rows from `start` on."""
    if size <= 4 * wanted:
        picked = np.concatenate([rng.permutation(size) for _ in range(-(-wanted // size))])[:wanted]
    else:
        picked = rng.choice(size, wanted, replace=False)
    drawn: Rows = rows[start + picked]
    return drawn


def _others(rng: np.random.Generator, count: int, wanted: int, taken: set[int]) -> list[int]:
    """Classes drawn at random that are not taken."""
    drawn: list[int] = []
    while len(drawn) < wanted:
        cls = int(rng.integers(count))
        if cls not in taken:
            taken.add(cls)
            drawn.append(cls)
    return drawn
