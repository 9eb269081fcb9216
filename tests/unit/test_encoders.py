"""Encoders keep their contract, and agree with independent implementations of the same networks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet

from embedkit.encoders.effnet_weights import effnet_weights
from embedkit.encoders.export import export_encoder
from embedkit.encoders.load import describe_encoder, load_encoder
from embedkit.encoders.poolings import RMAC, GeM, NetVLAD
from embedkit.encoders.preprocess import Preprocess
from embedkit.encoders.probe import agreement, probe_pixels
from embedkit.errors import BadInput, ConfigError, DataCorrupt, FetchFailed, UnknownName
from embedkit.specs import parse_spec
from embedkit.testing.encoder import EncoderContract


class TestEffnetLite0(EncoderContract):
    spec = "effnet-lite0"


class TestEffnetLite0InTorch(EncoderContract):
    spec = "effnet-lite0"
    runtime = "torch"


class TestMiniLm(EncoderContract):
    spec = "minilm"


class TestTorchvision(EncoderContract):
    spec = "torchvision:mobilenet_v3_small(weights=none, size=64, pooling=gem)"


@pytest.fixture(scope="module")
def reference_features():
    """Feature maps of the probe by the package that published the weights."""
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(effnet_weights())).eval()
    recipe = Preprocess()
    pixels = torch.from_numpy(probe_pixels((224, 224))).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(recipe.mean).view(3, 1, 1)) / torch.tensor(recipe.std).view(3, 1, 1)
    with torch.inference_mode():
        return network.extract_features(pixels)


POOLED = {
    "avg": lambda x: x.mean(dim=(2, 3)),
    "max": lambda x: x.amax(dim=(2, 3)),
    "gem": lambda x: x.clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3),
    "rmac": RMAC(),
}


@pytest.mark.parametrize("pooling", POOLED)
@pytest.mark.parametrize("runtime", ["onnx", "openvino", "torch"])
def test_every_runtime_agrees_with_the_published_network(reference_features, pooling, runtime):
    encoder = load_encoder(f"effnet-lite0(pooling={pooling})", runtime=runtime)
    found = encoder.encode(probe_pixels((224, 224)))
    encoder.close()
    assert agreement(found, POOLED[pooling](reference_features).numpy()) > 0.9999


def test_gem_lies_between_mean_and_maximum():
    features = torch.rand(2, 5, 7, 7)
    assert torch.allclose(GeM(1.0)(features), features.mean(dim=(2, 3)), atol=1e-5)
    assert torch.allclose(GeM(200.0)(features.double()), features.amax(dim=(2, 3)).double(), atol=0.03)


def test_netvlad_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    layer = NetVLAD(channels=6, clusters=4, alpha=3.0)
    layer.fit_centres(torch.randn(200, 6))
    features = torch.randn(2, 6, 3, 5)
    local = torch.nn.functional.normalize(features, dim=1).flatten(2).transpose(1, 2)
    expected = torch.zeros(2, 4, 6)
    for image in range(2):
        for x in local[image]:
            shares = torch.softmax(-3.0 * (x - layer.centres).square().sum(dim=1), dim=0)
            expected[image] += shares[:, None] * (x - layer.centres)
    expected = torch.nn.functional.normalize(expected, dim=2).flatten(1)
    assert torch.allclose(layer(features), torch.nn.functional.normalize(expected, dim=1), atol=1e-5)
    with pytest.raises(ConfigError, match="4 centres"):
        layer.fit_centres(torch.randn(3, 6))


def test_a_text_does_not_depend_on_its_batch():
    encoder = load_encoder("minilm")
    texts = ["a red canvas shoe", "x", "a much longer sentence about nothing in particular, to fill the batch " * 3]
    together = encoder.encode(texts)
    for row, text in enumerate(texts):
        np.testing.assert_array_equal(encoder.encode([text])[0], together[row])
    assert (
        together[0] @ encoder.encode(["crimson sneakers"])[0] > together[0] @ encoder.encode(["stock market"])[0] + 0.2
    )
    encoder.close()


def test_a_fingerprint_holds_weights_and_preprocessing():
    prints = [
        describe_encoder(text).fingerprint
        for text in ("effnet-lite0", "effnet-lite0(size=192)", "effnet-lite0(fit=pad)")
    ]
    assert len(set(prints)) == 3
    assert describe_encoder("effnet-lite0").fingerprint == prints[0]


def test_an_exported_folder_gives_the_same_vectors_without_torch(tmp_path):
    original = "torchvision:mobilenet_v3_small(weights=none, size=64)"
    folder = export_encoder(original, tmp_path / "model")
    assert {path.name for path in folder.iterdir()} == {"encoder.json", "model.onnx", "model.safetensors", "README.md"}
    for runtime in ("onnx", "openvino"):
        encoder = load_encoder(str(folder), runtime=runtime)
        assert encoder.encode(probe_pixels((64, 64))).shape == (2, encoder.spec.dim)
        encoder.close()
    with pytest.raises(ConfigError, match="--overwrite"):
        export_encoder("effnet-lite0", folder)
    export_encoder("effnet-lite0", folder, overwrite=True)
    assert describe_encoder(str(folder)).fingerprint == describe_encoder("effnet-lite0").fingerprint


def test_a_model_that_disagrees_with_its_probe_is_refused(tmp_path):
    folder = export_encoder("torchvision:mobilenet_v3_small(weights=none, size=64)", tmp_path / "model")
    other = export_encoder("torchvision:mobilenet_v3_small(weights=none, size=64)", tmp_path / "other")
    (folder / "model.onnx").write_bytes((other / "model.onnx").read_bytes())
    with pytest.raises(DataCorrupt, match="cosine"):
        load_encoder(str(folder), runtime="onnx")
    (folder / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(DataCorrupt, match=r"model\.onnx"):
        load_encoder(str(folder), runtime="onnx")
    manifest = json.loads((folder / "encoder.json").read_text())
    del manifest["dim"]
    (folder / "encoder.json").write_text(json.dumps(manifest))
    with pytest.raises(DataCorrupt, match="dim"):
        load_encoder(str(folder))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("efnet-lite0", UnknownName, "effnet-lite0"),
        ("torchvision:resnet5(weights=none)", UnknownName, "resnet50"),
        ("effnet-lite0(poling=gem)", ConfigError, "pooling"),
        ("effnet-lite0(pooling=best)", ConfigError, "rmac"),
        ("effnet-lite0(size=big)", ConfigError, "64 to 1024"),
        ("torchvision", ConfigError, "resnet50"),
        ("effnet-lite0((", ConfigError, "is no encoder"),
        ("./nowhere", ConfigError, "no model folder"),
        ("~nobody-has-this-name/model", ConfigError, "no model folder"),
        ("x" * 300, UnknownName, "There is no encoder"),
        ("effnet-lite0(pooling=netvlad)", ConfigError, "--fit"),
    ],
)
def test_a_bad_name_says_what_is_known(text, error, message):
    with pytest.raises(error, match=message):
        load_encoder(text)


def test_without_a_network_the_offline_encoder_is_named(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FetchFailed, match="minilm"):
        load_encoder("hf:embedkit/no-such-model")


def test_wrong_pixels_are_refused():
    encoder = load_encoder("effnet-lite0")
    with pytest.raises(BadInput, match="224"):
        encoder.encode(np.zeros((1, 32, 32, 3), np.uint8))
    encoder.close()


def test_spec_text_round_trip():
    spec = parse_spec("torchvision:resnet50( pooling = gem , size=224 )")
    assert parse_spec(spec.text) == spec
