"""Every loss over pairs gives what its paper's formula gives, written out pair by pair in plain NumPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from embedkit.training.losses.build import build_loss
from embedkit.training.miners import SemiHard
from embedkit.training.pairs import Bank

LABELS = np.array([0, 1, 0, 2, 1, 0, 2, 3])  # three of one class, two of two, one alone
RAW = np.random.default_rng(5).normal(size=(8, 5))
UNIT = RAW / np.linalg.norm(RAW, axis=1, keepdims=True)
POSITIVES = [(i, j) for i, j in itertools.permutations(range(8), 2) if LABELS[i] == LABELS[j]]
NEGATIVES = [(i, j) for i, j in itertools.permutations(range(8), 2) if LABELS[i] != LABELS[j]]


def value(spec, *, classes=0, embeddings=RAW, labels=LABELS, miner=""):
    loss = build_loss(spec, dim=embeddings.shape[1], classes=classes, miner=miner).double().eval()
    return loss(torch.tensor(embeddings), torch.tensor(labels)).item()


def far(x, i, j):
    return float(np.sqrt(((x[i] - x[j]) ** 2).sum()))


def others(i, *, x=UNIT):
    return [n for n in range(8) if LABELS[n] != LABELS[i]]


def close(result, expected):
    assert expected > 0
    assert result == pytest.approx(expected, abs=1e-5, rel=1e-6)


def test_contrastive_is_hadsell_2006_eq_3_and_4():
    near = [0.5 * far(UNIT, i, j) ** 2 for i, j in POSITIVES]
    push = [0.5 * max(0.0, 1.3 - far(UNIT, i, j)) ** 2 for i, j in NEGATIVES]
    assert 0 < np.count_nonzero(push) < len(push)
    close(value("contrastive(margin=1.3)"), (np.sum(near) + np.sum(push)) / 8)


def test_triplet_is_wang_2014_eq_3_on_squared_distances():
    costs = [max(0.0, 0.2 + far(UNIT, a, p) ** 2 - far(UNIT, a, n) ** 2) for a, p in POSITIVES for n in others(a)]
    active = [cost for cost in costs if cost > 0]
    assert 0 < len(active) < len(costs)
    close(value("triplet"), np.mean(active))


def test_semi_hard_takes_the_nearest_negative_between_the_positive_and_the_margin():
    margin, costs = 0.3, []
    for a, p in POSITIVES:
        between = [
            far(UNIT, a, n) ** 2
            for n in others(a)
            if far(UNIT, a, p) ** 2 < far(UNIT, a, n) ** 2 < far(UNIT, a, p) ** 2 + margin
        ]
        if between:
            costs.append(margin + far(UNIT, a, p) ** 2 - min(between))
    assert 0 < len(costs) < len(POSITIVES)
    close(value(f"semi-hard(margin={margin})"), np.mean(costs))
    assert value(f"triplet(margin={margin})", miner=f"semi-hard(margin={margin})") == pytest.approx(np.mean(costs))
    assert SemiHard().margin == 0.2


@pytest.mark.parametrize(("spec", "x"), [("batch-hard", RAW), ("batch-hard(margin=0.4, normalise=yes)", UNIT)])
def test_batch_hard_is_hermans_2017_eq_5_with_soft_and_hard_margin(spec, x):
    costs = []
    for a in sorted({a for a, _ in POSITIVES}):
        gap = max(far(x, a, p) for i, p in POSITIVES if i == a) - min(far(x, a, n) for n in others(a))
        costs.append(math.log1p(math.exp(gap)) if spec == "batch-hard" else max(0.0, 0.4 + gap))
    close(value(spec), np.mean(costs))


@pytest.mark.parametrize(
    ("spec", "x"), [("lifted", 8 * UNIT), ("lifted(scale=1)", UNIT), ("lifted(scale=1, normalise=no)", RAW)]
)
def test_lifted_structure_is_song_2016_eq_4(spec, x):
    costs = []
    for i, j in POSITIVES:
        inner = sum(math.exp(1 - far(x, i, k)) for k in others(i))
        inner += sum(math.exp(1 - far(x, j, k)) for k in others(j))
        costs.append(max(0.0, math.log(inner) + far(x, i, j)) ** 2)
    close(value(spec), np.sum(costs) / (2 * len(POSITIVES)))


def test_lifted_structure_takes_the_negatives_that_a_miner_chooses_for_both_of_a_pair():
    x, costs = 8 * UNIT, []
    for i, j in POSITIVES:
        if far(x, i, j) == max(far(x, i, p) for a, p in POSITIVES if a == i):
            nearest = [min(far(x, one, n) for n in others(one)) for one in (i, j)]
            costs.append(max(0.0, math.log(sum(math.exp(1 - d) for d in nearest)) + far(x, i, j)) ** 2)
    assert 0 < len(costs) < len(POSITIVES)
    close(value("lifted", miner="batch-hard"), np.sum(costs) / (2 * len(costs)))


CONCEPTS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]], bool)  # those of five labels
OF = np.array([0, 1, 2, 3, 4, 2, 3, 0])  # pictures of these labels
SHARE = (CONCEPTS[OF][:, None] & CONCEPTS[OF]).any(2)


@pytest.mark.parametrize("held", [0, 3])
def test_lifted_structure_leaves_pictures_that_share_a_concept_together(held):
    """Eq. 4 with a negative that is none of its own concepts, for both of a pair, one of which may be in a memory."""
    x, anchors, costs = 8 * UNIT, range(8 - held), []
    for i, j in itertools.product(anchors, range(8)):
        if i != j and SHARE[i, j]:
            inner = sum(math.exp(1 - far(x, one, n)) for one in (i, j) for n in range(8) if not SHARE[one, n])
            costs.append(max(0.0, math.log(inner) + far(x, i, j)) ** 2)
    loss = build_loss("lifted", dim=5).double()
    loss.relate(torch.from_numpy(CONCEPTS))
    rows, labels = torch.tensor(RAW), torch.tensor(OF)
    bank = Bank(loss.prepare(rows, labels)[len(anchors) :], labels[len(anchors) :]) if held else None
    close(loss(rows[: len(anchors)], labels[: len(anchors)], bank).item(), np.sum(costs) / (2 * len(costs)))


def npair_costs(x, kind):
    for a, p in POSITIVES:
        terms = [math.exp(x[a] @ x[n] - x[a] @ x[p]) for n in others(a)]
        yield math.log1p(sum(terms)) if kind == "mc" else sum(math.log1p(term) for term in terms)


@pytest.mark.parametrize("kind", ["mc", "ovo"])
def test_npair_is_sohn_2016_on_raw_vectors_with_the_norm_penalty(kind):
    expected = np.mean(list(npair_costs(RAW, kind))) + 0.005 * (RAW**2).sum(1).mean()
    close(value(f"npair(kind={kind}, scale=1)"), expected)


def test_npair_once_is_the_papers_batch_of_one_pair_a_class():
    f, plus = RAW[:4], RAW[4:]
    costs = [math.log1p(sum(math.exp(f[i] @ plus[j] - f[i] @ plus[i]) for j in range(4) if j != i)) for i in range(4)]
    result = value("npair(tuplets=once, penalty=0, scale=1)", labels=np.array([0, 1, 2, 3, 0, 1, 2, 3]))
    close(result, np.mean(costs))


def test_npair_once_keeps_to_the_pairs_of_a_miner():
    labels = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    plain = value("npair(tuplets=once, penalty=0, scale=1)", labels=labels)
    mined = value("npair(tuplets=once, penalty=0, scale=1)", labels=labels, miner="batch-hard")
    f, plus, costs = RAW[:4], RAW[4:], []
    for i in range(4):
        nearest = min((n for n in range(8) if n % 4 != i), key=lambda n: far(RAW, i, n))
        if nearest >= 4:
            costs.append(math.log1p(math.exp(f[i] @ RAW[nearest] - f[i] @ plus[i])))
    assert 0 < len(costs) < 4
    close(mined, np.mean(costs))
    assert mined < plain


def test_npair_scales_its_products_with_the_dimension_unless_told_otherwise():
    assert value("npair(penalty=0)") == pytest.approx(value("npair(penalty=0, scale=1)", embeddings=RAW * 20**-0.25))


def test_angular_is_wang_2017_beside_the_npair_loss():
    tan2, costs = math.tan(math.radians(40)) ** 2, []
    for a, p in POSITIVES:
        f = [4 * tan2 * (UNIT[a] + UNIT[p]) @ UNIT[n] - 2 * (1 + tan2) * UNIT[a] @ UNIT[p] for n in others(a)]
        costs.append(math.log1p(sum(map(math.exp, f))))
    npair = np.mean(list(npair_costs(RAW, "mc"))) + 0.005 * (RAW**2).sum(1).mean()
    close(value("angular(alpha=40, scale=1)"), npair + 2 * np.mean(costs))
    close(value("angular(alpha=40, npair=no)"), 2 * np.mean(costs))


def test_margin_loss_is_wu_2017_with_a_beta_for_every_class():
    loss = build_loss("margin(nu=0.1)", dim=5, classes=4, miner="all").double()
    betas = np.array([1.0, 1.1, 1.2, 1.3])
    loss.beta.data = torch.tensor(betas)
    costs, penalty = [], 0.0
    for a, p in POSITIVES:
        for n in others(a):
            beta = betas[LABELS[a]]
            costs += [max(0.0, 0.2 + far(UNIT, a, p) - beta), max(0.0, 0.2 + beta - far(UNIT, a, n))]
            penalty += 0.1 * beta
    active = sum(cost > 0 for cost in costs)
    result = loss(torch.tensor(RAW), torch.tensor(LABELS))
    close(result.item(), (sum(costs) + penalty) / active)
    result.backward()
    assert loss.beta.grad[:3].abs().min() > 0
    assert loss.beta.grad[3] == 0, "an image without a partner teaches its class nothing"


def test_margin_loss_begins_as_in_the_paper():
    loss = build_loss("margin", dim=5, classes=7)
    assert loss.beta.tolist() == pytest.approx([1.2] * 7)
    assert (loss.alpha, loss.miner.cutoff, loss.miner.reach) == (0.2, 0.5, 1.4)
    assert len(build_loss("margin", dim=5).beta) == 1


def test_circle_is_sun_2020_eq_6():
    m, gamma, costs = 0.4, 80, []
    for a in sorted({a for a, _ in POSITIVES}):
        s_n = [UNIT[a] @ UNIT[n] for n in others(a)]
        s_p = [UNIT[a] @ UNIT[p] for i, p in POSITIVES if i == a]
        left = sum(math.exp(gamma * max(0.0, s + m) * (s - m)) for s in s_n)
        right = sum(math.exp(-gamma * max(0.0, 1 + m - s) * (s - 1 + m)) for s in s_p)
        costs.append(math.log1p(left * right))
    close(value("circle"), np.mean(costs))


def test_multi_similarity_is_wang_2019_on_the_pairs_of_its_miner():
    costs = []
    for a in range(8):
        s_p = [UNIT[a] @ UNIT[p] for i, p in POSITIVES if i == a]
        s_n = [UNIT[a] @ UNIT[n] for n in others(a)]
        hard_p = [s for s in s_p if s - 0.1 < max(s_n)]
        hard_n = [s for s in s_n if s_p and s + 0.1 > min(s_p)]
        costs.append(
            math.log1p(sum(math.exp(-2 * (s - 0.5)) for s in hard_p)) / 2
            + math.log1p(sum(math.exp(50 * (s - 0.5)) for s in hard_n)) / 50
        )
    close(value("multi-similarity"), np.mean(costs))


def test_supcon_is_khosla_2020_eq_2():
    costs = []
    for a in sorted({a for a, _ in POSITIVES}):
        total = sum(math.exp(UNIT[a] @ UNIT[o] / 0.1) for o in range(8) if o != a)
        costs.append(-np.mean([math.log(math.exp(UNIT[a] @ UNIT[p] / 0.1) / total) for i, p in POSITIVES if i == a]))
    close(value("supcon"), np.mean(costs))


def test_nt_xent_is_chen_2020_eq_1():
    costs = []
    for a, p in POSITIVES:
        own = math.exp(UNIT[a] @ UNIT[p] / 0.5)
        costs.append(-math.log(own / (own + sum(math.exp(UNIT[a] @ UNIT[n] / 0.5) for n in others(a)))))
    close(value("nt-xent(temperature=0.5)"), np.mean(costs))


def test_recall_at_k_is_patel_2022():
    def smooth(x, tau):
        return 1 / (1 + math.exp(-x / tau))

    recalls = []
    for q in sorted({a for a, _ in POSITIVES}):
        positives = [p for i, p in POSITIVES if i == q]
        for k in (1, 2, 4):
            found = 0.0
            for x in positives:
                rank = 1 + sum(smooth(UNIT[q] @ UNIT[z] - UNIT[q] @ UNIT[x], 0.05) for z in range(8) if z not in (q, x))
                found += smooth(k - rank, 1.0)
            recalls.append(min(1.0, found / min(k, len(positives))))
    close(value("recall-at-k(k=1+2+4, tau2=0.05)"), 1 - np.mean(recalls))


def test_the_recall_surrogate_approaches_the_true_recall_when_it_is_sharp():
    sharp = value("recall-at-k(k=2, tau1=0.0001, tau2=0.000001)", labels=np.array([0, 0, 1, 1, 2, 2, 3, 3]))
    nearest = np.argsort(-(UNIT @ UNIT.T) + 9 * np.eye(8), axis=1)
    ranks = [int(np.flatnonzero(nearest[q] == q + (1, -1)[q % 2])[0]) + 1 for q in range(8)]
    true = np.mean([1.0 if rank < 2 else 0.5 if rank == 2 else 0.0 for rank in ranks])  # σ(0) at the edge
    assert sharp == pytest.approx(1 - true)
