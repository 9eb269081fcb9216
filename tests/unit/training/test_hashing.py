"""The figures of codes, held to a brute force over plain bits; and how ties go."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from embedkit.errors import BadInput
from embedkit.training.evaluation import hashing
from embedkit.training.evaluation.hashing import hashing_scores
from embedkit.training.evaluation.retrieval import retrieval_scores
from embedkit.training.plots.codes import draw_codes


def codes(count, bits, seed, classes=6, noise=0.2):
    """Labels, and a code of each class of which some bits are flipped."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    centres = rng.choice([-1.0, 1.0], (classes, bits))
    flips = np.where(rng.random((count, bits)) < noise, -1.0, 1.0)
    return (centres[labels] * flips).astype(np.float32), labels.astype(np.int64)


def by_hand(queries, labels, gallery, gallery_labels, *, alone, top):
    """One query after the other: distances by comparing bits, a sort by (distance, index)."""
    bits = queries.shape[1]
    precisions, p_at, p_radius, r_radius = [], [], [], []
    for row, (code, label) in enumerate(zip(queries, labels, strict=True)):
        others = [i for i in range(len(gallery)) if not (alone and i == row)]
        far = {i: int((gallery[i] != code).sum()) for i in others}
        order = sorted(others, key=lambda i: (far[i], i))
        right = [gallery_labels[i] == label for i in order]
        if not any(right):
            continue
        first = right[:top]
        precisions.append(
            np.mean([np.mean(first[: k + 1]) for k in range(len(first)) if first[k]]) if any(first) else 0.0
        )
        p_at.append(np.cumsum(right) / np.arange(1, len(right) + 1))
        within = [[gallery_labels[i] == label for i in others if far[i] <= radius] for radius in range(bits + 1)]
        p_radius.append([np.mean(one) if one else 0.0 for one in within])
        r_radius.append([sum(one) / sum(right) for one in within])
    return np.mean(precisions), np.mean(p_at, axis=0), np.mean(p_radius, axis=0), np.mean(r_radius, axis=0)


@pytest.mark.parametrize("bits", [16, 24, 48])
@pytest.mark.parametrize("alone", [True, False], ids=["among themselves", "in a gallery"])
@pytest.mark.parametrize("top", [5, 1_000])
def test_the_figures_are_those_of_a_brute_force(bits, alone, top, monkeypatch):
    monkeypatch.setattr(hashing, "_CELLS", 700)  # blocks of a few queries
    queries, labels = codes(60, bits, 1)
    labels[7] = 99  # alone in its class
    gallery, gallery_labels = (queries, labels) if alone else codes(90, bits, 1)
    given = () if alone else (gallery, gallery_labels)
    found = hashing_scores(queries, labels, *given, top=top)
    mean, p_at, p_radius, r_radius = by_hand(queries, labels, gallery, gallery_labels, alone=alone, top=top)
    assert found.values[f"map@{top}"] == pytest.approx(mean)
    assert found.values["precision@h2"] == pytest.approx(p_radius[2])
    assert found.values["recall@h2"] == pytest.approx(r_radius[2])
    assert found.curves.precision == pytest.approx(p_radius)
    assert found.curves.recall == pytest.approx(r_radius)
    assert found.curves.precision_at == pytest.approx(p_at[: len(found.curves.precision_at)])


def test_without_ties_the_mean_average_precision_is_that_of_scikit_learn():
    queries, labels = codes(1, 48, 3)
    gallery = np.repeat(queries, 40, axis=0)
    for row in range(40):
        gallery[row, :row] *= -1  # distance 0, 1, 2, …
    against = np.random.default_rng(4).integers(0, 2, 40) + labels[0]
    expected = average_precision_score(against == labels[0], -np.arange(40))
    assert hashing_scores(queries, labels, gallery, against).values["map@1000"] == pytest.approx(expected)


def test_equal_distances_go_by_index():
    query, gallery = np.ones((1, 16), np.float32), np.ones((3, 16), np.float32)
    gallery[1] *= -1
    labels = np.array([5])
    first = hashing_scores(query, labels, gallery, np.array([5, 1, 1])).values["map@1000"]
    last = hashing_scores(query, labels, gallery, np.array([1, 1, 5])).values["map@1000"]
    assert (first, last) == (1.0, 0.5)


@pytest.mark.parametrize("bits", [24, 48, 80])
def test_recall_of_codes_breaks_ties_by_index_whatever_their_length(bits):
    """Scaled to length 1, products of equal distance would differ in their last bit where √bits is no whole number."""
    queries, labels = codes(300, bits, 6, classes=40, noise=0.3)
    found = retrieval_scores(queries, labels).values["recall@1"]
    apart = (queries[:, None] != queries[None]).sum(axis=2)
    np.fill_diagonal(apart, bits + 1)
    assert found == pytest.approx(np.mean(labels[apart.argmin(axis=1)] == labels))


def test_the_perfect_code_finds_everything_and_one_code_for_all_finds_by_chance():
    labels = np.repeat(np.arange(4), 5)
    perfect = np.where(np.random.default_rng(0).random((4, 32)) > 0.5, 1, -1)[labels].astype(np.float32)
    assert set(hashing_scores(perfect, labels).values.values()) == {1.0}
    same = hashing_scores(np.ones((20, 32), np.float32), labels)
    assert same.values["precision@h2"] == pytest.approx(4 / 19)
    assert same.curves.recall[0] == 1


def test_what_is_no_code_is_refused():
    labels = np.arange(3)
    with pytest.raises(BadInput, match="numbers of ±1"):
        hashing_scores(np.full((3, 16), 0.5, np.float32), labels)
    with pytest.raises(BadInput, match="16 bits cannot be compared with codes of 24"):
        hashing_scores(np.ones((3, 16), np.float32), labels, np.ones((3, 24), np.float32), labels)


def test_both_curves_are_drawn_the_same_every_time(tmp_path):
    curves = hashing_scores(*codes(50, 16, 2)).curves
    for name in ("a.png", "b.png"):
        draw_codes(tmp_path / name, curves)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
