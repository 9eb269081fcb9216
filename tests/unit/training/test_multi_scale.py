"""Deep Ranking's three scales: what each path computes, and that it survives export."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embedkit.encoders.export import _graph
from embedkit.encoders.poolings import AveragePool, GeM
from embedkit.encoders.preprocess import Preprocess
from embedkit.encoders.torch_model import PixelModel
from embedkit.errors import ConfigError
from embedkit.training.adapters import add_adapters
from embedkit.training.losses.build import build_loss
from embedkit.training.multi_scale import SHALLOW_DIM, MultiScale, _averaged
from embedkit.training.network import Objective, set_modes, started_from
from embedkit.training.recipe import TrainingRecipe


def network(channels=10):
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, channels, 3, stride=8), nn.BatchNorm2d(channels), nn.ReLU())


def three_scales(seed=0):
    return MultiScale(network(), AveragePool(), generator=torch.Generator().manual_seed(seed)).eval()


def pictures(count=2, size=(96, 96), seed=1):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def by_hand(picture, side):
    """The mean over the area of every small pixel, pixel by pixel: ``(3, side, side)``."""
    _, height, width = picture.shape
    out = np.zeros((3, side, side))
    for row in range(side):
        top, bottom = row * height / side, (row + 1) * height / side
        for column in range(side):
            left, right = column * width / side, (column + 1) * width / side
            for y in range(int(top), min(height, int(np.ceil(bottom)))):
                for x in range(int(left), min(width, int(np.ceil(right)))):
                    area = (min(bottom, y + 1) - max(top, y)) * (min(right, x + 1) - max(left, x))
                    out[:, row, column] += area * picture[:, y, x]
    return out * side * side / (height * width)


@pytest.mark.parametrize(("size", "side"), [((96, 64), 57), ((225, 225), 29), ((64, 70), 29)])
def test_a_picture_is_made_small_by_the_mean_over_areas(size, side):
    picture = pictures(1, size).double()
    expected = by_hand(picture[0].numpy(), side)
    assert _averaged(picture, side)[0].numpy() == pytest.approx(expected, abs=1e-5)


def test_four_to_one_is_the_mean_of_four_times_four():
    picture = pictures(1, (228, 228))
    torch.testing.assert_close(_averaged(picture, 57), F.avg_pool2d(picture, 4), atol=1e-5, rtol=1e-5)


def test_every_path_has_length_one_and_its_place():
    model, given = three_scales(), pictures()
    vectors = model(given)
    deep = model.pooling(model.network(given))
    assert vectors.shape == (2, 10 + SHALLOW_DIM) == (2, 10 + 2 * 4 * 4 * 96)
    torch.testing.assert_close(vectors[:, :10], deep / deep.norm(dim=1, keepdim=True))
    for start, end in ((0, 10), (10, 10 + 1536), (10 + 1536, 10 + 3072)):
        torch.testing.assert_close(vectors[:, start:end].norm(dim=1), torch.ones(2))


def test_a_shallow_path_is_a_convolution_of_8_with_stride_4_and_the_maximum_of_each_window():
    model, given = three_scales(), pictures(1)
    small = _averaged(given, 29)
    maps = F.unfold(F.pad(small, (4, 4, 4, 4)), 8, stride=4)  # (1, 3 · 8 · 8, 8 · 8)
    conv = model.coarser.conv
    maps = (conv.weight.flatten(1) @ maps[0] + conv.bias[:, None]).clamp_min(0).view(96, 8, 8)
    rows = [slice(max(0, 2 * i - 1), 2 * i + 2) for i in range(4)]  # windows of 3, stride 2, one pixel of border
    pooled = torch.stack([torch.stack([maps[:, down, across].amax((1, 2)) for across in rows], 1) for down in rows], 1)
    expected = F.normalize(pooled.flatten(), dim=0)
    torch.testing.assert_close(model(given)[0, -1536:], expected, atol=1e-5, rtol=1e-4)


def test_the_shallow_paths_of_the_paper_have_the_maps_of_the_paper():
    model = three_scales()
    sizes = {}
    for name, path in (("coarse", model.coarse), ("coarser", model.coarser)):
        path.conv.register_forward_hook(
            lambda _, given, made, name=name: sizes.update({name: (given[0].shape, made.shape)})
        )
    model(pictures(1, (225, 225)))
    assert sizes == {"coarse": ((1, 3, 57, 57), (1, 96, 15, 15)), "coarser": ((1, 3, 29, 29), (1, 96, 8, 8))}


def test_one_seed_gives_one_network():
    first, again, other = three_scales(0).state_dict(), three_scales(0).state_dict(), three_scales(1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["coarse.conv.weight"], other["coarse.conv.weight"])
    assert not torch.equal(first["coarse.conv.weight"], first["coarser.conv.weight"])
    made = []
    for _ in range(2):
        backbone = network()
        torch.manual_seed(5)
        made.append(MultiScale(backbone, AveragePool()).coarse.conv.weight)
    assert torch.equal(*made)


def test_the_order_of_pixels_in_memory_does_not_matter():
    model, given = three_scales(), pictures()
    expected = model(given)
    model = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(given.to(memory_format=torch.channels_last)), expected, atol=1e-5, rtol=1e-4)


def test_every_path_learns():
    model = MultiScale(network(), GeM()).train()
    vectors = model(pictures(4))
    (vectors * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (225, 225), (128, 64)])
def test_its_length_is_known_without_touching_the_network(size):
    model = MultiScale(network(), AveragePool()).train()
    model.network[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert model.dim(size) == 10 + 3072
    assert model.training
    assert not model.network[1].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_picture_below_64_pixels_is_refused():
    with pytest.raises(ConfigError, match=r"48 x 80 are too small.*multi_scale = false"):
        three_scales()(pictures(1, (80, 48)))


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (224, 224)])
def test_onnx_runtime_gives_the_vectors_of_torch(size, tmp_path):
    model = PixelModel(three_scales(), nn.Identity(), Preprocess(size=size))
    rng = np.random.default_rng(0)
    _graph(model, {"pixels": torch.from_numpy(rng.integers(0, 256, (2, *size, 3), np.uint8))}, {0: "n"}, tmp_path / "m")
    session = onnxruntime.InferenceSession(str(tmp_path / "m"), providers=["CPUExecutionProvider"])
    others = rng.integers(0, 256, (5, *size, 3), np.uint8)
    (found,) = session.run(None, {"pixels": others})
    with torch.inference_mode():
        expected = model(torch.from_numpy(others)).numpy()
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.01  # the pictures differ, so a graph that learned one would not pass


def learning(model, **settings):
    """What learns of a model, by name, as a recipe says."""
    objective = Objective(model, build_loss("triplet", dim=8))
    set_modes(objective, TrainingRecipe(**settings))
    return {name for name, one in model.named_parameters() if one.requires_grad}


@pytest.mark.parametrize(("lora", "frozen"), [(0, 1.0), (0, 0.5), (2, 0.0)])
def test_what_starts_at_random_and_a_pooling_learn_whatever_of_the_deep_network_does(lora, frozen):
    stages = nn.Sequential(OrderedDict(flat=nn.Flatten(1), embedding=nn.Linear(10 + SHALLOW_DIM, 8)))
    model = PixelModel(MultiScale(network(), GeM()), stages, Preprocess(size=(64, 64)))
    if lora:
        add_adapters(started_from(model), lora)
    deep = {"network.network.0.parametrizations.weight.0.a", "network.network.0.parametrizations.weight.0.b"}
    if not lora:
        deep = {"network.network.1.weight", "network.network.1.bias"} if frozen < 1 else set()
    always = {f"network.{path}.conv.{part}" for path in ("coarse", "coarser") for part in ("weight", "bias")}
    always |= {"network.pooling.p", "pooling.embedding.weight", "pooling.embedding.bias"}
    assert learning(model, lora=lora, frozen=frozen) == deep | always
