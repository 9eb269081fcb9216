"""What of a network learns, and the pictures that it takes."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from torch import nn
from torchvision.models import VisionTransformer

from embedkit.encoders.preprocess import Preprocess
from embedkit.encoders.torch_model import PixelModel
from embedkit.errors import ConfigError
from embedkit.training.losses.build import build_loss
from embedkit.training.network import Objective, _check_size, build_model, parameter_groups, set_modes
from embedkit.training.recipe import Augment, TrainingRecipe
from tests import tiny_models


def model_of(network, embedding=None):
    stages = OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(1), embedding=embedding or nn.Identity())
    return PixelModel(network, nn.Sequential(stages), Preprocess(size=(32, 32)))


@pytest.mark.parametrize("loss", ["nt-xent", "arcface", "daml"])
def test_numbers_of_a_loss_alone_are_nothing_to_learn(loss):
    recipe = TrainingRecipe(loss=loss, frozen=1.0, dim=0)
    objective = Objective(model_of(nn.Conv2d(3, 8, 3)), build_loss(loss, dim=8, classes=4))
    set_modes(objective, recipe)
    with pytest.raises(ConfigError, match="With frozen=1 and dim=0 nothing is left to learn"):
        parameter_groups(objective, recipe)


def test_the_numbers_of_a_loss_follow_those_of_the_model():
    recipe = TrainingRecipe(loss="arcface", frozen=1.0)
    objective = Objective(model_of(nn.Conv2d(3, 8, 3), nn.Linear(8, 8)), build_loss("arcface", dim=8, classes=4))
    set_modes(objective, recipe)
    shapes = [[tuple(one.shape) for one in group["params"]] for group in parameter_groups(objective, recipe)]
    assert shapes == [[(8, 8)], [(8,)], [(4, 8)]]


class Patches(nn.Module):
    """The class token of torchvision's own transformer, as a map of one place."""

    def __init__(self):
        super().__init__()
        self.inner = VisionTransformer(32, 16, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8, num_classes=8)

    def forward(self, pixels):
        return self.inner(pixels)[:, :, None, None]


def test_training_pictures_of_a_size_that_a_network_cannot_take_are_refused(tmp_path):
    recipe = TrainingRecipe(encoder="torchvision:vit_b_32", augment=Augment(size=48))
    with pytest.raises(
        ConfigError, match=r"'torchvision:vit_b_32' takes no pictures of augment.size = 48 \(Wrong image"
    ):
        _check_size(model_of(Patches()), recipe)
    _check_size(model_of(nn.Conv2d(3, 8, 3)), recipe)
    recipe = TrainingRecipe(encoder=f"hf:{tiny_models.vit(tmp_path / 'vit')}", augment=Augment(size=48), steps=1)
    with pytest.raises(ConfigError, match=r"augment.size = 48 .*; leave out augment.size"):
        build_model(recipe.checked(), lambda: iter(()))
