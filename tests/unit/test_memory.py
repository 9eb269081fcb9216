"""A batch in pieces, and a memory of batches, give what the large batch gives."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from embedkit.encoders.preprocess import Preprocess
from embedkit.encoders.torch_model import PixelModel
from embedkit.errors import BadInput, ConfigError
from embedkit.training.losses.build import build_loss
from embedkit.training.memory import CrossBatchMemory, GradientCache
from embedkit.training.network import Objective
from embedkit.training.pairs import Bank, Batch, unit

LABELS = torch.arange(64) % 16


def network(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 32), nn.LayerNorm(32), nn.Tanh(), nn.Dropout(dropout), nn.Linear(32, 8))


def images():
    return torch.randn(64, 10, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "spec", ["npair", "margin", "multi-similarity", "arcface", "proxy-anchor", "recall-at-k", "daml"]
)
def test_four_pieces_of_16_give_the_loss_and_the_gradients_of_64(spec):
    whole, pieces = network(), network()
    losses = [build_loss(spec, dim=8, classes=16) for _ in range(2)]
    losses[1].load_state_dict(losses[0].state_dict())
    torch.manual_seed(3)
    value = losses[0](whole(images()), LABELS)
    value.backward()
    torch.manual_seed(3)
    cached = GradientCache(pieces, losses[1]).step(images().split(16), LABELS)
    assert cached.item() == pytest.approx(value.item(), rel=1e-5)
    for left, right in zip((whole, losses[0]), (pieces, losses[1]), strict=True):
        for (name, one), other in zip(left.named_parameters(), right.parameters(), strict=True):
            assert torch.allclose(one.grad, other.grad, atol=1e-5, rtol=1e-4), name
    assert sum(part.grad.abs().sum() for part in pieces.parameters()) > 0


def test_pieces_of_features_that_stay_give_the_layer_of_the_loss_its_gradient():
    """DAML takes features, and nothing before them learns where the network is frozen."""
    layers = [nn.Linear(10, 8) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    losses = [build_loss("daml(warmup=0)", dim=8) for _ in range(2)]
    for loss, layer in zip(losses, layers, strict=True):
        loss.attach(layer, 10)
    losses[1].load_state_dict(losses[0].state_dict())
    torch.manual_seed(3)
    losses[0](images(), LABELS).backward()
    torch.manual_seed(3)
    GradientCache(nn.Identity(), losses[1]).step(images().split(16), LABELS)
    for left, right in zip((*layers[:1], losses[0]), (*layers[1:], losses[1]), strict=True):
        for one, other in zip(left.parameters(), right.parameters(), strict=True):
            torch.testing.assert_close(other.grad, one.grad, atol=1e-5, rtol=1e-4)
            assert other.grad.abs().sum() > 0


def test_features_in_half_precision_become_embeddings_in_full():
    """As autocast leaves them to a loss on features, whose embeddings are made outside of it."""
    layer, features = nn.Linear(10, 8), images().bfloat16()
    model = PixelModel(nn.Identity(), nn.Sequential(OrderedDict(embedding=layer)), Preprocess(size=(8, 8)))
    objective = Objective(model, build_loss("daml", dim=8))
    torch.testing.assert_close(objective.embeddings(features), layer(features.float()).detach())


def test_dropout_draws_the_same_in_both_passes():
    """The gradient is that of the very embeddings that gave the loss: their values are taken down and compared."""
    model, seen = network(dropout=0.5).train(), []
    model.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach().clone()))
    torch.manual_seed(5)
    GradientCache(model, build_loss("triplet", dim=8)).step(images().split(16), LABELS)
    after = torch.rand(3)
    assert len(seen) == 8
    assert all(torch.equal(seen[i], seen[i + 4]) for i in range(4))
    assert not torch.equal(seen[0], network(dropout=0.0)(images()[:16]))
    torch.manual_seed(5)
    for piece in images().split(16):
        model(piece)
    assert torch.equal(after, torch.rand(3)), "the second pass leaves the random numbers where the first one did"


def test_gradients_add_up_and_the_trainers_own_backward_is_used():
    model, loss = network(), build_loss("npair", dim=8)
    GradientCache(model, loss).step(images().split(32), LABELS)
    once = [part.grad.clone() for part in model.parameters()]
    GradientCache(model, loss, backward=lambda value: (value * 2).backward()).step(images().split(8), LABELS)
    assert all(
        torch.allclose(part.grad, 3 * one, atol=1e-4) for part, one in zip(model.parameters(), once, strict=True)
    )


def test_pieces_and_labels_must_agree():
    with pytest.raises(BadInput, match="64 images came with 63 labels"):
        GradientCache(network(), build_loss("npair", dim=8)).step(images().split(16), LABELS[:63])


def rows(n, seed):
    return torch.randn(n, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_a_memory_gives_the_loss_of_the_batch_against_the_last_embeddings():
    """NT-Xent in plain NumPy: the anchors are the batch, the others the batch and the last 24 before it."""
    memory = CrossBatchMemory(build_loss("nt-xent(temperature=0.5)", dim=8), size=24, dim=8).double()
    batches = [(rows(10, seed), torch.arange(10) % 5) for seed in range(5)]
    for embeddings, labels in batches[:4]:
        memory(embeddings, labels)
    result = memory(*batches[4]).item()
    x = unit(torch.cat([batches[4][0], torch.cat([e for e, _ in batches[:4]])[-24:]])).numpy()
    y = torch.cat([batches[4][1], torch.cat([labels for _, labels in batches[:4]])[-24:]]).numpy()
    costs = []
    for a in range(10):
        negatives = np.exp(x[y != y[a]] @ x[a] / 0.5).sum()
        for p in range(len(x)):
            if p != a and y[p] == y[a]:
                own = np.exp(x[a] @ x[p] / 0.5)
                costs.append(-np.log(own / (own + negatives)))
    assert result == pytest.approx(np.mean(costs), abs=1e-5)


@pytest.mark.parametrize("spec", ["hashnet", "dch", "dpsh"])
def test_a_memory_holds_codes_of_the_length_that_their_loss_compares(spec):
    memory = CrossBatchMemory(build_loss(spec, dim=8), size=24, dim=8).double()
    memory(rows(10, 0), torch.arange(10) % 5)
    assert memory.bank.embeddings.norm(dim=1).tolist() == pytest.approx([8**0.5] * 10)
    assert memory.bank.embeddings.numpy() == pytest.approx((8**0.5 * unit(rows(10, 0))).numpy())


def test_dpsh_with_a_memory_is_its_formula_on_the_batch_and_the_memory():
    """Li 2016 in plain NumPy, Θ = 4 zᵀz' / 8 on vectors of length √8; both kinds of pairs by their mean."""
    memory = CrossBatchMemory(build_loss("dpsh(sharp=4, boundary=0, share=0.5, quantise=0)", dim=8), size=24, dim=8)
    batches = [(rows(10, seed), torch.arange(10) % 5) for seed in (1, 0)]
    for batch in batches:
        result = memory.double()(*batch).item()
    z = torch.cat([batches[1][0], batches[0][0]]).numpy()
    z *= np.sqrt(8) / np.linalg.norm(z, axis=1, keepdims=True)
    costs = {True: [], False: []}
    for i in range(10):
        for j in (other for other in range(20) if other != i):
            theta, same = z[i] @ z[j] / 2, i % 5 == j % 5
            costs[same].append(np.log1p(np.exp(theta)) - same * theta)
    assert result == pytest.approx(np.mean(costs[True]) + np.mean(costs[False]))


PAIRS = [
    "contrastive",
    "triplet",
    "semi-hard",
    "batch-hard",
    "lifted",
    "npair",
    "angular",
    "multi-similarity",
    "circle",
]
PAIRS += ["supcon", "nt-xent", "recall-at-k"]


@pytest.mark.parametrize("spec", PAIRS)
def test_every_anchor_costs_what_it_costs_in_the_batch_of_both(spec):
    """Seen from one batch with the other in memory, and then the other way round, all anchors are covered.

    A mean over anchors or pairs of the large batch is the mean of the two, weighed by how many each has; with as many
    of each, their plain mean. Means over what costs something are weighed by that, so those get costs that never end.
    """
    options = {"triplet": "(margin=4)"}.get(spec, "")
    miner = "all" if spec == "multi-similarity" else ""
    loss = build_loss(spec + options, dim=8, miner=miner).double()
    first, second, labels = rows(12, 0), rows(12, 1), torch.arange(12) % 4
    if spec == "semi-hard":
        loss.miner.margin = loss.margin = 4.0  # beyond every difference, so that only the order decides
    values = []
    for here, there in ((first, second), (second, first)):
        bank = Bank(loss.prepare(there, labels), labels)
        values.append((loss(here, labels, bank).item(), _weight(spec, loss, here, labels, bank)))
    both = loss(torch.cat([first, second]), torch.cat([labels, labels])).item()
    expected = sum(value * weight for value, weight in values) / sum(weight for _, weight in values)
    assert both == pytest.approx(expected, abs=1e-5)


def _weight(spec, loss, embeddings, labels, bank):
    """How many terms a mean has: equal for both halves but where the miner decides."""
    if spec != "semi-hard":
        return 1
    return len(loss.miner.triplets(Batch.of(loss.prepare(embeddings, labels), labels, bank)))


def test_the_memory_is_a_ring_that_carries_no_gradient_and_rests_in_evaluation():
    memory = CrossBatchMemory(build_loss("contrastive", dim=8), size=7, dim=8).double()
    first, second = rows(5, 0).requires_grad_(), rows(5, 1).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 2])
    memory(first, labels)
    memory(second, labels).backward()
    assert first.grad is None
    assert second.grad.abs().sum() > 0
    held = {tuple(row) for row in memory.bank.embeddings.tolist()}
    assert held == {tuple(row) for row in unit(torch.cat([first, second]))[-7:].tolist()}
    before = copy.deepcopy(memory.state_dict())
    memory.eval()(first, labels)
    assert all(torch.equal(before[name], value) for name, value in memory.state_dict().items())
    big = rows(20, 2)
    memory.train()(big, torch.arange(20))
    assert {tuple(row) for row in memory.bank.embeddings.tolist()} == {tuple(row) for row in unit(big)[-7:].tolist()}


def test_the_memory_waits_for_the_embedding_to_settle():
    loss = build_loss("contrastive", dim=8).double()
    memory = CrossBatchMemory(loss, size=20, dim=8, after=2).double()
    labels = torch.arange(6) % 3
    results = [memory(rows(6, seed), labels).item() - loss(rows(6, seed), labels).item() for seed in range(3)]
    assert results[:2] == pytest.approx([0, 0])
    assert abs(results[2]) > 1e-3


def test_a_memory_resumes_from_its_state():
    labels = torch.arange(6) % 3
    first, second = (CrossBatchMemory(build_loss("npair", dim=8), size=9, dim=8).double() for _ in range(2))
    first(rows(6, 0), labels)
    second.load_state_dict(first.state_dict())
    assert first(rows(6, 1), labels).item() == second(rows(6, 1), labels).item()


def test_a_loss_with_class_vectors_takes_no_memory():
    with pytest.raises(ConfigError, match="needs a loss over pairs, which ArcFace is not"):
        CrossBatchMemory(build_loss("arcface", dim=8, classes=3), size=9, dim=8)
