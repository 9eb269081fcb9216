"""Sketches and pictures in training: what a recipe makes of data that has both, and of data that has not."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from embedkit.errors import BadSource, ConfigError
from embedkit.training.datasets.contract import PICTURE, SKETCH, Split
from embedkit.training.losses.build import build_loss
from embedkit.training.material import build_sampler, open_material
from embedkit.training.recipe import TrainingRecipe
from tests.unit.training import trees


def split(sketches, pictures):
    """A class for each pair of numbers."""
    labels = np.concatenate([np.repeat(np.arange(len(part)), part) for part in (sketches, pictures)])
    domains = np.repeat([SKETCH, PICTURE], [sum(sketches), sum(pictures)])
    return Split(tuple(f"{row}.png" for row in range(len(labels))), labels.astype(np.int64), domains=domains)


def sampler_of(data, *, loss="nt-xent", **settings):
    recipe = TrainingRecipe(data="drawn.csv", sampler="domains", loss=loss, **settings)
    return build_sampler(recipe.checked(), build_loss(loss, dim=8, classes=9), data)


@pytest.mark.parametrize(
    ("loss", "of_each", "batch"),
    [("nt-xent", 1, 6), ("triplet", 2, 8), ("margin", 3, 12), ("arcface", 1, 6), ("arcface", 2, 17)],
)
def test_any_loss_gets_as_many_sketches_as_pictures_of_a_class(loss, of_each, batch):
    data = split([1, 4, 2], [3, 1, 5])
    sampler = sampler_of(data, loss=loss, batch=batch)
    for rows in sampler:
        shown = Counter(zip(data.labels[rows].tolist(), data.domains[rows].tolist(), strict=True))
        assert set(shown.values()) == {of_each}
        assert len(shown) == 2 * sampler.classes


def test_classes_without_a_sketch_are_not_counted_on():
    sampler = sampler_of(split([1, 0, 2, 0], [2, 5, 1, 5]), batch=64)
    assert sampler.classes == 2
    with pytest.raises(BadSource, match=r"drawn\.csv has 1 classes with both a sketch and a picture"):
        sampler_of(split([1, 0], [2, 5]))


def test_data_without_sketches_is_refused_with_the_sampler_to_take():
    data = Split(("a", "b", "c", "d"), np.array([0, 0, 1, 1]))
    with pytest.raises(ConfigError, match=r"needs data with sketches and pictures.*sampler = 'balanced'"):
        sampler_of(data)


def test_the_sketches_of_a_holdout_ask_for_its_pictures(tmp_path):
    trees.put(tmp_path, *(f"{kind}/{n}.png" for kind in ("sketch", "picture") for n in range(8)), "picture/alone.png")
    rows = [
        f"{kind}/{n}.png,{n},{'train' if n < 7 else 'test'},{kind}" for kind in ("sketch", "picture") for n in range(8)
    ]
    (tmp_path / "t.csv").write_text(
        "\n".join(["path,label,split,domain", *rows, "picture/alone.png,alone,train,picture"])
    )
    material = open_material(TrainingRecipe(data=str(tmp_path / "t.csv"), holdout=0.4))
    watched = material.watched
    assert watched.protocol == "query-gallery"
    assert len(watched.query) == len(watched.gallery) == 3
    assert (set(watched.query.domains), set(watched.gallery.domains)) == ({SKETCH}, {PICTURE})
    assert "alone" in material.train.names, "a class without a sketch cannot be asked for"
