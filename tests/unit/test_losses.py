"""What holds for every loss, whatever its formula."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from embedkit import plugins
from embedkit.errors import BadInput, ConfigError, UnknownName
from embedkit.training.losses.build import build_loss
from embedkit.training.losses.contract import Loss, PairLoss
from embedkit.training.memory import CrossBatchMemory
from embedkit.training.miners import build_miner
from embedkit.training.pairs import distances
from tests.conftest import WITHOUT_TORCH

NAMES = plugins.names("losses")
DAML = ("daml(base=contrastive, warmup=0)", "daml(base=triplet, warmup=0)", "daml(base=lifted, warmup=0)")
ALL = (*NAMES, *DAML, "npair(kind=ovo)", "batch-hard(margin=0.2)", "angular(npair=no)")
LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])
DRAWS = {"margin"} | {name for name in ALL if name.startswith("daml")}  # their negatives are drawn at random


def loss_of(spec, dim=6):
    torch.manual_seed(0)
    return build_loss(spec, dim=dim, classes=4).double()


def batch(seed=0, dim=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, dim, dtype=torch.float64, generator=generator, requires_grad=True)


def once(loss, embeddings, labels):
    """The loss with the draws of one and the same seed."""
    torch.manual_seed(7)
    return loss(embeddings, labels)


@pytest.mark.parametrize("spec", ALL)
def test_a_loss_is_a_finite_number_that_moves_the_embeddings_and_its_own_parameters(spec):
    loss, embeddings = loss_of(spec).train(), batch(5)
    value = once(loss, embeddings, LABELS)
    value.backward()
    assert value.shape == ()
    assert value.item() > 0
    assert embeddings.grad.isfinite().all()
    assert embeddings.grad.abs().sum() > 0
    for name, part in loss.named_parameters():
        assert part.grad.abs().sum() > 0, name


@pytest.mark.parametrize("spec", ALL)
def test_the_order_of_a_batch_does_not_matter(spec):
    order = torch.tensor([5, 2, 7, 0, 3, 6, 1, 4])
    values = []
    for rows in (torch.arange(8), order):
        loss = loss_of(spec).eval()
        if spec in DRAWS:
            loss = _without_draws(loss)
        values.append(once(loss, batch()[rows], LABELS[rows]).item())
    assert values[0] == pytest.approx(values[1], rel=1e-9)


def _without_draws(loss):
    """All negatives, or for DAML the five nearest, instead of those drawn."""
    if isinstance(loss, PairLoss):
        loss.miner = build_miner("all")
        return loss
    loss.negatives = 5

    def nearest(batch):
        anchor, positive = batch.positive.nonzero(as_tuple=True)
        apart = batch.squared_distances().masked_fill(~batch.negative, torch.inf)
        return anchor, positive, apart[anchor].argsort(1)[:, :5]

    loss._tuples = nearest
    return loss


@pytest.mark.parametrize("spec", ALL)
@pytest.mark.parametrize("labels", [[3, 3, 3, 3, 3, 3, 3, 3], [0, 1, 2, 3, 4, 5, 6, 7]], ids=["one class", "no pair"])
def test_a_batch_of_one_class_or_without_pairs_is_finite_and_has_a_gradient_path(spec, labels):
    loss, embeddings = build_loss(spec, dim=6, classes=8).double(), batch()
    value = once(loss, embeddings, torch.tensor(labels))
    value.backward()
    assert value.isfinite()
    assert embeddings.grad.isfinite().all()
    relative = isinstance(loss, PairLoss) and not loss.makes_codes
    relative = relative and spec not in ("contrastive", "npair", "npair(kind=ovo)", "angular")
    if relative and spec != "multi-similarity":
        assert value.item() == 0
        assert embeddings.grad.abs().sum() == 0


@pytest.mark.parametrize("spec", ALL)
def test_embeddings_that_coincide_have_a_finite_gradient(spec):
    same = torch.ones(8, 6, dtype=torch.float64, requires_grad=True)
    value = once(loss_of(spec), same, LABELS)
    value.backward()
    assert value.isfinite()
    assert same.grad.isfinite().all()


@pytest.mark.parametrize("spec", ALL)
def test_an_embedding_of_zeros_is_no_cliff(spec):
    """Scaling to length 1 has no slope there; 1e12 of one, or its square, would be the whole step, or no number."""
    embeddings = torch.cat([torch.zeros(1, 6), batch()[1:].detach().float()]).requires_grad_()
    loss = loss_of(spec).float()
    once(loss, embeddings, LABELS).backward()
    assert embeddings.grad.abs().max() < 1e4
    assert all(part.grad is None or part.grad.abs().max() < 1e4 for part in loss.parameters())


@pytest.mark.parametrize(
    "spec", ["arcface", "cosface", "sphereface", "subcentre-arcface", "soft-triple", "proxy-anchor"]
)
def test_an_embedding_on_its_class_vector_or_opposite_has_a_finite_gradient(spec):
    loss = loss_of(spec)
    vectors = (loss.inner.proxies if spec == "proxy-anchor" else loss.weight).detach()
    embeddings = torch.stack([vectors[0], -vectors[0]]).requires_grad_()
    loss(embeddings, torch.tensor([0, 0])).backward()
    assert embeddings.grad.isfinite().all()
    assert all(part.grad.isfinite().all() for part in loss.parameters())


@pytest.mark.parametrize("spec", ["contrastive", "triplet", "semi-hard", "batch-hard(margin=0.2)", "margin"])
def test_a_batch_that_satisfies_the_constraint_costs_nothing(spec):
    apart = torch.eye(4, 6, dtype=torch.float64)[LABELS] * 5
    assert once(loss_of(spec), apart, LABELS).item() == 0


SMOOTH = ["npair", "npair(kind=ovo)", "angular", "supcon", "nt-xent(temperature=0.5)", "proxy-anchor", "soft-triple"]
SMOOTH += ["cosface(s=4)", "arcface(s=4, m=0.2)", "lifted", "batch-hard", "deepid2(margin=2)", "circle(gamma=1, m=0)"]
SMOOTH += ["recall-at-k(tau2=0.3)", "multi-similarity(beta=4)", "contrastive", "triplet", "sphereface"]


@pytest.mark.parametrize("spec", SMOOTH)
def test_the_gradient_is_that_of_the_value(spec):
    loss = loss_of(spec).eval()
    if spec.startswith("circle"):  # its weights are constants by definition, so only the direction can be compared
        embeddings = batch()
        loss(embeddings, LABELS).backward()
        moved = loss(embeddings.detach() - 1e-4 * embeddings.grad, LABELS)
        assert moved < loss(embeddings, LABELS)
        return
    assert torch.autograd.gradcheck(lambda x: loss(x, LABELS), (batch(),), atol=1e-5, fast_mode=True)


@pytest.mark.parametrize("spec", NAMES)
def test_a_loss_scales_to_length_one_itself_where_it_is_defined_so(spec):
    loss = loss_of(spec).eval()
    plain, longer = once(loss, batch(), LABELS).item(), once(loss, batch() * 3, LABELS).item()
    assert (plain == pytest.approx(longer)) == loss.normalise


@pytest.mark.parametrize("spec", NAMES)
def test_half_precision_is_computed_in_full_also_within_autocast(spec):
    loss = build_loss(spec, dim=6, classes=4).eval()
    half = batch().detach().to(torch.bfloat16)
    value = once(loss, half, LABELS)
    assert value.dtype == torch.float32
    full = once(loss, half.float(), LABELS).item()
    assert value.item() == pytest.approx(full)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert once(loss, half, LABELS).item() == pytest.approx(full)


@pytest.mark.parametrize("spec", NAMES)
def test_a_loss_keeps_its_state(spec):
    first, second = loss_of(spec).train(), build_loss(spec, dim=6, classes=4).double()
    once(first, batch(), LABELS)
    second.load_state_dict(first.state_dict())
    assert once(second.eval(), batch(), LABELS).item() == once(first.eval(), batch(), LABELS).item()


@pytest.mark.parametrize("spec", NAMES)
def test_the_trainer_is_told_what_a_loss_needs(spec):
    loss = build_loss(spec, dim=6, classes=4)
    assert isinstance(loss, Loss)
    assert loss.per_class >= 2
    assert loss.rate > 0
    if loss.needs_classes:
        with pytest.raises(ConfigError, match="must be told how many"):
            build_loss(spec, dim=6)
    else:
        build_loss(spec, dim=6)


@pytest.mark.parametrize(
    ("spec", "miner", "error", "message"),
    [
        ("n-pair", "", UnknownName, "no loss called 'n-pair'; did you mean 'npair'"),
        ("npair(penalti=1)", "", ConfigError, "'penalti'; did you mean penalty"),
        ("margin(beta=nan)", "", ConfigError, "beta=nan in the loss 'margin.*' is not a number of 0 to 2"),
        ("daml(base=circle)", "", ConfigError, "base=circle in the loss .* is not one of contrastive"),
        ("daml(base=npair, margin=1)", "", ConfigError, "no meaning for base=npair"),
        ("recall-at-k(k=1+x)", "", ConfigError, "not a list of ranks"),
        ("npair)", "", ConfigError, "is no loss; write for example 'npair'"),
        ("triplet", "semihard", UnknownName, "no miner called 'semihard'; did you mean 'semi-hard'"),
        ("triplet", "semi-hard(m=1)", ConfigError, "The miner .* no option 'm'"),
        ("arcface", "semi-hard", ConfigError, "looks at classes, not at pairs"),
    ],
)
def test_a_bad_spec_says_what_is_known(spec, miner, error, message):
    with pytest.raises(error, match=message):
        build_loss(spec, dim=6, classes=4, miner=miner)


def test_margin_refuses_labels_that_it_has_no_beta_for():
    with pytest.raises(BadInput, match="labels 0 to 3 do not fit a loss of 3 classes"):
        build_loss("margin", dim=6, classes=3).double()(batch(), LABELS)


@pytest.mark.parametrize("spec", ["npair", "lifted", "nt-xent", "contrastive", "batch-hard"])
def test_memory_does_not_grow_with_pairs_times_pictures(spec):
    """64 pictures of two classes are 1,984 positive pairs; a matrix of pairs × pictures is 31 times n × n."""
    kept = []
    embeddings = torch.randn(64, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.numel()) or one, lambda one: one):
        build_loss(spec, dim=4)(embeddings, torch.arange(64) % 2)
    assert max(kept) <= 64 * 64


def test_a_wrong_shape_or_type_is_refused():
    loss = loss_of("triplet")
    for labels in (LABELS[:3], LABELS.to(torch.int32)):
        with pytest.raises(BadInput, match="labels of int64"):
            loss(batch(), labels)


@pytest.mark.parametrize("miner", ["all", "batch-hard", "distance-weighted", "multi-similarity", "semi-hard"])
@pytest.mark.parametrize("spec", [name for name in NAMES if isinstance(build_loss(name, dim=6, classes=4), PairLoss)])
def test_every_pair_loss_works_with_every_miner(spec, miner):
    embeddings = batch()
    loss = build_loss(spec, dim=6, classes=4, miner=miner).double()
    once(loss, embeddings, LABELS).backward()
    assert embeddings.grad.isfinite().all()


COMPARING = [name for name in NAMES if isinstance(build_loss(name, dim=6, classes=4), PairLoss)] + ["daml", *DAML]


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("spec", COMPARING)
def test_labels_that_share_a_concept_are_one_class_to_every_loss_over_pairs(spec, held):
    """Each picture has a label of its own and the one concept of its class: the loss is that of the classes."""
    values = []
    for labels, concepts in ((LABELS, None), (torch.arange(8), F.one_hot(LABELS).bool())):
        torch.manual_seed(0)
        loss = build_loss(spec, dim=6, classes=8).double()
        if concepts is not None:
            loss.relate(concepts)
        if held and isinstance(loss, PairLoss):
            loss = CrossBatchMemory(loss, size=8, dim=6).double()
            once(loss, batch(1), labels)
        values.append(once(loss, batch(), labels).item())
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert values[0] > 0


def test_distances_agree_with_numpy_and_have_no_slope_at_zero():
    left, right = (np.random.default_rng(seed).normal(size=(3, 4)) for seed in (0, 1))
    right[2] = left[2]
    moved = torch.tensor(left, requires_grad=True)
    result = distances(moved, torch.tensor(right))
    assert np.allclose(result.detach(), np.linalg.norm(left[:, None] - right[None], axis=2), atol=1e-6)
    result[2, 2].backward()
    assert (moved.grad == 0).all()


def test_without_torch_the_extra_is_named_and_the_names_are_known():
    code = f"""{WITHOUT_TORCH}
from embedkit import plugins
assert 'npair' in plugins.names('losses')
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
