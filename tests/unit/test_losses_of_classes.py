"""Every loss with class vectors, and DAML, gives what its paper's formula gives, in plain NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from embedkit.errors import BadInput
from embedkit.training.losses.build import build_loss

RNG = np.random.default_rng(11)
LABELS = np.array([0, 2, 0, 1, 2, 1])
RAW = RNG.normal(size=(6, 4))
UNIT = RAW / np.linalg.norm(RAW, axis=1, keepdims=True)


def made(spec, weight=None):
    loss = build_loss(spec, dim=4, classes=3).double()
    if weight is not None:
        (loss.inner.proxies if spec.startswith("proxy") else loss.weight).data = torch.tensor(weight)
    return loss.eval()


def value(loss):
    return loss(torch.tensor(RAW), torch.tensor(LABELS)).item()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def cross_entropy(logits):
    return np.mean([math.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, LABELS, strict=True)])


def close(result, expected):
    assert expected > 0
    assert result == pytest.approx(expected, abs=1e-5, rel=1e-6)


def test_cosface_is_wang_2018_eq_4():
    weight = RNG.normal(size=(3, 4))
    logits = UNIT @ unit(weight).T
    for i, label in enumerate(LABELS):
        logits[i, label] -= 0.35
    close(value(made("cosface(s=8)", weight)), cross_entropy(8 * logits))


def test_arcface_is_deng_2019_eq_3_and_falls_on_beyond_pi():
    weight = RNG.normal(size=(3, 4))
    weight[1] = -UNIT[3] + 0.05 * UNIT[0]  # θ of row 3 to its own class is nearly π
    logits, beyond = UNIT @ unit(weight).T, 0
    for i, label in enumerate(LABELS):
        theta = math.acos(logits[i, label])
        beyond += theta + 0.5 > math.pi
        logits[i, label] = math.cos(theta + 0.5) if theta + 0.5 <= math.pi else math.cos(theta) - 0.5 * math.sin(0.5)
    assert 0 < beyond < 6
    close(value(made("arcface(s=8, m=0.5)", weight)), cross_entropy(8 * logits))


def test_subcentre_arcface_takes_the_nearest_centre_of_every_class():
    weight = RNG.normal(size=(6, 4))
    logits = (UNIT @ unit(weight).T).reshape(6, 3, 2).max(2)
    for i, label in enumerate(LABELS):
        logits[i, label] = math.cos(math.acos(logits[i, label]) + 0.3)
    close(value(made("subcentre-arcface(s=8, m=0.3, centres=2)", weight)), cross_entropy(8 * logits))


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_sphereface_is_liu_2017_eq_7_annealed_from_the_softmax(m):
    weight = RNG.normal(size=(3, 4))
    loss = made(f"sphereface(m={m})", weight)
    loss.steps.fill_(500)
    share = max(5.0, 1000 / (1 + 0.12 * 500))
    logits = UNIT @ unit(weight).T
    for i, label in enumerate(LABELS):
        theta = math.acos(logits[i, label])
        k = math.floor(theta * m / math.pi)
        psi = (-1) ** k * math.cos(m * theta) - 2 * k
        logits[i, label] = (share * math.cos(theta) + psi) / (1 + share)
    close(value(loss), cross_entropy(np.linalg.norm(RAW, axis=1)[:, None] * logits))


def test_the_angle_of_sphereface_falls_all_the_way():
    loss = made("sphereface")
    cosines = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    psi = loss.psi(cosines)
    assert (psi.diff() > 0).all()
    assert (psi[0].item(), psi[-1].item()) == pytest.approx((-7, 1))


def test_sphereface_counts_its_steps_in_training_only():
    loss = made("sphereface").train()
    value(loss)
    value(loss.eval())
    assert loss.steps == 1


def test_proxy_anchor_is_kim_2020_eq_4():
    proxies = RNG.normal(size=(3, 4))
    loss = build_loss("proxy-anchor", dim=4, classes=4).double()
    proxies = np.concatenate([proxies, RNG.normal(size=(1, 4))])  # a class that the batch lacks
    loss.inner.proxies.data = torch.tensor(proxies)
    s = UNIT @ unit(proxies).T
    pull = [math.log1p(sum(math.exp(-32 * (s[i, c] - 0.1)) for i in range(6) if LABELS[i] == c)) for c in range(3)]
    push = [math.log1p(sum(math.exp(32 * (s[i, c] + 0.1)) for i in range(6) if LABELS[i] != c)) for c in range(4)]
    close(value(loss), np.mean(pull) + np.mean(push))


def test_soft_triple_is_qian_2019_with_its_regulariser():
    weight = RNG.normal(size=(6, 4))
    centres = unit(weight)
    similar = (UNIT @ centres.T).reshape(6, 3, 2)
    soft = np.exp(similar / 0.1)
    logits = (soft / soft.sum(2, keepdims=True) * similar).sum(2)
    for i, label in enumerate(LABELS):
        logits[i, label] -= 0.01
    spread = sum(math.sqrt(2 - 2 * centres[2 * c] @ centres[2 * c + 1]) for c in range(3))
    expected = cross_entropy(20 * logits) + 0.2 * spread / (3 * 2 * 1)
    close(value(made("soft-triple(centres=2)", weight)), expected)


def test_deepid2_is_sun_2014_identification_and_verification():
    weight, bias = RNG.normal(size=(3, 4)), RNG.normal(size=3)
    loss = made("deepid2(margin=3.0)", weight)
    loss.bias.data = torch.tensor(bias)
    near, push = [], []
    for i in range(6):
        for j in range(6):
            distance = np.linalg.norm(RAW[i] - RAW[j])
            if i != j and LABELS[i] == LABELS[j]:
                near.append(0.5 * distance**2)
            elif i != j and distance < 3.0:
                push.append(0.5 * (3.0 - distance) ** 2)
    close(value(loss), cross_entropy(RAW @ weight.T + bias) + 0.05 * (np.mean(near) + np.mean(push)))


def test_the_margin_of_deepid2_is_the_distance_with_the_fewest_errors():
    x = np.array([[0.0], [1.0], [5.0], [6.5]])  # positives lie 1 and 1.5 apart, negatives 4 to 6.5
    loss = build_loss("deepid2", dim=1, classes=2)
    loss(torch.tensor(x, dtype=torch.float32), torch.tensor([0, 0, 1, 1]))
    assert loss.margin.item() == pytest.approx(1.5)


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(BadInput, match="0 to 2 do not fit a loss of 2 classes"):
        build_loss("arcface", dim=4, classes=2)(torch.tensor(RAW), torch.tensor(LABELS))


def squared(a, b):
    return float(((a - b) ** 2).sum())


BASES = ["contrastive", "lifted", "npair", "triplet"]


@pytest.mark.parametrize("base", BASES)
def test_daml_is_duan_2018(base):
    """With two images of two classes, every pair has two negatives to draw from; the draw is repeated here."""
    labels = np.array([0, 0, 1, 1])
    rng = np.random.default_rng(3)
    features = rng.normal(size=(4, 6))
    layer = nn.Linear(6, 4).double()
    loss = build_loss(f"daml(base={base}, weight=1, alpha=0.3, negatives=3)", dim=4).double().eval()
    loss.attach(layer, 6)
    loss.double()
    torch.manual_seed(2)
    result = loss(torch.tensor(features), torch.tensor(labels)).item()

    pairs = [(0, 1), (1, 0), (2, 3), (3, 2)]
    torch.manual_seed(2)
    drawn = torch.multinomial(
        torch.tensor([[labels[a] != labels[n] for n in range(4)] for a, _ in pairs]).float(), 3, True
    )

    def embed(rows):
        out = rows @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        return out if base == "npair" else unit(out)

    def generate(a, p, n):
        x = np.concatenate([features[a], features[p], features[n]])
        layers = [part for part in loss.generator.layers if isinstance(part, nn.Linear)]
        for number, part in enumerate(layers):
            x = part.weight.detach().numpy() @ x + part.bias.detach().numpy()
            x = np.maximum(x, 0) if number < 2 else x
        return x

    f, generation, metric = embed(features), [], []
    for (a, p), negatives in zip(pairs, drawn.tolist(), strict=True):
        made_ = [generate(a, p, n) for n in negatives]
        for x, n in zip(made_, negatives, strict=True):
            adversarial = max(0.0, squared(embed(x), f[a]) - squared(f[a], f[p]) - 0.3)
            generation.append(squared(x, features[a]) + squared(x, features[n]) + 50 * adversarial)
        fake = [embed(x) for x in made_]
        if base == "npair":
            metric.append(math.log1p(sum(math.exp((f[a] @ x - f[a] @ f[p]) / 4) for x in fake)))
        elif base == "triplet":
            metric += [max(0.0, 0.2 + squared(f[a], f[p]) - squared(f[a], x)) for x in fake]
        elif base == "lifted":
            both = sum(math.exp(1 - 8 * math.sqrt(squared(y, x))) for y in (f[a], f[p]) for x in fake)
            metric.append(max(0.0, math.log(both) + 8 * math.sqrt(squared(f[a], f[p]))) ** 2 / 2)
        else:
            short = [max(0.0, 1 - math.sqrt(squared(f[a], x))) ** 2 / 2 for x in fake]
            metric.append(squared(f[a], f[p]) / 2 + sum(short))
    if base == "triplet":
        metric = [cost for cost in metric if cost > 0]
    real = build_loss(base, dim=4).double()(torch.tensor(f), torch.tensor(labels)).item()
    close(result, real + np.mean(generation) + np.mean(metric))


@pytest.mark.parametrize("base", BASES)
def test_daml_moves_the_generator_by_its_own_loss_only_and_the_layer_by_the_metric_only(base):
    torch.manual_seed(0)
    layer, features = nn.Linear(6, 4), torch.randn(6, 6, requires_grad=True)
    loss = build_loss(f"daml(base={base}, weight=0)", dim=4)
    loss.attach(layer, 6)
    loss(features, torch.tensor(LABELS)).backward()
    assert all(part.grad.abs().sum() > 0 for part in loss.generator.parameters())
    assert not set(map(id, loss.parameters())) & set(map(id, layer.parameters()))
    alone = layer.weight.grad.clone()
    layer.zero_grad()
    build_loss(base, dim=4)(layer(features), torch.tensor(LABELS)).backward()
    assert torch.allclose(alone, layer.weight.grad, atol=1e-6), "with weight=0 only the base loss reaches the layer"


@pytest.mark.parametrize(("base", "weight"), [("npair", 1), ("lifted", 1), ("contrastive", 1), ("triplet", 0.1)])
def test_daml_weighs_synthetic_triplets_less_since_every_one_of_them_always_costs(base, weight):
    assert build_loss(f"daml(base={base})", dim=4).weight == weight


def test_daml_waits_for_its_generator_before_it_uses_it():
    loss = build_loss("daml(base=triplet, warmup=1, negatives=1)", dim=4).double()
    values = []
    for _ in range(2):
        torch.manual_seed(1)
        values.append(value(loss))
    assert values[1] > values[0], "from the second step on the synthetic negatives count"


@pytest.mark.parametrize("spec", ["arcface", "cosface", "deepid2", "proxy-anchor", "soft-triple", "sphereface"])
def test_class_vectors_start_at_the_class_means(spec):
    loss, means = build_loss(spec, dim=4, classes=3).double(), torch.tensor(RNG.normal(size=(3, 4)) * 2)
    loss.start_at(means)
    centres = loss.vectors.detach().view(3, -1, 4)
    expected = means / means.norm(dim=1, keepdim=True) if loss.normalise else means
    assert torch.allclose(centres, expected[:, None], atol=0.3 if spec == "soft-triple" else 1e-12)
    assert len(torch.unique(centres.flatten(0, 1), dim=0)) == len(loss.vectors), "every centre differs"
    with pytest.raises(BadInput, match="do not fit 3 class vectors"):
        loss.start_at(means[:2])
