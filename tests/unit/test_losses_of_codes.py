"""Every loss of binary codes gives what its paper's formula gives, in plain NumPy, pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard

from embedkit.errors import ConfigError
from embedkit.training.losses.build import build_loss
from embedkit.training.losses.hash_centres import factored_codes, hadamard_codes
from embedkit.training.memory import CrossBatchMemory

RNG = np.random.default_rng(5)
LABELS = np.array([0, 2, 0, 1, 2, 1])
Z = RNG.normal(size=(6, 8))
SCALED = Z / np.linalg.norm(Z, axis=1, keepdims=True) * 8**0.5  # where a loss is defined on length √bits
PAIRS = [(i, j) for i in range(6) for j in range(6) if i != j]
SAME = [(i, j) for i, j in PAIRS if LABELS[i] == LABELS[j]]
OTHER = [(i, j) for i, j in PAIRS if LABELS[i] != LABELS[j]]


def made(spec):
    torch.manual_seed(0)
    return build_loss(spec, dim=8, classes=3).double().eval()


def value(loss):
    return loss(torch.tensor(Z), torch.tensor(LABELS)).item()


def close(result, expected):
    assert expected > 0
    assert result == pytest.approx(expected, rel=1e-6)


def means(cost, share=0.5):
    """2 (share · mean over similar pairs + the rest · mean over others): at ½ the weights of HashNet's eq. 2."""
    return 2 * (share * np.mean([cost(i, j) for i, j in SAME]) + (1 - share) * np.mean([cost(i, j) for i, j in OTHER]))


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def cross_entropy(logits):
    return np.mean([math.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, LABELS, strict=True)])


@pytest.mark.parametrize(("progress", "beta"), [(0.0, 1.0), (0.55, 10 ** (5 / 9)), (1.0, 10.0)])
def test_hashnet_is_cao_2017_eq_4_with_a_beta_that_follows_the_progress(progress, beta):
    loss = made("hashnet(sharp=10, beta=10, boundary=0, share=0.5)")
    loss.progress = progress
    h, alpha = np.tanh(beta * SCALED), 10 / 8

    def cost(i, j):
        product, s = alpha * h[i] @ h[j], float(LABELS[i] == LABELS[j])
        return math.log1p(math.exp(product)) - s * product

    weights = {True: len(PAIRS) / len(SAME), False: len(PAIRS) / len(OTHER)}
    expected = np.mean([weights[LABELS[i] == LABELS[j]] * cost(i, j) for i, j in PAIRS])
    close(value(loss), expected)


CONCEPTS = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]], bool)  # classes 0 and 1 share one, 2 stands alone


@pytest.mark.parametrize("memory", [False, True])
def test_pictures_that_share_a_concept_are_similar_as_in_hashnet_on_nus_wide(memory):
    loss = made("hashnet(sharp=10, boundary=0, share=0.5)")
    loss = CrossBatchMemory(loss, size=8, dim=8) if memory else loss
    loss.relate(torch.from_numpy(CONCEPTS))
    h, alpha = np.tanh(SCALED), 10 / 8
    of = CONCEPTS[LABELS]

    def cost(i, j):
        product = alpha * h[i] @ h[j]
        return math.log1p(math.exp(product)) - (of[i] & of[j]).any() * product

    shared = [pair for pair in PAIRS if (of[pair[0]] & of[pair[1]]).any()]
    apart = [pair for pair in PAIRS if pair not in shared]
    assert (len(shared), len(apart)) == (14, 16)
    close(value(loss), np.mean([cost(*pair) for pair in shared]) + np.mean([cost(*pair) for pair in apart]))
    assert "alike" not in "".join(loss.state_dict()), "a checkpoint finds it in the data again"


def test_a_boundary_moves_what_counts_as_similar():
    loss = made("hashnet(sharp=10, boundary=0.3, share=0.2)")
    h = np.tanh(SCALED)

    def cost(i, j):
        product = 10 * (h[i] @ h[j] / 8 - 0.3)
        return math.log1p(math.exp(-product if LABELS[i] == LABELS[j] else product))

    close(value(loss), means(cost, 0.2))


def test_dch_is_cao_2018_with_its_quantisation():
    """γ = 0.375 · 8 bits = 3."""
    h = np.tanh(SCALED)

    def cost(i, j):
        far = 4 * (1 - cosine(h[i], h[j]))
        s = float(LABELS[i] == LABELS[j])
        return s * math.log(far / 3) + math.log(1 + 3 / far)

    loose = [4 * (1 - cosine(np.abs(row), np.ones(8))) for row in h]
    expected = means(cost) + 0.5 * np.mean([math.log(1 + one / 3) for one in loose])
    close(value(made("dch(gamma=0.375, quantise=0.5, share=0.5)")), expected)


def test_dsh_is_liu_2016_for_each_bit():
    total = 0.0
    for i, j in PAIRS:
        apart = ((Z[i] - Z[j]) ** 2).sum()
        total += apart / 2 if LABELS[i] == LABELS[j] else max(2 * 8 - apart, 0) / 2
    regular = 0.3 * np.abs(np.abs(Z) - 1).sum()
    close(value(made("dsh(margin=2, alpha=0.3)")), (total + regular) / 6 / 8)


def test_dpsh_is_li_2016_where_the_boundary_is_0():
    """Θ = ½ zᵀz', which is `sharp` = bits / 2."""

    def cost(i, j):
        theta, s = SCALED[i] @ SCALED[j] / 2, float(LABELS[i] == LABELS[j])
        return -(s * theta - math.log1p(math.exp(theta)))

    loose = np.mean((np.sign(SCALED) - SCALED) ** 2)
    close(value(made("dpsh(sharp=4, boundary=0, share=0.5, quantise=0.2)")), means(cost) + 0.2 * loose)


@pytest.mark.parametrize("epsilon", [0.5, 0.1])
def test_dnnh_is_lai_2015_on_the_piecewise_threshold(epsilon):
    share = 1 / (1 + np.exp(-Z))
    h = np.where(np.abs(share - 0.5) <= epsilon, share, (share > 0.5).astype(float))
    costs = []
    for a, p in SAME:
        for n in range(6):
            if LABELS[n] != LABELS[a]:
                cost = 1 - ((h[a] - h[n]) ** 2).sum() + ((h[a] - h[p]) ** 2).sum()
                costs += [cost] if cost > 0 else []
    close(value(made(f"dnnh(margin=1, epsilon={epsilon})")), np.mean(costs))


def test_dlbhc_is_a_classifier_on_a_sigmoid_layer():
    loss = made("dlbhc")
    weight, bias = (part.detach().numpy() for part in (loss.weight, loss.bias))
    close(value(loss), cross_entropy(1 / (1 + np.exp(-Z)) @ weight.T + bias))


def test_greedyhash_sees_signs_and_learns_as_if_it_saw_the_numbers():
    loss = made("greedyhash(alpha=0.3)")
    weight = loss.weight.detach().numpy()
    close(value(loss), cross_entropy(np.sign(Z) @ weight.T) + 0.3 * np.mean(np.abs(np.abs(Z) - 1) ** 3))
    loss = made("greedyhash(alpha=0)")
    z = torch.tensor(Z, requires_grad=True)
    loss(z, torch.tensor(LABELS)).backward()
    logits = np.sign(Z) @ weight.T
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(z.grad.numpy(), (shares - np.eye(3)[LABELS]) @ weight / 6)


def test_subic_is_a_classifier_on_blocks_with_both_entropies():
    loss = made("subic(gamma=0.3, mu=0.7)")
    weight, block = loss.weight.detach().numpy(), loss.block
    assert block == 4
    blocks = np.exp(Z).reshape(len(Z), -1, block)
    shares = blocks / blocks.sum(2, keepdims=True)
    entropy = -(shares * np.log(shares)).sum(2).mean() / math.log(block)
    mean = shares.mean(0)
    evenness = -(mean * np.log(mean)).sum(1).mean() / math.log(block)
    expected = cross_entropy(shares.reshape(Z.shape) @ weight.T) + 0.3 * entropy - 0.7 * evenness
    close(value(loss), expected)


def test_csq_is_yuan_2020_central_similarity_and_quantisation():
    loss = made("csq(quantise=0.2)")
    centre = loss.centres.numpy()[LABELS]
    h, c = (np.tanh(Z) + 1) / 2, (centre + 1) / 2
    central = -np.mean(c * np.log(h) + (1 - c) * np.log(1 - h))
    close(value(loss), central + 0.2 * np.mean(np.log(np.cosh(np.abs(2 * h - 1) - 1))))


def test_dpn_is_fan_2020_polarisation():
    loss = made("dpn(margin=1)")
    close(value(loss), np.mean(np.maximum(1 - Z * loss.centres.numpy()[LABELS], 0)))


def test_orthohash_is_hoe_2021_a_margin_on_the_cosine_to_codes():
    loss = made("orthohash(m=0.2, s=5)")
    logits = np.array([[cosine(z, code) for code in loss.centres.numpy()] for z in Z])
    for row, label in enumerate(LABELS):
        logits[row, label] -= 0.2
    close(value(loss), cross_entropy(5 * logits))
    assert made("orthohash").scale == pytest.approx(math.sqrt(2) * math.log(2))


def test_cnnh_regresses_on_codes_whose_factorisation_its_first_stage_made_better():
    loss = made("cnnh")
    loss.start_at(torch.tensor(RNG.normal(size=(3, 8))))
    close(value(loss), np.mean((np.tanh(Z) - loss.centres.numpy()[LABELS]) ** 2))

    wanted = 2 * np.eye(20) - 1
    codes, errors = np.where(RNG.normal(size=(20, 16)) > 0, 1.0, -1.0), []
    for rounds in range(3):
        found = factored_codes(codes, rounds=rounds)
        assert set(np.unique(found)) == {-1.0, 1.0}
        errors.append(((wanted - found @ found.T / 16) ** 2).sum())
    assert errors[0] > errors[1] >= errors[2]


def test_hadamard_codes_are_half_the_bits_apart_and_go_to_the_class_they_suit():
    rows = hadamard(8)
    wanted = np.array([5, 1, 7])
    found = hadamard_codes(rows[wanted] + 0.3 * RNG.normal(size=(3, 8)))
    assert (found == rows[wanted]).all()
    many = hadamard_codes(RNG.normal(size=(16, 8)))
    assert len(np.unique(many, axis=0)) == 16
    assert set(np.unique(many @ many.T)) == {-8.0, 0.0, 8.0}


@pytest.mark.parametrize("name", ["csq", "dpn", "orthohash"])
def test_classes_get_hadamard_codes_where_there_are_enough_else_the_signs_of_their_means(name):
    means = torch.tensor(RNG.normal(size=(40, 16)))
    few, many = build_loss(name, dim=32, classes=40), build_loss(name, dim=16, classes=40)
    assert (few.codes, many.codes) == ("hadamard", "means")
    many.start_at(means)
    assert (many.centres == torch.where(means > means.mean(0), 1, -1)).all()
    with pytest.raises(ConfigError, match=r"codes of 16 bits for 40 classes.*take codes=means"):
        build_loss(f"{name}(codes=hadamard)", dim=16, classes=40)


@pytest.mark.parametrize("name", ["dlbhc", "greedyhash", "subic"])
def test_a_classifier_starts_where_it_knows_the_class_means(name):
    loss = build_loss(name, dim=16, classes=5).double()
    means = torch.tensor(RNG.normal(size=(5, 16)) * 2)
    loss.start_at(means)
    logits = loss.relaxed(means) @ loss.weight.T + loss.bias
    assert (logits.argmax(1) == torch.arange(5)).all()
