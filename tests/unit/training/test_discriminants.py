"""An embedding layer that starts at Fisher's discriminants tells classes apart before anything is learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import nn

from embedkit.errors import ConfigError
from embedkit.training.discriminants import fisher_directions, set_at_discriminants
from embedkit.training.hash_heads import build_head, finish_codes, start_codes
from embedkit.training.recipe import TrainingRecipe


def _classes(classes: int, each: int, width: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes that differ in a fifth of the numbers, where pictures of one class vary little; noise elsewhere."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    features = rng.normal(size=(len(labels), width))
    told = width // 5
    features[:, :told] = rng.normal(size=(classes, told))[labels] + 0.2 * rng.normal(size=(len(labels), told))
    return torch.from_numpy(features + 3).float(), torch.from_numpy(labels)


def test_without_shrinkage_the_directions_are_those_of_scikit_learn() -> None:
    features, labels = _classes(12, 40, 20)
    ours = fisher_directions(features, labels, 8, shrinkage=0.0).numpy()
    peer = LinearDiscriminantAnalysis(solver="eigen").fit(features.double().numpy(), labels.numpy()).scalings_.T[:8]
    signs = np.sign((ours * peer).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(ours * signs, peer, rtol=1e-4, atol=1e-6)


def test_the_directions_point_where_classes_differ_and_not_at_noise() -> None:
    features, labels = _classes(30, 4, 50)
    axes = fisher_directions(features, labels, 10).float()
    told = axes[:, :10].square().sum(dim=1) / axes.square().sum(dim=1)
    assert told.min() > 0.7


def test_more_directions_than_classes_go_on_where_pictures_vary() -> None:
    features, labels = _classes(3, 50, 20)
    axes = fisher_directions(features, labels, 20)
    assert torch.isfinite(axes).all()
    assert torch.linalg.matrix_rank(axes) == 20


@pytest.mark.parametrize(
    ("features", "labels", "dim"),
    [
        (torch.randn(10, 4), torch.arange(10), 8),
        (torch.ones(10, 4), torch.arange(10) // 2, 2),
        (torch.randn(10, 4), torch.arange(10), 2),
    ],
    ids=["more directions than features", "like pictures", "one picture of each class"],
)
def test_a_layer_that_cannot_be_set_keeps_its_random_directions(
    features: torch.Tensor, labels: torch.Tensor, dim: int
) -> None:
    layer = nn.Linear(4, dim)
    before = layer.weight.detach().clone()
    set_at_discriminants(layer, features, labels)
    assert torch.equal(layer.weight, before)


def _nearest_is_of_the_class(vectors: torch.Tensor, labels: torch.Tensor) -> float:
    unit = nn.functional.normalize(vectors, dim=1)
    near = (unit @ unit.T).fill_diagonal_(-2).argmax(dim=1)
    return float((labels[near] == labels).double().mean())


def test_vectors_of_classes_never_seen_are_better_told_apart_and_as_long_as_before() -> None:
    features, labels = _classes(120, 4, 50)
    seen = labels < 60
    layer = nn.Linear(50, 10)
    before, length = layer(features).detach(), layer(features[seen]).detach().square().mean()
    set_at_discriminants(layer, features[seen], labels[seen])
    after = layer(features).detach()
    assert _nearest_is_of_the_class(before[~seen], labels[~seen]) < 0.2
    assert _nearest_is_of_the_class(after[~seen], labels[~seen]) > 0.8
    assert float(after[seen].square().mean()) == pytest.approx(float(length), rel=1e-3)
    assert float(after[seen].mean(dim=0).abs().max()) < 1e-3


def test_codes_start_from_the_discriminants_where_the_classes_are_given() -> None:
    features, labels = _classes(120, 4, 50)
    plain, told = nn.Linear(50, 8), nn.Linear(50, 8)
    start_codes(plain, features, None, seed=0)
    start_codes(told, features, labels, seed=0)
    found = [_nearest_is_of_the_class(layer(features).sign().detach(), labels) for layer in (plain, told)]
    assert found[1] > 2 * found[0]


@pytest.mark.parametrize("kind", ["linear", "divide"])
def test_bits_end_as_the_signs_of_the_discriminants_each_of_one_scale(kind: str) -> None:
    features, labels = _classes(120, 4, 50)
    seen = labels < 60
    head = build_head(kind, 50, 8)
    finish_codes(head, features[seen], labels[seen])
    numbers = head(features).detach()
    axes = fisher_directions(features[seen], labels[seen], 8, shrinkage=0.5).float()
    expected = (features - features[seen].mean(dim=0)) @ axes.T
    assert float((numbers.sign() == expected.sign()).float().mean()) > 0.999
    torch.testing.assert_close(numbers[seen].square().mean(dim=0), torch.ones(8), rtol=1e-3, atol=1e-3)
    assert _nearest_is_of_the_class(numbers[~seen].sign(), labels[~seen]) > 0.3


@pytest.mark.parametrize("kind", ["linear", "divide"])
def test_bits_of_classes_that_do_not_vary_stay_as_they_were(kind: str) -> None:
    head, features = build_head(kind, 50, 8), torch.randn(10, 50)
    before = head(features).detach()
    finish_codes(head, features, torch.arange(10))
    assert torch.equal(head(features), before)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"start": "pca"}, "start = 'pca' is not one of lda"),
        ({"start": "lda", "dim": 0}, "dim = 0 has none"),
        ({"start": "lda", "task": "image-text", "loss": "clip"}, "captions, not classes"),
        ({"finish": "pca"}, "finish = 'pca' is not one of lda"),
        ({"finish": "lda", "dim": 0}, "dim = 0 has none"),
        ({"finish": "lda", "task": "image-text", "loss": "clip"}, "captions, not classes"),
    ],
)
def test_what_cannot_start_there_is_said(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        TrainingRecipe().changed(settings).checked()
