"""An answer is right if it is as near as the k-th nearest: by its distance, and by nothing that a search says of it."""

from __future__ import annotations

import numpy as np
import pytest

from embedkit.codes import hamming, signs
from embedkit.search.truth import Truth, neighbours
from tests.vectors import clustered

K = 10


def truth_of(vectors, metric, *, asked=50, pages=3):
    """Of the first rows among all, and a list of the ids that were looked up beyond the pages."""
    looked_up = []

    def rows(ids):
        looked_up.append(ids)
        return ids, vectors[ids]

    every = np.array_split(np.random.default_rng(0).permutation(len(vectors)), pages)
    truth = Truth(vectors[:asked], metric, K, rows, every, np.arange(asked))
    del looked_up[:]
    return truth, looked_up


def by_distance(vectors, metric, asked=50):
    """The score of every row for each query in float64, that of the query itself left out."""
    wide = vectors.astype(np.float64)
    scores = wide[:asked] @ wide.T
    if metric == "l2":
        scores = -np.square(wide[:asked, None] - wide[None]).sum(axis=2)
    scores[np.arange(asked), np.arange(asked)] = -np.inf
    return scores


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("far", [0, 100])
def test_what_is_farther_never_counts(metric, far):
    vectors = clustered(400, dim=24)
    if metric != "cosine":
        vectors = vectors * np.linspace(0.5, 2, 400, dtype=np.float32)[:, None] + np.float32(far)
    truth, _ = truth_of(vectors, metric)
    order = np.argsort(-by_distance(vectors, metric), axis=1)
    assert truth.share(order[:, :K]) == 1
    assert truth.share(order[:, 3 : 3 + K]) == 0.7, "the three behind the k-th are looked up, and are farther"
    assert truth.share(order[:, K : 2 * K]) == 0
    assert truth.share(np.full((50, K), -1)) == 0
    assert truth.share(np.repeat(order[:, :1], K, axis=1)) == 0.1, "one row counts once"


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_of_equal_rows_each_counts(metric):
    vectors = np.tile(clustered(120, dim=24), (4, 1))
    truth, looked_up = truth_of(vectors, metric)
    scores = by_distance(vectors, metric)
    upwards = np.argsort(-scores.round(9), axis=1, kind="stable")
    downwards = 479 - np.argsort(-scores[:, ::-1].round(9), axis=1, kind="stable")
    assert (upwards[:, :K] != downwards[:, :K]).any()
    assert truth.share(upwards[:, :K]) == truth.share(downwards[:, :K]) == 1
    assert sum(map(len, looked_up)) <= 2 * 50 * K
    del looked_up[:]
    assert truth.share(downwards[:, :K]) == 1
    assert not looked_up, "what is known is not looked up again"


def test_the_rounding_of_a_float_makes_no_miss_and_more_than_that_does():
    rng = np.random.default_rng(1)
    query = rng.standard_normal(2_048)
    query = (query / np.linalg.norm(query)).astype(np.float32)
    away = rng.standard_normal(2_048)
    away -= query * (query @ away)
    away /= np.linalg.norm(away)
    cosines = np.concatenate([np.full(K, 0.9), [0.9 - 1e-6, 0.9 - 1e-4]])[:, None]
    vectors = np.concatenate([query[None], cosines * query + np.sqrt(1 - cosines**2) * away]).astype(np.float32)
    truth, _ = truth_of(vectors, "cosine", asked=1, pages=1)
    assert truth.share(np.array([[*range(1, K), K + 1]])) == 1
    assert truth.share(np.array([[*range(1, K), K + 2]])) == 0.9


def test_codes_are_near_by_their_bits():
    codes = np.random.default_rng(2).integers(0, 256, (600, 4), np.uint8)
    truth, _ = truth_of(signs(codes, 32), "hamming")
    bits = hamming(codes[:50], codes)
    bits[np.arange(50), np.arange(50)] = 99
    order = 599 - np.argsort(bits[:, ::-1], axis=1, kind="stable")
    assert truth.share(order[:, :K]) == 1
    kth = np.sort(bits, axis=1)[:, K - 1 : K]
    others = order[:, 5 : 5 + K]
    assert truth.share(others) == (np.take_along_axis(bits, others, 1) <= kth).mean()


def test_a_row_that_is_gone_meanwhile_is_not_found():
    vectors, gone = np.tile(clustered(50, dim=8), (2, 1)), set()

    def rows(ids):
        there = np.array([one for one in ids.tolist() if one not in gone], np.int64)
        return there, vectors[there]

    found = np.argsort(-by_distance(vectors, "cosine", 1).round(9), axis=1, kind="stable")[:, 1 : 1 + K]
    last = [Truth(vectors[:1], "cosine", K, rows, [np.arange(100)], np.arange(1)) for _ in range(2)]
    assert last[0].share(found) == 1, "the tenth and the eleventh are twins"
    gone.update(found[0, -2:].tolist())
    assert last[1].share(found) == 0.9


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_neighbours_are_all_that_share_the_last_place(metric):
    vectors = np.tile(clustered(120, dim=24), (4, 1))
    scores = by_distance(vectors, metric).round(6)
    found = neighbours(vectors, np.arange(50), K, metric=metric)
    assert [len(rows) for rows in found] == [11] * 50, "three twins, and two more rows of four"
    for rows, one in zip(found, scores, strict=True):
        assert rows.tolist() == np.flatnonzero(one >= np.sort(one)[-K]).tolist()
