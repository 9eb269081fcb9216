"""What a recipe trains on: the training pictures, those that are watched on the way, and those that judge."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from embedkit.encoders.fingerprint import fingerprint_of
from embedkit.encoders.samples import SamplePicture
from embedkit.errors import BadImage, BadSource, ConfigError
from embedkit.training.datasets.contract import PICTURE, SKETCH, DataSet, Split
from embedkit.training.datasets.open import open_dataset
from embedkit.training.datasets.pixels import picture_bytes
from embedkit.training.losses.contract import Loss, PairLoss
from embedkit.training.losses.daml import DAML
from embedkit.training.losses.joint import JointLoss
from embedkit.training.recipe import TrainingRecipe
from embedkit.training.samplers import BalancedSampler, ClassSampler, DomainSampler, PairSampler, Sampler, shared

if TYPE_CHECKING:
    from embedkit.training.datasets.contract import BoolArray
    from embedkit.types import IdArray

__all__ = ["Material", "build_sampler", "concepts_of_labels", "open_material", "sample_files", "split_fingerprint"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """`train` has dense labels. `watched` may choose the weights: None without a holdout. `test` only judges."""

    train: Split
    watched: DataSet | None
    test: DataSet

    @property
    def shown(self) -> DataSet:
        """What is judged after every epoch."""
        return self.watched or self.test


def open_material(recipe: TrainingRecipe) -> Material:
    """The data set, with a holdout cut off as the recipe says. Raises BadSource, UnknownName."""
    if not recipe.data:
        raise ConfigError("No data to train on; give the path of a data set, or of a table with path and label")
    plain = "captions" if recipe.task == "image-text" else "folder"
    data = open_dataset(recipe.data, name=recipe.data_name or None, plain=plain)
    _check(data.train, recipe.data, recipe.task)
    if not recipe.holdout:
        return Material(_dense(data.train), None, data)  # a class without a picture on disk leaves a gap
    train = data.train
    classes = np.unique(train.labels if train.domains is None else train.labels[shared(train.labels, train.domains)])
    held = np.random.default_rng(recipe.seed).permutation(classes)[: max(2, round(recipe.holdout * len(classes)))]
    mask = np.isin(train.labels, held)
    kept = _dense(train.take(~mask))
    _check(kept, f"{recipe.data} without its holdout", recipe.task)
    watched = _watched(f"{data.name} (holdout)", train.take(~mask), train.take(mask), recipe.task)
    return Material(kept, watched, data)


def _watched(name: str, train: Split, held: Split, task: str) -> DataSet:
    """Held-out classes search each other; their sketches search their pictures, where there are both."""
    if task == "image-text":
        return DataSet(name, "image-text", train, held)
    if held.domains is None:
        return DataSet(name, "zero-shot", train, held)
    return DataSet(name, "query-gallery", train, held.of_domain(SKETCH), held.of_domain(PICTURE))


def _check(train: Split, where: str, task: str) -> None:
    """Raises BadSource when nothing can be learned from it."""
    if not len(train):
        raise BadSource(f"{where} has no pictures to train on; see what belongs there with: embedkit datasets check")
    if task == "image-text" and train.captions is None:
        raise BadSource(
            f"{where} has no captions to learn from; give a table with path and caption, or name a data set "
            "that has some: see embedkit datasets list"
        )
    counts = np.unique(train.labels, return_counts=True)[1]
    if len(counts) < 2:
        raise BadSource(f"{where} has one class of {len(train):,} pictures; learning to tell apart needs two or more")
    if task != "image-text" and counts.max() < 2 and train.concepts is None:
        raise BadSource(
            f"{where} has one picture of each of its {len(counts):,} classes; learning what belongs together "
            "needs two or more of some"
        )


def _dense(split: Split) -> Split:
    known, labels = np.unique(split.labels, return_inverse=True)
    names = tuple(split.names[label] for label in known) if split.names is not None else None
    captions = split.captions
    if captions is not None:
        captions = replace(captions, labels=np.searchsorted(known, captions.labels).astype(np.int64))
    return replace(split, labels=labels.astype(np.int64), names=names, captions=captions)


def concepts_of_labels(split: Split) -> BoolArray | None:
    """``(classes, c)``: the concepts of every label of a split; None where a picture is one thing."""
    if split.concepts is None:
        return None
    found = np.zeros((int(split.labels.max()) + 1, split.concepts.shape[1]), np.bool_)
    found[split.labels] = split.concepts
    return found


def split_fingerprint(split: Split) -> str:
    """One hash over what is learned from: the names of pictures and classes, labels and what else goes into a batch.

    Of the paths their last parts alone, so that a data set may lie elsewhere. The pictures themselves are not read.
    """
    columns = {name: getattr(split, name) for name in ("labels", "boxes", "domains", "concepts")}
    texts: dict[str, Iterable[str]] = {"paths": (path.replace("\\", "/").rpartition("/")[2] for path in split.paths)}
    if split.names is not None:
        texts["names"] = split.names
    if split.captions is not None:
        texts["captions"], columns["of captions"] = split.captions.texts, split.captions.labels
    given = {name: column for name, column in columns.items() if column is not None}
    parts = ["\0".join(part).encode("utf-8", "surrogatepass") for part in texts.values()]
    return fingerprint_of(
        parts + [np.ascontiguousarray(column).tobytes() for column in given.values()],
        {"texts": list(texts), **{name: column.shape for name, column in given.items()}},
    )


def sample_files(split: Split, *, seed: int) -> Iterator[SamplePicture]:
    """The files of the pictures in random order; those that cannot be read are left out."""
    for row in np.random.default_rng(seed).permutation(len(split)):
        try:
            yield SamplePicture(split.paths[row], picture_bytes(split.paths[row]))
        except BadImage:
            continue


def build_sampler(
    recipe: TrainingRecipe, loss: Loss | JointLoss, split: Split, *, shard: int = 0, shards: int = 1
) -> Sampler:
    """Batches as the recipe and the loss want them, of fewer classes where the data has no more.

    Where these do not fill a batch each gives more pictures, unless the recipe says `per_class`. Pictures of several
    concepts are drawn as they are, one for one, unless the recipe says `per_class`: what a batch has in common are
    their concepts. Raises ConfigError when a batch is too small for the loss, or has nothing that belongs together.
    """
    labels, per_class = split.labels, 2 if recipe.sampler == "pairs" else recipe.per_class or loss.per_class
    if split.concepts is not None and not recipe.per_class and recipe.sampler == "balanced":
        labels, per_class = np.arange(len(split)), 1
    if recipe.per_class == 1 and split.concepts is None and not recipe.memory and isinstance(loss, PairLoss | DAML):
        raise ConfigError(
            f"The loss {recipe.loss!r} learns from pictures of one class, and with per_class = 1 a batch has no two; "
            f"set per_class to 2 or more, or leave it out for {loss.per_class}"
        )
    if recipe.sampler == "domains":
        return _domain_sampler(recipe, split, per_class + per_class % 2, shard, shards)
    if recipe.batch < 2 * per_class:
        raise ConfigError(
            f"The loss {recipe.loss!r} wants {per_class} pictures of a class and two classes or more, which a batch of "
            f"{recipe.batch} does not hold; set batch to at least {2 * per_class}, or per_class"
        )
    classes, per_class = _shape(recipe, labels, per_class, tell=shard == 0)
    if recipe.sampler == "pairs":
        return PairSampler(split.labels, classes=classes, seed=recipe.seed, shard=shard, shards=shards)
    kind = ClassSampler if recipe.sampler == "class" else BalancedSampler
    return kind(labels, classes=classes, per_class=per_class, seed=recipe.seed, shard=shard, shards=shards)


def _shape(recipe: TrainingRecipe, labels: IdArray, per_class: int, *, step: int = 1, tell: bool) -> tuple[int, int]:
    """Classes of a batch and pictures of each, at least `per_class` and a multiple of `step`.

    More than `per_class` where the classes run out, but no more than half of them have. `tell`: warn of a batch that
    is not full even so.
    """
    counts = np.unique(labels, return_counts=True)[1]
    classes = max(2, recipe.batch // per_class)
    if classes <= len(counts):
        return classes, per_class
    classes, has = len(counts), int(np.median(counts))
    if not recipe.per_class and recipe.sampler != "pairs":
        per_class = max(per_class, min(recipe.batch // classes, has) // step * step)
    if tell and classes * (per_class + step) <= recipe.batch:
        why = f"and half of them have no more than {has} pictures"
        if recipe.per_class:
            why = f"and per_class = {per_class} takes no more of each; leave it out"
        elif recipe.sampler == "pairs":
            why = "and sampler = 'pairs' takes two pictures of each; sampler = 'balanced' takes more"
        _log.warning(
            "A batch holds %d pictures, not %d: the data has %d classes, %s",
            classes * per_class,
            recipe.batch,
            classes,
            why,
        )
    return classes, per_class


def _domain_sampler(recipe: TrainingRecipe, split: Split, per_class: int, shard: int, shards: int) -> Sampler:
    """Sketches and pictures of every class. Raises ConfigError, BadSource when the data has not both."""
    if split.domains is None:
        raise ConfigError(
            "sampler = 'domains' needs data with sketches and pictures, which this is not; take sampler = 'balanced'"
        )
    labels = split.labels[shared(split.labels, split.domains)]
    there = len(np.unique(labels))
    if there < 2:
        raise BadSource(
            f"{recipe.data} has {there} classes with both a sketch and a picture; training needs two or more"
        )
    classes, per_class = _shape(recipe, labels, per_class, step=2, tell=shard == 0)
    return DomainSampler(
        split.labels,
        split.domains,
        classes=classes,
        per_class=per_class,
        seed=recipe.seed,
        shard=shard,
        shards=shards,
    )
