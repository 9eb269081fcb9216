"""Batches are balanced, an epoch is complete, and the order follows from seed and epoch alone."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.errors import BadInput, ConfigError
from embedkit.training.samplers import BalancedSampler, ClassSampler, DomainSampler, PairSampler, Position

SHAPES = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.integers(1, 23), min_size=4, max_size=30),
        "classes": st.integers(1, 4),
        "per_class": st.integers(1, 5),
        "seed": st.integers(0, 3),
        "shards": st.integers(1, 3),
    }
)


def labels_of(sizes):
    """Labels with gaps, in mixed order."""
    labels = np.repeat(np.arange(len(sizes)) * 7 + 3, sizes)
    return np.random.default_rng(0).permutation(labels)


def made(shape, shard=0, *, kind=BalancedSampler, **changes):
    options = {name: shape[name] for name in ("classes", "per_class", "seed", "shards")} | changes
    if kind is PairSampler:
        del options["per_class"]
    return kind(labels_of(shape["sizes"]), shard=shard, **options)


@given(SHAPES, st.sampled_from([BalancedSampler, ClassSampler, PairSampler]))
@settings(max_examples=60, deadline=None)
def test_every_batch_has_exactly_so_many_classes_with_so_many_images(shape, kind):
    labels, sampler = labels_of(shape["sizes"]), made(shape, kind=kind)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    for rows in batches:
        per_class = Counter(labels[rows].tolist())
        assert len(per_class) == shape["classes"]
        assert set(per_class.values()) == {sampler.per_class}
        for label in per_class:
            shown = Counter(row for row in rows if labels[row] == label)
            size = int((labels == label).sum())
            assert len(shown) == min(size, sampler.per_class), "an image repeats only where its class is too small"
            assert max(shown.values()) - min(shown.values()) <= 1


@given(SHAPES)
@settings(max_examples=60, deadline=None)
def test_an_epoch_shows_every_image_about_once(shape):
    labels = labels_of(shape["sizes"])
    shards = [list(made(shape, shard)) for shard in range(shape["shards"])]
    shown = Counter(row for shard in shards for rows in shard for row in rows)
    batches, k = len(shards[0]) * shape["shards"], shape["per_class"]
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        assert sum(shown[row] > 0 for row in rows) >= min(len(rows), batches * k)
    groups = sum(-(-size // k) for size in shape["sizes"])
    assert batches == -(-groups // (shape["classes"] * shape["shards"])) * shape["shards"], "and no more than needed"


@given(SHAPES)
@settings(max_examples=40, deadline=None)
def test_shards_are_equally_long_parts_of_one_order(shape):
    whole = [None] * (len(made(shape)) * shape["shards"])
    for shard in range(shape["shards"]):
        whole[shard :: shape["shards"]] = list(made(shape, shard))
    assert None not in whole
    again = made(shape)
    plan = again._epoch(0)
    assert [plan.batch(number) for number in range(len(whole))] == whole


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_shards_are_disjoint_where_the_data_divides_evenly(classes, per_class, shards, batches, groups):
    names = classes * shards * batches
    shape = {"sizes": [per_class] * names, "classes": classes, "per_class": per_class, "seed": groups, "shards": shards}
    seen = [row for shard in range(shards) for rows in made(shape, shard) for row in rows]
    assert sorted(seen) == list(range(names * per_class))


@given(SHAPES, st.sampled_from([BalancedSampler, ClassSampler, PairSampler]), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_a_resumed_order_equals_the_unbroken_one(shape, kind, steps):
    unbroken = made(shape, kind=kind)
    order = [rows for _ in range(40 // len(unbroken) + 3) for rows in unbroken]
    resumed = made(shape, kind=kind)
    resumed.seek(resumed.position(steps))
    rest = [rows for _ in range(2) for rows in resumed]
    assert rest == order[steps : steps + len(rest)]


def test_another_epoch_or_seed_is_another_order_and_the_same_is_the_same():
    labels = labels_of([4] * 50)
    first = BalancedSampler(labels, classes=5, per_class=4, seed=1)
    one, two = list(first), list(first)
    assert one != two
    assert one == list(BalancedSampler(labels, classes=5, per_class=4, seed=1))
    assert one != list(BalancedSampler(labels, classes=5, per_class=4, seed=2))
    first.seek(Position(epoch=1))
    assert list(first) == two


def test_a_class_with_more_images_than_batches_shows_another_part_each_epoch():
    labels = np.array([0] * 300 + [1, 2, 3] * 4)
    sampler = BalancedSampler(labels, classes=4, per_class=2)
    parts = [{row for rows in sampler for row in rows if row < 300} for _ in range(3)]
    assert all(len(part) == 2 * len(sampler) for part in parts)
    assert len(set.union(*parts)) > 2 * 2 * len(sampler)


def test_the_images_of_a_class_meet_different_partners_each_epoch():
    sampler = BalancedSampler(np.repeat(np.arange(8), 10), classes=4, per_class=2)
    partners = {frozenset(rows[i : i + 2]) for _ in range(6) for rows in sampler for i in range(0, 8, 2)}
    assert len(partners) > 150


def test_one_image_classes_stand_with_themselves():
    sampler = PairSampler([5, 6, 7], classes=3)
    (rows,) = list(sampler)
    assert sorted(rows) == [0, 0, 1, 1, 2, 2]


def test_a_class_sampler_shows_small_and_large_classes_alike():
    labels = np.array([0] * 5000 + [1, 1, 2, 2, 3, 3])
    sampler = ClassSampler(labels, classes=2, per_class=2)
    shown = Counter(int(labels[row]) for _ in range(5) for rows in sampler for row in rows)
    assert shown == {0: 10, 1: 10, 2: 10, 3: 10}


def test_a_batch_of_a_class_sampler_does_not_cost_more_with_many_classes():
    def per_batch(classes):
        sampler = ClassSampler(np.repeat(np.arange(classes), 3), classes=32, per_class=4)
        plan = sampler._epoch(0)
        start = time.process_time()
        for number in range(60):
            plan.batch(number)
        return time.process_time() - start

    small = min(per_batch(2_000) for _ in range(3))
    assert min(per_batch(200_000) for _ in range(3)) < 3 * small


def test_mined_batches_hold_classes_that_are_alike():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(120), 3)
    centres = np.repeat(rng.normal(size=(4, 16)), 30, axis=0) * 2 + 0.2 * rng.normal(size=(120, 16))
    sampler = PairSampler(labels, classes=6)
    kinds = [len({int(labels[row]) // 30 for row in rows}) for rows in sampler]
    sampler.mine(centres)
    mined = list(sampler)
    assert all(len(set(labels[rows].tolist())) == 6 for rows in mined)
    assert np.mean([len({int(labels[row]) // 30 for row in rows}) for rows in mined]) < 1.3
    assert np.mean(kinds) > 2.5
    again = PairSampler(labels, classes=6)
    again.mine(centres)
    again.seek(Position(1, 3))
    assert list(again) == mined[3:]


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("sizes", [[3] * 60, [1, 2, 9, 4] * 15, [40, *[1] * 30]], ids=["equal", "mixed", "one large"])
def test_an_epoch_of_mined_batches_leaves_out_no_class_and_hardly_a_picture(sizes, shards):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centres = np.random.default_rng(1).normal(size=(len(sizes), 4))
    centres[:20] = centres[0] + 0.1 * centres[:20]  # a thicket, which is drawn from again and again if it may be
    samplers = [PairSampler(labels, classes=5, shard=shard, shards=shards) for shard in range(shards)]
    for sampler in samplers:
        sampler.mine(centres)
        sampler.seek(Position(1))
    batches = [rows for sampler in samplers for rows in sampler]
    assert all(len(set(labels[rows].tolist())) == 5 for rows in batches)
    seen = np.bincount([row for rows in batches for row in rows], minlength=len(labels))
    shown = np.bincount(labels, weights=seen > 0)
    assert (shown > 0).all()
    assert shown.sum() > 0.9 * np.minimum(sizes, 2 * len(batches)).sum()


DRAWN = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9)), min_size=3, max_size=12).filter(
    lambda sizes: sum(a > 0 and b > 0 for a, b in sizes) >= 2
)


def drawn(sizes):
    """Classes of so many pictures and sketches, in mixed order: (labels, domains)."""
    labels = np.repeat(np.arange(len(sizes)) * 5 + 2, [a + b for a, b in sizes])
    domains = np.concatenate([[0] * a + [1] * b for a, b in sizes]).astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    return labels[order], domains[order]


@given(DRAWN, st.sampled_from([2, 4, 6]), st.integers(1, 2), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_each_class_of_a_batch_has_as_many_sketches_as_pictures(sizes, per_class, shards, seed):
    labels, domains = drawn(sizes)
    for shard in range(shards):
        sampler = DomainSampler(labels, domains, classes=2, per_class=per_class, seed=seed, shard=shard, shards=shards)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        for rows in batches:
            shown = Counter((int(labels[row]), int(domains[row])) for row in rows)
            assert len(shown) == 4, "two classes, each in both domains"
            assert set(shown.values()) == {per_class // 2}


@given(DRAWN, st.sampled_from([2, 4]), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_an_epoch_of_domains_shows_all_of_both_and_nothing_of_classes_that_lack_one(sizes, per_class, seed):
    labels, domains = drawn(sizes)
    sampler = DomainSampler(labels, domains, classes=2, per_class=per_class, seed=seed)
    batches = list(sampler)
    shown = {row for rows in batches for row in rows}
    for label, (pictures, sketches) in zip(np.arange(len(sizes)) * 5 + 2, sizes, strict=True):
        for domain, size in enumerate((pictures, sketches)):
            rows = set(np.flatnonzero((labels == label) & (domains == domain)).tolist())
            wanted = min(size, len(sampler) * per_class // 2) if pictures and sketches else 0
            assert len(rows & shown) >= wanted
            assert wanted or not rows & shown
    again = DomainSampler(labels, domains, classes=2, per_class=per_class, seed=seed)
    again.seek(again.position(len(sampler) - 1))
    assert next(iter(again)) == batches[-1]


def test_domains_that_cannot_be_equally_many_are_refused():
    with pytest.raises(ConfigError, match="3 images of a class cannot be equally many of each of 2 domains"):
        DomainSampler([0, 0, 1, 1], [0, 1, 0, 1], classes=2, per_class=3)


def test_too_few_classes_and_impossible_shapes_are_refused():
    with pytest.raises(BadInput, match="needs as many, but the data has 2"):
        BalancedSampler([0, 0, 1], classes=3, per_class=2)
    with pytest.raises(ConfigError, match="part 2 of 2"):
        ClassSampler([0, 1], classes=1, per_class=1, shard=2, shards=2)
    with pytest.raises(BadInput, match="2 classes, but 3 class means"):
        PairSampler([0, 1], classes=2).mine(np.eye(3))
