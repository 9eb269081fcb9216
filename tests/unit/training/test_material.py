"""What a recipe trains on, and how its batches are made where the data has few classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embedkit.errors import ConfigError
from embedkit.training.datasets.contract import Captions, Split
from embedkit.training.losses.build import build_loss
from embedkit.training.losses.joint import build_joint_loss
from embedkit.training.material import build_sampler, split_fingerprint
from embedkit.training.memory import CrossBatchMemory
from embedkit.training.recipe import TrainingRecipe


def split(*sizes, concepts=None):
    """Classes of so many pictures."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return Split(tuple(f"{row}.png" for row in range(len(labels))), labels, concepts=concepts)


def sampler_of(data, loss="nt-xent", **settings):
    recipe = TrainingRecipe(data="mine", loss=loss, **settings).checked()
    return build_sampler(recipe, build_loss(loss, dim=64, classes=len(np.unique(data.labels))), data)


@pytest.mark.parametrize("loss", ["hashnet", "csq", "npair"])
@pytest.mark.parametrize("sampler", ["balanced", "class"])
def test_few_classes_fill_a_batch_with_more_pictures_of_each(loss, sampler, caplog):
    settings = {} if loss == "npair" else {"bits": 64}
    found = sampler_of(split(*[500] * 10), loss, batch=128, sampler=sampler, **settings)
    assert (found.classes, found.per_class) == (10, 12)
    assert {len(batch) for batch in found} == {120}
    assert not caplog.text


def test_classes_enough_keep_what_the_loss_asks_for(caplog):
    assert sampler_of(split(*[500] * 10), "triplet", batch=40).per_class == 4
    assert sampler_of(split(*[500] * 10), "triplet", batch=43).per_class == 4
    assert not caplog.text


def test_a_batch_that_stays_small_is_told(caplog):
    """What a recipe says is kept, the pairs of N-pair are two, and pictures are not repeated to fill a batch."""
    for settings, size, words in (
        ({"per_class": 4}, 40, "10 classes, and per_class = 4 takes no more of each; leave it out"),
        ({"sampler": "pairs", "loss": "npair"}, 20, "sampler = 'pairs' takes two pictures of each; sampler = 'bal"),
        ({}, 60, "half of them have no more than 6 pictures"),
    ):
        caplog.clear()
        found = sampler_of(split(*[6] * 8, 90, 90), batch=128, **settings)
        assert found.classes * found.per_class == size
        assert f"A batch holds {size} pictures, not 128" in caplog.text
        assert words in caplog.text


def test_pictures_with_captions_of_their_own_are_drawn_once():
    recipe = TrainingRecipe(data="mine", task="image-text", loss="clip", batch=64).checked()
    found = build_sampler(recipe, build_joint_loss("clip", dim=16, classes=40), split(*[1] * 40))
    assert (found.classes, found.per_class) == (40, 1)


@pytest.mark.parametrize("loss", ["nt-xent", "batch-hard", "margin", "npair", "daml"])
def test_a_loss_over_pairs_needs_two_pictures_of_a_class(loss):
    with pytest.raises(ConfigError, match=f"'{loss}' learns from pictures of one class.*set per_class to 2 or more"):
        sampler_of(split(*[5] * 8), loss, per_class=1)


def test_one_picture_of_a_class_is_enough_for_class_vectors_a_memory_and_shared_concepts():
    data = split(*[5] * 8)
    assert sampler_of(data, "arcface", batch=8, per_class=1).per_class == 1
    recipe = TrainingRecipe(data="mine", loss="nt-xent", batch=8, per_class=1, memory=64).checked()
    memory = CrossBatchMemory(build_loss("nt-xent", dim=8), size=64, dim=8)
    assert build_sampler(recipe, memory, data).per_class == 1
    shared = split(*[5] * 8, concepts=np.ones((40, 3), np.bool_))
    assert sampler_of(shared, "nt-xent", batch=8, per_class=1).per_class == 1


def drawn(root="shop", **changes):
    """Two things of two pictures, each with a caption."""
    paths = tuple(f"{root}/{name}/{copy}.png" for name in ("cup", "hat") for copy in range(2))
    captions = Captions(("a cup", "a hat"), np.array([0, 1]))
    made = Split(paths, np.array([0, 0, 1, 1]), names=("cup", "hat"), captions=captions)
    return replace(made, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"paths": ("shop/cup/0.png", "shop/cup/2.png", "shop/hat/0.png", "shop/hat/1.png")},
        {"labels": np.array([0, 1, 1, 1])},
        {"names": ("bag", "hat")},
        {"captions": Captions(("a mug", "a hat"), np.array([0, 1]))},
        {"captions": Captions(("a cup", "a hat"), np.array([1, 0]))},
        {"captions": None},
        {"concepts": np.eye(4, 2, dtype=np.bool_)},
        {"boxes": np.ones((4, 4), np.int64)},
        {"domains": np.array([0, 1, 0, 1])},
    ],
    ids=[
        "a picture",
        "a label",
        "a class",
        "a caption",
        "whose captions",
        "no captions",
        "concepts",
        "boxes",
        "domains",
    ],
)
def test_the_fingerprint_of_a_split_tells_what_is_learned_from(changes):
    assert split_fingerprint(drawn(**changes)) != split_fingerprint(drawn())


def test_a_data_set_that_lies_elsewhere_has_the_same_fingerprint():
    assert (
        split_fingerprint(drawn("elsewhere/photos")) == split_fingerprint(drawn()) == split_fingerprint(drawn("C:\\x"))
    )
    odd = drawn(paths=("a\udcff.png",) * 4)  # a file name that is no UTF-8
    assert split_fingerprint(odd) != split_fingerprint(drawn())
