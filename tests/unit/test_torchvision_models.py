"""Every torchvision classifier, cut off before its head, still feeds that head what its own forward does."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torchvision import models

from embedkit.encoders.load import describe_encoder, load_encoder
from embedkit.encoders.poolings import make_pooling
from embedkit.encoders.torchvision_models import backbone
from embedkit.encoders.vit import PatchGrid
from embedkit.errors import ConfigError, FetchFailed, UnknownName
from embedkit.specs import parse_spec

# The smallest network of every family, and a size that is quick and yet more than one place wide.
# None: the default, which must be the size that the network was made for.
FAMILIES = {
    "alexnet": 128,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "googlenet": 64,
    "inception_v3": None,
    "maxvit_t": None,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_y_400mf": 64,
    "resnet18": None,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11_bn": 64,
    "vit_b_32": None,
}
MADE_FOR = {"inception_v3": 299, "maxvit_t": 224, "resnet18": 224, "vit_b_32": 224}


def lively(network: nn.Module) -> None:
    """Numbers as after training where untrained ones, such as zeros, would hide a missing step."""
    generator = torch.Generator().manual_seed(7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            for tensor in (module.weight, module.bias, getattr(module, "running_mean", None)):
                if tensor is not None:
                    tensor.data += 0.3 * torch.randn(tensor.shape, generator=generator)
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.02, generator=generator)


def own_logits(network: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """The network's own head on a feature map, or on the class token of a vision transformer."""
    if isinstance(network, models.VisionTransformer):
        return network.heads(features)
    if isinstance(network, models.AlexNet | models.VGG):
        return network.classifier(network.avgpool(features).flatten(1))
    if isinstance(network, models.SqueezeNet):
        return network.classifier(features).flatten(1)
    pooled = make_pooling("avg")(features)
    if isinstance(network, models.ConvNeXt | models.MaxVit):
        return network.classifier(pooled[:, :, None, None])
    head = next(getattr(network, name) for name in ("fc", "classifier", "head") if hasattr(network, name))
    return head(pooled)


@pytest.fixture
def whole_networks(monkeypatch):
    """Copies of the classifiers that torchvision hands to the encoder, before anything is cut off."""
    kept, get_model = [], models.get_model

    def spy(name, **options):
        network = get_model(name, **options)
        lively(network)
        kept.append(copy.deepcopy(network).eval())
        return network

    monkeypatch.setattr(models, "get_model", spy)
    return kept


@pytest.mark.parametrize("name", FAMILIES)
def test_the_networks_own_head_turns_our_features_into_its_own_logits(name, whole_networks):
    size = FAMILIES[name]
    made = backbone(parse_spec(f"torchvision:{name}(weights=none{f', size={size}' if size else ''})"))
    trunk, whole = made.network.eval(), whole_networks[0]
    assert made.recipe.size == (size or MADE_FOR[name],) * 2
    pixels = torch.randn(1, 3, *made.recipe.size, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = whole(pixels)
        assert expected.std() > 1e-3
        torch.testing.assert_close(own_logits(whole, trunk(pixels)), expected, rtol=1e-3, atol=1e-4)
    left = {one.partition(".")[0] for one in whole.state_dict()} - {one.partition(".")[0] for one in trunk.state_dict()}
    assert left <= {"fc", "classifier", "head", "heads", "aux1", "aux2", "AuxLogits"}


def test_every_classifier_of_torchvision_belongs_to_a_family_of_the_test_above():
    files = {models.get_model_builder(name).__module__ for name in FAMILIES}
    others = [
        name for name in models.list_models(module=models) if models.get_model_builder(name).__module__ not in files
    ]
    assert not others


def test_the_patches_of_a_vision_transformer_become_a_feature_map():
    torch.manual_seed(0)
    vit = models.VisionTransformer(64, 16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64).eval()
    pixels = torch.randn(2, 3, 64, 64)
    seen = []
    hook = vit.encoder.register_forward_hook(lambda *called: seen.append(called[-1]))
    with torch.inference_mode():
        vit(pixels)
        hook.remove()
        features = PatchGrid(vit)(pixels)
    assert features.shape == (2, 32, 4, 4)
    torch.testing.assert_close(features[:, :, 2, 3], seen[0][:, 1 + 2 * 4 + 3])


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("torchvision:vit_b_32(weights=none, size=256)", ConfigError, "224 x 224 only"),
        ("torchvision:maxvit_t(weights=none, size=256)", ConfigError, "224 x 224 only"),
        ("torchvision:resnet18(weights=none, pooling=cls)", ConfigError, "avg, max, gem, rmac"),
        ("torchvision:alexnet(weights=none, size=32)", ConfigError, "does not take pictures"),
        ("torchvision:resnet18(weights=IMAGENET)", UnknownName, "IMAGENET1K_V1"),
    ],
)
def test_what_a_network_cannot_do_is_refused(text, error, message):
    with pytest.raises(error, match=message):
        load_encoder(text)


@pytest.fixture
def stored_weights(tmp_path, monkeypatch):
    """Put a network's state where torch keeps what it has downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)

    def store(name: str, weights: object, **more: object) -> None:
        torch.manual_seed(1)
        state = models.get_model(name, weights=None, **more).state_dict()
        torch.save(state, tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2])

    return store


def test_pretrained_weights_bring_their_preprocessing(stored_weights):
    stored_weights("efficientnet_b1", models.EfficientNet_B1_Weights.IMAGENET1K_V1)
    recipe = backbone(parse_spec("torchvision:efficientnet_b1(weights=IMAGENET1K_V1)")).recipe
    assert (recipe.size, recipe.keep, recipe.interpolation) == ((240, 240), 240 / 256, "bicubic")
    smaller = backbone(parse_spec("torchvision:efficientnet_b1(weights=IMAGENET1K_V1, size=128)")).recipe
    assert smaller == dataclasses.replace(recipe, size=(128, 128))
    stored_weights("mnasnet0_5", models.MNASNet0_5_Weights.IMAGENET1K_V1)
    recipe = backbone(parse_spec("torchvision:mnasnet0_5")).recipe
    assert (recipe.size, recipe.keep, recipe.interpolation) == ((224, 224), 224 / 256, "bilinear")
    assert recipe.mean == (0.485, 0.456, 0.406)


def test_a_pretrained_network_that_rescales_its_input_sees_the_same_numbers(stored_weights, pictures):
    weights = models.GoogLeNet_Weights.IMAGENET1K_V1
    stored_weights("googlenet", weights, init_weights=False)
    encoder = load_encoder("torchvision:googlenet(size=64)")
    whole = models.get_model("googlenet", weights=weights).eval()
    assert whole.transform_input
    pixels = encoder.prepare(pictures(1))[None]
    used = weights.transforms()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (used.mean, used.std))
    whole.fc = nn.Identity()
    with torch.inference_mode():
        expected = whole((torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2) / 255 - mean) / std)
        torch.testing.assert_close(
            torch.from_numpy(encoder.encode(pixels)), nn.functional.normalize(expected, dim=1), rtol=1e-3, atol=1e-5
        )
    encoder.close()


def test_weights_that_cannot_be_fetched_name_the_offline_encoder(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = models.ResNet18_Weights.IMAGENET1K_V1
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2]).write_bytes(b"half a file")
    with pytest.raises(FetchFailed, match="effnet-lite0"):
        load_encoder("torchvision:resnet18")


def test_a_fingerprint_is_of_the_weights():
    torch.manual_seed(0)
    one = describe_encoder("torchvision:resnet18(weights=none, size=64)").fingerprint
    torch.manual_seed(0)
    assert describe_encoder("torchvision:resnet18(weights=none, size=64)").fingerprint == one
    assert describe_encoder("torchvision:resnet18(weights=none, size=64)").fingerprint != one
