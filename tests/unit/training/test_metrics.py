"""Every figure beside an independent implementation of it: a library's, or a loop from the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import average_precision_score, normalized_mutual_info_score, roc_curve
from sklearn.metrics.cluster import pair_confusion_matrix

from embedkit.errors import BadInput
from embedkit.training.evaluation.clustering import cluster, normalized_mutual_information, pair_f1
from embedkit.training.evaluation.nearest import nearest, unit
from embedkit.training.evaluation.ranking import cross_camera_scores, random_gallery_scores
from embedkit.training.evaluation.retrieval import category_scores, retrieval_scores
from embedkit.training.evaluation.verification import (
    best_threshold,
    fold_accuracies,
    pair_scores,
    true_accepts_at,
)


def made(seed, count=240, classes=30, dim=16):
    """Vectors that lie by their classes, loosely; labels with gaps."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count) * 7 + 3
    centres = random.standard_normal((classes * 7 + 3, dim))
    return (centres[labels] + 1.5 * random.standard_normal((count, dim))).astype(np.float32), labels


def ranked(queries, gallery, row, *, alone):
    """The whole order of a row, from the definition: by cosine in double precision, then by index."""
    cosines = gallery.astype(np.float64) @ queries[row].astype(np.float64)
    cosines /= np.linalg.norm(gallery.astype(np.float64), axis=1)
    return [one for one in np.argsort(-cosines, kind="stable") if not (alone and one == row)]


@pytest.mark.parametrize("seed", range(3))
def test_recall_at_k_is_the_share_of_queries_with_a_hit(seed):
    vectors, labels = made(seed)
    values = retrieval_scores(vectors, labels).values
    for k in (1, 5, 10, 100):
        hits = [
            labels[row] in labels[ranked(vectors, vectors, row, alone=True)[:k]]
            for row in range(len(labels))
            if (labels == labels[row]).sum() > 1
        ]
        assert values[f"recall@{k}"] == pytest.approx(np.mean(hits))


@pytest.mark.parametrize("own_gallery", [True, False])
def test_precision_agrees_with_pytorch_metric_learning(own_gallery):
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    vectors, labels = made(4, 300)
    names = {"precision_at_1": "recall@1", "r_precision": "r-precision", "mean_average_precision_at_r": "map@r"}
    calculator = AccuracyCalculator(include=tuple(names), k="max_bin_count")
    if own_gallery:
        mine = retrieval_scores(vectors, labels)
        theirs = calculator.get_accuracy(torch.tensor(unit(vectors)), torch.tensor(labels))
    else:
        mine = retrieval_scores(vectors[:100], labels[:100], vectors[100:], labels[100:])
        stored = torch.tensor(unit(vectors[100:])), torch.tensor(labels[100:])
        theirs = calculator.get_accuracy(torch.tensor(unit(vectors[:100])), torch.tensor(labels[:100]), *stored)
    for name, own in names.items():
        assert mine.values[own] == pytest.approx(theirs[name], abs=1e-6)


def test_queries_with_nothing_to_find_are_left_out_and_counted():
    vectors = np.eye(4, dtype=np.float32)
    scores = retrieval_scores(vectors, np.array([0, 0, 1, 2]))
    assert (scores.queries, scores.unmatched, scores.primary, scores.greater_is_better) == (2, 2, "recall@1", True)
    assert retrieval_scores(vectors, np.arange(4)).values["recall@1"] == 0.0


@pytest.mark.parametrize(("count", "k"), [(60, 10), (3_000, 10), (3_000, 2_900), (3_000, 3_000)])
def test_neighbours_are_exact_and_ties_go_by_index_whatever_the_path(count, k):
    """Small whole numbers, so that scores are exact and ties are many; by FAISS, by the matrix, and whole."""
    vectors = np.random.default_rng(1).integers(-2, 3, (count, 6)).astype(np.float32)
    blocks = list(nearest(vectors, k=k))
    ids = np.concatenate([block.ids for block in blocks])
    assert ids.shape == (count, min(k, count - 1))
    for row in range(0, count, max(1, count // 40)):
        scores = vectors @ vectors[row]
        wanted = [one for one in np.argsort(-scores, kind="stable") if one != row][:k]
        assert ids[row].tolist() == wanted
        assert np.concatenate([block.scores for block in blocks])[row].tolist() == scores[wanted].tolist()


def test_a_model_that_collapsed_finds_by_index_and_soon():
    vectors, labels = np.ones((20_000, 64), np.float32), np.arange(20_000) // 2
    assert retrieval_scores(vectors, labels).values["recall@1"] == pytest.approx(2 / 20_000)


def test_a_gallery_is_searched_without_a_matrix_of_all_pairs():
    import tracemalloc

    vectors = np.random.default_rng(0).standard_normal((12_000, 8)).astype(np.float32)
    tracemalloc.start()
    retrieval_scores(vectors, np.arange(12_000) // 3, recalls=(1,))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6 < 4 * 12_000**2


def test_vectors_that_are_no_numbers_are_refused():
    with pytest.raises(BadInput, match="row 1 has values that are no numbers"):
        unit(np.array([[1, 2], [np.nan, 1]], np.float32))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 40), st.integers(1, 6))
def test_recall_grows_with_k_and_no_figure_depends_on_the_order_of_rows(seed, count, classes):
    random = np.random.default_rng(seed)
    vectors, labels = random.standard_normal((count, 5)).astype(np.float32), random.integers(0, classes, count)
    scores = retrieval_scores(vectors, labels)
    recalls = [value for name, value in scores.values.items() if name.startswith("recall")]
    assert recalls == sorted(recalls)
    assert all(0 <= value <= 1 for value in scores.values.values())
    assert scores.values["map@r"] <= scores.values["r-precision"] + 1e-9
    order = random.permutation(count)
    again = retrieval_scores(vectors[order], labels[order])
    assert again.values == pytest.approx(scores.values)


@pytest.mark.parametrize("seed", range(3))
def test_mean_average_precision_ignores_junk_and_agrees_with_scikit_learn(seed):
    vectors, labels = made(seed, 400, 12)
    random = np.random.default_rng(100 + seed)
    cameras = random.integers(1, 4, 400)
    labels = np.where(random.random(400) < 0.1, -1, np.where(random.random(400) < 0.1, 0, labels))
    asked = np.flatnonzero(labels[:60] > 0)
    q, g = vectors[asked], vectors[60:]
    mine = cross_camera_scores(q, labels[asked], cameras[asked], g, labels[60:], cameras[60:])
    precisions, first = [], []
    for row, place in enumerate(asked):
        same = labels[60:] == labels[place]
        kept = (labels[60:] != -1) & ~(same & (cameras[60:] == cameras[place]))
        if (same & kept).any():
            cosines = unit(g)[kept].astype(np.float64) @ unit(q)[row].astype(np.float64)
            precisions.append(average_precision_score(same[kept], cosines))
            first.append(int(np.flatnonzero(same[kept][np.argsort(-cosines, kind="stable")])[0]) + 1)
    assert mine.values["map"] == pytest.approx(np.mean(precisions))
    for k in (1, 5, 10):
        assert mine.values[f"cmc@{k}"] == pytest.approx(np.mean(np.array(first) <= k))
    assert mine.primary == "map"
    assert mine.unmatched == len(asked) - len(precisions)


def test_one_random_picture_of_each_vehicle_is_the_gallery():
    """A loop from the definition over many draws: the means come close, and a seed gives the same draws."""
    vectors, labels = made(5, 200, 20)
    mine = random_gallery_scores(vectors, labels, draws=100, seed=1).values
    assert mine == random_gallery_scores(vectors, labels, draws=100, seed=1).values
    random, found = np.random.default_rng(9), []
    for _ in range(100):
        chosen = np.array([random.choice(np.flatnonzero(labels == one)) for one in np.unique(labels)])
        rest = np.setdiff1d(np.arange(200), chosen)
        best = chosen[(unit(vectors)[rest] @ unit(vectors)[chosen].T).argmax(axis=1)]
        found.append((labels[best] == labels[rest]).mean())
    assert mine["recall@1"] == pytest.approx(np.mean(found), abs=4 * np.std(found) / np.sqrt(50))
    assert mine["recall@1-std"] == pytest.approx(np.std(found), rel=0.4)


@pytest.mark.parametrize("within", [True, False])
def test_top_k_accuracy_by_category_is_counted_query_by_query(within):
    vectors, labels = made(6, 300, 60)
    categories = labels % 3
    names = ("bags", "hats", "tops")
    q, g = slice(0, 80), slice(80, 300)
    mine = category_scores(
        vectors[q], labels[q], categories[q], vectors[g], labels[g], categories[g], names=names, within=within
    )
    hits = {k: {name: [] for name in names} for k in (1, 5)}
    for row in range(80):
        there = np.flatnonzero(categories[g] == categories[row]) if within else np.arange(220)
        if labels[row] not in labels[g][there]:
            continue
        order = there[ranked(vectors[q], vectors[g][there], row, alone=False)]
        for k, by_name in hits.items():
            by_name[names[categories[row]]].append(labels[row] in labels[g][order[:k]])
    for k, by_name in hits.items():
        assert mine.values[f"top-{k}"] == pytest.approx(np.mean([hit for part in by_name.values() for hit in part]))
        for name, part in by_name.items():
            assert mine.values[f"top-{k}:{name}"] == pytest.approx(np.mean(part))
    assert mine.queries == sum(map(len, hits[1].values()))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 8), st.integers(1, 8))
def test_mutual_information_and_f1_agree_with_scikit_learn(seed, count, classes, clusters):
    random = np.random.default_rng(seed)
    a, b = random.integers(-1, classes, count), random.integers(0, clusters, count)
    assert normalized_mutual_information(a, b) == pytest.approx(normalized_mutual_info_score(a, b), abs=1e-9)
    (_, only_b), (only_a, both) = pair_confusion_matrix(a, b)
    wanted = 2 * both / (2 * both + only_a + only_b) if both + only_a + only_b else 1.0
    assert pair_f1(a, b) == pytest.approx(wanted)


def test_clusters_are_as_tight_as_those_of_scikit_learn():
    vectors, _ = made(7, 1_500, 100)
    vectors = unit(vectors)

    def spread(places):
        return sum(
            ((vectors[places == one] - vectors[places == one].mean(axis=0)) ** 2).sum() for one in np.unique(places)
        )

    mine = cluster(vectors, 100, starts=3, seed=0)
    theirs = KMeans(100, n_init=3, random_state=0).fit(vectors).labels_
    assert len(np.unique(mine)) == 100
    assert spread(mine) < 1.02 * spread(theirs)
    assert np.array_equal(mine, cluster(vectors, 100, starts=3, seed=0))


def test_as_many_clusters_as_vectors_are_one_each():
    assert cluster(np.eye(3, dtype=np.float32), 3).tolist() == [0, 1, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 40))
def test_no_threshold_is_right_more_often_than_the_best(seed, count):
    random = np.random.default_rng(seed)
    scores, same = random.integers(0, 8, count).astype(np.float32), random.random(count) < 0.5
    best = best_threshold(scores, same)
    right = ((scores >= best) == same).sum()
    assert right == max(((scores >= cut) == same).sum() for cut in np.arange(-0.5, 9))


def test_accuracy_of_each_fold_is_by_the_threshold_of_the_others():
    random = np.random.default_rng(3)
    folds, same = np.repeat(np.arange(10), 60), np.tile(np.arange(60) < 30, 10)
    scores = (random.standard_normal(600) + 2.0 * same).astype(np.float32)
    found = []
    for fold in range(10):
        other = folds != fold
        cuts = np.sort(scores[other])
        best = cuts[int(np.argmax([((scores[other] >= cut) == same[other]).mean() for cut in cuts]))]
        found.append(((scores[~other] >= best) == same[~other]).mean())
    mine = fold_accuracies(scores, same, folds)
    assert np.abs(mine - np.array(found)).max() <= 1 / 60 + 1e-6
    assert np.abs(mine.mean() - np.mean(found)) < 0.004


def test_verification_reports_mean_and_standard_error():
    vectors = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [1, 1]], np.float32)
    first, second = np.array([0, 0, 2, 1, 0, 4]), np.array([1, 2, 3, 3, 4, 2])
    same, folds = np.array([True, False, True, False, True, False]), np.repeat([0, 1, 2], 2)
    scores = pair_scores(vectors, first, second, same, folds, rates=(0.5,))
    accuracies = np.array([1.0, 1.0, 0.5])
    assert scores.values["accuracy"] == pytest.approx(accuracies.mean())
    assert scores.values["accuracy-se"] == pytest.approx(accuracies.std(ddof=1) / np.sqrt(3))
    with pytest.raises(BadInput, match="two folds"):
        fold_accuracies(np.ones(2, np.float32), np.array([True, False]), np.zeros(2, np.int64))


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.01, 0.1, 1.0])
def test_true_accepts_are_the_highest_point_of_the_roc_curve_at_that_rate(rate):
    random = np.random.default_rng(8)
    same = random.random(3_000) < 0.5
    scores = np.round(random.standard_normal(3_000) + 1.5 * same, 2).astype(np.float32)
    false, true, _ = roc_curve(same, scores, drop_intermediate=False)
    assert true_accepts_at(scores, same, rate) == pytest.approx(true[false <= rate].max())
