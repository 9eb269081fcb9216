"""Miners choose the pairs that their papers define."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from embedkit.training.miners import (
    BatchHard,
    DistanceWeighted,
    MultiSimilarity,
    SemiHard,
    build_miner,
    hard_classes,
    log_inverse_density,
    miner_names,
)
from embedkit.training.pairs import Bank, Batch, unit


def batch_of(rows, labels):
    return Batch.of(torch.tensor(rows, dtype=torch.float64), torch.tensor(labels))


def random_batch(n=64, dim=16, classes=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Batch.of(unit(torch.randn(n, dim, generator=generator)), torch.arange(n) % classes)


def triplets_of(miner, batch):
    chosen = miner.triplets(batch)
    return set(zip(chosen.anchor.tolist(), chosen.positive.tolist(), chosen.negative.tolist(), strict=True))


def test_on_a_line_the_semi_hard_negative_is_the_first_one_beyond_the_positive():
    batch = batch_of([[0.0], [1.0], [0.9], [1.05], [1.2]], [0, 0, 1, 2, 3])
    assert triplets_of(SemiHard(margin=0.2), batch) == {(0, 1, 3)}  # 1.05² lies within 1 + 0.2; from 1 all are nearer


def test_on_a_line_batch_hard_takes_the_farthest_positive_and_the_nearest_negative():
    batch = batch_of([[0.0], [1.0], [3.0], [3.5], [-2.0]], [0, 0, 0, 1, 2])
    assert triplets_of(BatchHard(), batch) == {(0, 2, 4), (1, 2, 3), (2, 0, 3)}


def test_the_multi_similarity_miner_keeps_what_violates_its_two_conditions():
    batch = random_batch(24, 4, 6)
    positive, negative = MultiSimilarity(0.1).masks(batch)
    s = batch.similarities().numpy()
    for a in range(24):
        p = [j for j in range(24) if j != a and j % 6 == a % 6]
        n = [j for j in range(24) if j % 6 != a % 6]
        assert set(positive[a].nonzero().flatten().tolist()) == {j for j in p if s[a, j] - 0.1 < max(s[a, n])}
        assert set(negative[a].nonzero().flatten().tolist()) == {j for j in n if s[a, j] + 0.1 > min(s[a, p])}
    assert 0 < negative.sum() < batch.negative.sum()


def test_the_density_of_distances_is_that_of_random_points_on_the_sphere():
    dim, rng = 8, np.random.default_rng(0)
    points = rng.normal(size=(2, 200_000, dim))
    points /= np.linalg.norm(points, axis=2, keepdims=True)
    counts, edges = np.histogram(np.linalg.norm(points[0] - points[1], axis=1), bins=20, range=(0.6, 1.8))
    middle = (edges[1:] + edges[:-1]) / 2
    q = np.exp(-log_inverse_density(torch.tensor(middle), dim).numpy())
    assert counts / counts.sum() == pytest.approx(q / q.sum(), rel=0.05, abs=1e-3)
    formula = middle ** (dim - 2) * (1 - middle**2 / 4) ** ((dim - 3) / 2)
    assert q == pytest.approx(formula)


def test_distance_weights_are_the_clipped_inverse_density_within_reach():
    batch, miner = random_batch(dim=16), DistanceWeighted(cutoff=0.8, reach=1.3)
    weights, apart = miner.weights(batch).double().numpy(), batch.distances().double().numpy()
    clipped = np.maximum(apart, 0.8)
    expected = 1 / (clipped**14 * (1 - clipped**2 / 4) ** 6.5)
    expected[(apart >= 1.3) | ~batch.negative.numpy()] = 0
    assert (expected.sum(1) > 0).all()
    assert weights == pytest.approx(expected / expected.sum(1, keepdims=True), rel=1e-3, abs=1e-6)


def test_distance_weights_do_not_overflow_in_many_dimensions():
    batch = random_batch(dim=2048)
    weights = DistanceWeighted(reach=2.0).weights(batch)
    assert weights.isfinite().all()
    assert weights.sum(1) == pytest.approx(torch.ones(64))


def test_negatives_are_drawn_as_often_as_their_weight_says():
    batch, miner = random_batch(6, 3, 3), DistanceWeighted(reach=2.0)
    weights, counts = miner.weights(batch), torch.zeros(6, 6)
    torch.manual_seed(0)
    for _ in range(1500):
        chosen = miner.triplets(batch)
        counts[chosen.anchor, chosen.negative] += 1
    assert (counts / 1500 - weights).abs().max() < 0.06


def test_an_anchor_whose_negatives_are_all_far_draws_the_nearest():
    batch = batch_of([[1.0, 0.0], [0.99, math.sqrt(1 - 0.99**2)], [-1.0, 0.0], [-0.9, -math.sqrt(0.19)]], [0, 0, 1, 2])
    assert triplets_of(DistanceWeighted(), batch) == {(0, 1, 3), (1, 0, 3)}


@pytest.mark.parametrize("name", miner_names())
def test_every_triplet_is_one_of_the_batch_and_a_bank_is_searched_too(name):
    batch, miner = random_batch(32, 8, 8), build_miner(name)
    far = random_batch(40, 8, 8, seed=1)
    both = Batch.of(batch.anchors, batch.labels, Bank(far.anchors, far.labels))
    seen = 0
    for one in (batch, both):
        chosen = miner.triplets(one)
        assert one.positive[chosen.anchor, chosen.positive].all()
        assert one.negative[chosen.anchor, chosen.negative].all()
        seen = int(chosen.positive.max())
    assert seen >= 32, "no positive came from the bank"


@pytest.mark.parametrize("name", miner_names())
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_a_batch_without_positives_or_negatives_gives_no_triplet(name, labels):
    batch = batch_of(np.eye(4), labels)
    assert len(build_miner(name).triplets(batch)) == 0


def test_hard_classes_are_found_greedily():
    rng = np.random.default_rng(0)
    groups = np.repeat(rng.normal(size=(6, 32)), 5, axis=0) * 3 + 0.1 * rng.normal(size=(30, 32))
    for seed in range(5):
        chosen = hard_classes(groups, count=5, seed=seed)
        assert len(set(chosen.tolist())) == 5
        assert len(set((chosen // 5).tolist())) == 1, "five classes of one tight group"


def test_distance_weights_do_not_depend_on_the_lengths_of_vectors():
    batch, miner = random_batch(), DistanceWeighted()
    lengths = torch.linspace(3, 30, 64)[:, None]
    longer = Batch.of(batch.anchors * lengths, batch.labels)
    assert torch.allclose(miner.weights(longer), miner.weights(batch), atol=1e-5)
