"""Pictures that start where a regression expects their texts find them before anything is learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from embedkit.errors import ConfigError
from embedkit.training.recipe import TrainingRecipe
from embedkit.training.regression import ridge_regression, start_at_regression


def _paired(labels: int, each: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features of pictures that follow their texts, with noise; the labels; a vector of texts for every label."""
    rng = np.random.default_rng(seed)
    captions = rng.normal(size=(labels, 24)) + 2
    known = np.repeat(np.arange(labels), each)
    features = captions[known] @ rng.normal(size=(24, 40)) + 0.5 * rng.normal(size=(len(known), 40)) + 5
    return torch.from_numpy(features).float(), torch.from_numpy(known), torch.from_numpy(captions).float()


@pytest.mark.parametrize("penalty", [0.01, 1.0, 10.0])
def test_it_is_the_ridge_regression_of_scikit_learn(penalty: float) -> None:
    features, labels, captions = _paired(30, 3)
    weights, bias = ridge_regression(features, captions[labels], penalty=penalty)
    spread = (features - features.mean(dim=0)).double().square().sum(dim=0).mean()
    peer = Ridge(alpha=penalty * float(spread), solver="svd").fit(features.double().numpy(), captions[labels].numpy())
    np.testing.assert_allclose(weights.numpy(), peer.coef_, atol=1e-5)
    np.testing.assert_allclose(bias.numpy(), peer.intercept_, atol=1e-4)


@pytest.mark.parametrize("size", [1.0, 100.0])
def test_pictures_that_took_no_part_find_their_texts(size: float) -> None:
    features, labels, captions = _paired(60, 4)
    features, learned = features * size, labels < 50
    torch.manual_seed(0)
    pictures, texts = nn.Linear(40, 16), nn.Linear(24, 16)

    @torch.no_grad()
    def found() -> float:
        near = nn.functional.normalize(pictures(features[~learned])) @ nn.functional.normalize(texts(captions)).T
        return float((near.argmax(dim=1) == labels[~learned]).float().mean())

    @torch.no_grad()
    def lengths() -> list[float]:
        return [float(made.square().mean()) for made in (pictures(features), texts(captions[:50]))]

    before, long = found(), lengths()
    start_at_regression(pictures, texts, features[learned], captions[labels[learned]], captions[:50])
    assert before < 0.2
    assert found() > 0.8
    assert lengths() == pytest.approx(long, rel=0.3)


def test_more_numbers_than_captions_can_tell_are_no_start() -> None:
    features, labels, captions = _paired(10, 3)
    with pytest.raises(ValueError, match="10 captions of 24 numbers have no 16 axes"):
        start_at_regression(nn.Linear(40, 16), nn.Linear(24, 16), features, captions[labels], captions)
    with pytest.raises(ValueError, match="no feature varies"):
        ridge_regression(torch.ones(5, 3), torch.randn(5, 2))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"start": "ridge"}, "needs captions"),
        ({"start": "ridge", "task": "image-text", "loss": "clip", "bits": 64}, "is not for codes"),
        ({"start": "ridge", "task": "image-text", "loss": "clip", "dim": 0}, "dim = 0 has none"),
    ],
)
def test_what_it_does_not_go_with_is_said(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        TrainingRecipe(data="emoji-zs", **settings).checked()  # type: ignore[arg-type]
