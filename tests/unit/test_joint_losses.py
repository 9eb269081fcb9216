"""Losses of pictures and texts, held to their papers' formulas in plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embedkit import plugins
from embedkit.errors import BadInput, ConfigError, UnknownName
from embedkit.training.losses.joint import build_joint_loss

LABELS = np.array([0, 1, 2, 3, 3])  # the last two belong together


@pytest.fixture
def batch():
    rng = np.random.default_rng(7)
    return rng.normal(size=(5, 6)).astype(np.float32), rng.normal(size=(5, 6)).astype(np.float32)


def value(loss, batch, labels=LABELS):
    pictures, texts = (torch.from_numpy(part) for part in batch)
    return float(loss(pictures, texts, torch.from_numpy(labels)).detach())


def cosines(batch):
    pictures, texts = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in batch)
    return (pictures @ texts.T).astype(np.float64)


def hinges(batch, margin=0.2):
    """All of eq. 5: for each pair its terms over the other texts, and over the other pictures."""
    s = cosines(batch)
    terms = []
    for i in range(5):
        others = [j for j in range(5) if LABELS[j] != LABELS[i]]
        terms.append(([max(0.0, margin + s[i, j] - s[i, i]) for j in others],
                      [max(0.0, margin + s[j, i] - s[i, i]) for j in others]))  # fmt: skip
    return terms


def test_vse_plus_plus_takes_the_hardest_of_the_batch_after_its_warm_start(batch):
    loss = build_joint_loss("vse++(warmup=1)", dim=6, classes=4)
    assert value(loss, batch) == pytest.approx(sum(sum(a) + sum(b) for a, b in hinges(batch)), rel=1e-5)
    hardest = sum(max(a) + max(b) for a, b in hinges(batch))
    assert value(loss, batch) == pytest.approx(hardest, rel=1e-5)
    assert value(build_joint_loss("vse++", dim=6, classes=4), batch) == pytest.approx(hardest, rel=1e-5)


def test_judging_does_not_count_as_a_batch_of_the_warm_start(batch):
    loss = build_joint_loss("vse++(warmup=1)", dim=6, classes=4).eval()
    assert value(loss, batch) == value(loss, batch)
    assert int(loss.batches) == 0


def test_clip_is_a_cross_entropy_both_ways(batch):
    logits = cosines(batch) / 0.07

    def one_way(matrix, labels):
        log_p = matrix - np.log(np.exp(matrix).sum(axis=1, keepdims=True))
        right = (labels[:, None] == labels).astype(float)
        return -(log_p * right / right.sum(axis=1, keepdims=True)).sum(axis=1).mean()

    for labels in (np.arange(5), LABELS):
        expected = (one_way(logits, labels) + one_way(logits.T, labels)) / 2
        assert value(build_joint_loss("clip", dim=6, classes=5), batch, labels) == pytest.approx(expected, rel=1e-5)


def test_the_scale_of_clip_learns_and_is_at_most_100(batch):
    loss = build_joint_loss("clip(temperature=0.01)", dim=6, classes=4)
    at_most = value(loss, batch)
    with torch.no_grad():
        loss.scale += 3
    assert value(loss, batch) == pytest.approx(at_most)
    loss = build_joint_loss("clip", dim=6, classes=4)
    loss(*(torch.from_numpy(part) for part in batch), torch.from_numpy(LABELS)).backward()
    assert loss.scale.grad != 0


def test_the_scale_of_clip_comes_back_from_100(batch):
    """Where a step took its logarithm above the limit, it is set back, and the slope there still moves it."""
    loss = build_joint_loss("clip", dim=6, classes=4)
    torch.nn.init.constant_(loss.scale, np.log(100) + 0.5)
    loss(*(torch.from_numpy(part) for part in batch), torch.from_numpy(LABELS)).backward()
    assert loss.scale.item() == pytest.approx(np.log(100))
    slope = 100 * (_slope(cosines(batch)) + _slope(cosines(batch).T)) / 2
    assert slope > 1, "what is at random wants a smaller scale"
    assert loss.scale.grad.item() == pytest.approx(slope, rel=1e-4)


def _slope(cosine):
    """d/ds of the cross-entropy of s · cosine at s = 100: the mean cosine by the softmax less that of the right."""
    shares = np.exp(100 * (cosine - cosine.max(axis=1, keepdims=True)))
    right = (LABELS[:, None] == LABELS).astype(float)
    shares, right = (part / part.sum(axis=1, keepdims=True) for part in (shares, right))
    return float((cosine * (shares - right)).sum(axis=1).mean())


def test_siglip_is_a_sigmoid_over_all_pairs(batch):
    z = np.where(LABELS[:, None] == LABELS, 1, -1)
    expected = np.log1p(np.exp(-z * (10 * cosines(batch) - 10))).sum() / 5
    assert value(build_joint_loss("siglip", dim=6, classes=4), batch) == pytest.approx(expected, rel=1e-5)


def test_the_instance_loss_has_one_classifier_for_both(batch):
    loss = build_joint_loss("instance(scale=16, ranking=0.5, margin=1)", dim=6, classes=4)
    weight = loss.weight.detach().numpy().astype(np.float64)
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    expected = 0.0
    for part in batch:
        logits = 16 * (part / np.linalg.norm(part, axis=1, keepdims=True)) @ weight.T
        expected -= (logits[range(5), LABELS] - np.log(np.exp(logits).sum(axis=1))).mean()
    terms = hinges(batch, margin=1.0)
    ranking = sum(sum(a) + sum(b) for a, b in terms) / sum(len(a) for a, _ in terms)
    assert value(loss, batch) == pytest.approx(expected + 0.5 * ranking, rel=1e-5)
    assert value(build_joint_loss("instance", dim=6, classes=4), batch) > 0


@pytest.mark.parametrize("name", plugins.names("joint_losses"))
def test_every_loss_draws_together_what_belongs_together(name):
    torch.manual_seed(0)
    pictures, texts = (torch.randn(8, 4, requires_grad=True) for _ in range(2))
    labels = torch.arange(8)
    loss = build_joint_loss(name, dim=4, classes=8)
    optimiser = torch.optim.Adam([pictures, texts, *loss.parameters()], lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        loss(pictures, texts, labels).backward()
        optimiser.step()
    unit = [torch.nn.functional.normalize(part, dim=1) for part in (pictures, texts)]
    assert (unit[0] @ unit[1].T).argmax(1).tolist() == labels.tolist()


def test_what_is_no_loss_or_no_batch_is_refused_in_a_sentence(batch):
    with pytest.raises(UnknownName, match=r"did you mean 'vse\+\+'"):
        build_joint_loss("vse+", dim=6, classes=4)
    with pytest.raises(ConfigError, match="must be told how many"):
        build_joint_loss("instance", dim=6, classes=0)
    with pytest.raises(BadInput, match="and n labels"):
        value(build_joint_loss("clip", dim=6, classes=4), (batch[0], batch[1][:4]))


def test_dcmh_is_a_likelihood_a_shared_code_and_even_bits(batch):
    """Eq. 1 of Jiang & Li 2017, on rows of length √bits; with sharp = bits / 2 and no boundary Θ is the ½ FᵀG there."""
    pictures, texts = (
        part / np.linalg.norm(part, axis=1, keepdims=True) * np.sqrt(6) for part in np.float64(np.stack(batch))
    )
    theta = pictures @ texts.T / 2
    same = LABELS[:, None] == LABELS[None, :]
    likelihood = same * theta - np.log1p(np.exp(theta))
    shared = np.sign(pictures + texts)
    expected = -2 * (0.5 * likelihood[same].mean() + 0.5 * likelihood[~same].mean())
    expected += 0.3 * (np.square(shared - pictures).mean() + np.square(shared - texts).mean())
    expected += 0.7 * (np.square(pictures.mean(axis=0)).mean() + np.square(texts.mean(axis=0)).mean())
    loss = build_joint_loss("dcmh(sharp=3, boundary=0, share=0.5, quantise=0.3, balance=0.7)", dim=6, classes=4)
    assert value(loss, batch) == pytest.approx(expected, rel=1e-5)
