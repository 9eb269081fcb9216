"""Poolings that are fitted at export: their formulas in plain NumPy, the folders they become, and what is refused."""

from __future__ import annotations

import io
import json
import logging
import re

import numpy as np
import pytest
import torch

import embedkit
from embedkit.encoders.export import export_encoder
from embedkit.encoders.fit import fit_encoder
from embedkit.encoders.load import load_encoder
from embedkit.encoders.poolings import RMAC, NetVLAD
from embedkit.encoders.probe import agreement
from embedkit.encoders.regions import rmac_regions
from embedkit.encoders.samples import SamplePicture
from embedkit.encoders.whitening import fit_whitening
from embedkit.errors import ConfigError, UnknownName
from embedkit.ingest.sample import sample_pictures
from embedkit.ingest.sources.open import open_source


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture
def given_pictures(pictures):
    def make(count):
        found = []
        for seed in range(count):
            file = io.BytesIO()
            pictures(seed).save(file, "PNG")
            found.append(SamplePicture(f"{seed}.png", file.getvalue()))
        return found

    return make


@pytest.fixture
def prepared(given_pictures):
    """Pixels of pictures that no pooling was fitted to."""

    def make(encoder):
        return np.stack([encoder.prepare(one.data) for one in given_pictures(45)[40:]])

    return make


def skewed(count, channels):
    rng = np.random.default_rng(5)
    return rng.normal(size=(count, channels)) @ rng.normal(size=(channels, channels)) + rng.normal(size=channels)


def test_whitened_vectors_have_mean_zero_and_covariance_one():
    vectors = skewed(400, 24)
    whitening = fit_whitening(torch.from_numpy(vectors), 9).double()
    found = whitening(torch.from_numpy(vectors)).detach().numpy()
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(found.T), np.eye(9), atol=1e-3)


@pytest.mark.parametrize("count", [400, 20])
def test_a_whitening_keeps_the_directions_of_largest_variance(count):
    vectors = skewed(count, 24)
    values, axes = np.linalg.eigh(np.cov(unit(vectors).T))
    expected = ((unit(vectors) - unit(vectors).mean(axis=0)) @ axes[:, :-10:-1]) / np.sqrt(values[:-10:-1])
    found = fit_whitening(torch.from_numpy(vectors), 9).double()(torch.from_numpy(vectors)).detach().numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)  # an axis may point either way


def test_vectors_that_span_too_little_are_refused():
    vectors = torch.from_numpy(
        skewed(400, 24)[:, :6] @ np.ones((6, 24)) + skewed(400, 24) @ np.diag([1] * 5 + [0] * 19)
    )
    with pytest.raises(ConfigError, match=r"only 6 dimensions.*dim=6 or less"):
        fit_whitening(vectors, 7)
    with pytest.raises(ConfigError, match="more varied"):
        fit_whitening(torch.ones(50, 8), 2)


def test_a_fit_does_not_depend_on_the_number_of_threads(given_pictures):
    found = set()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        encoder, _ = fit_encoder("effnet-lite0(size=64, dim=4)", given_pictures(12))
        found.add(encoder.spec.fingerprint)
    assert len(found) == 1


def test_rmac_with_whitening_is_the_papers_recipe():
    maps = np.abs(skewed(30, 6 * 7 * 5).reshape(30, 6, 7, 5))
    regions = np.stack(
        [maps[:, :, y : y + side, x : x + side].max(axis=(2, 3)) for y, x, side in rmac_regions(7, 5)], axis=1
    )
    flat = unit(regions).reshape(-1, 6)
    values, axes = np.linalg.eigh(np.cov(flat.T))
    whitened = (unit(regions) - flat.mean(axis=0)) @ axes / np.sqrt(values)
    expected = unit(unit(whitened).sum(axis=1))

    whitening = fit_whitening(RMAC().regions(torch.from_numpy(maps)).flatten(0, 1), 6)
    found = RMAC(whitening=whitening).double()(torch.from_numpy(maps)).detach().numpy()
    np.testing.assert_allclose(unit(found) @ unit(found).T, expected @ expected.T, atol=1e-4)  # up to a rotation


def test_the_sharpness_of_netvlad_is_that_of_the_papers_appendix():
    local = torch.randn(500, 8, generator=torch.Generator().manual_seed(2))
    layer = NetVLAD(channels=8, clusters=5)
    layer.fit_centres(local)
    places = unit(local.numpy())
    squares = np.sort(((places[:, None] - layer.centres.detach().numpy()) ** 2).sum(axis=2), axis=1)
    ratios = layer.alpha * (squares[:, 1] - squares[:, 0])  # logarithm of the largest share over the second largest
    assert np.exp(ratios.mean()) == pytest.approx(100, rel=1e-3)


def test_fitted_netvlad_takes_its_centres_from_the_pictures(given_pictures, prepared):
    encoder, count = fit_encoder(
        "torchvision:squeezenet1_1(weights=none, size=64, pooling=netvlad, clusters=3)", given_pictures(12)
    )
    assert count == 12
    pixels = prepared(encoder)
    with torch.inference_mode():
        maps = encoder.model.features(torch.from_numpy(pixels)).numpy()
    pooling = encoder.model.pooling
    centres = pooling.centres.detach().numpy()
    places = unit(maps.reshape(*maps.shape[:2], -1).transpose(0, 2, 1))
    away = places[:, :, None, :] - centres
    shares = np.exp(-pooling.alpha * (away**2).sum(axis=3))
    shares /= shares.sum(axis=2, keepdims=True)
    expected = unit((shares[..., None] * away).sum(axis=1)).reshape(len(maps), -1)
    np.testing.assert_allclose(encoder.encode(pixels), unit(expected), atol=1e-4)
    assert encoder.spec.dim == 3 * 512


FITTED = {
    "effnet-lite0(size=64, pooling=netvlad, clusters=4, dim=12)": 12,
    "effnet-lite0(size=96, pooling=rmac, dim=40)": 40,
    "torchvision:mobilenet_v3_small(weights=none, size=64, dim=8)": 8,
}


@pytest.mark.parametrize("text", FITTED)
def test_a_fitted_encoder_becomes_a_folder_that_gives_its_vectors_without_torch(
    text, tmp_path, catalog, prepared, monkeypatch
):
    kept = []

    def spy(*given):
        encoder, count = fit_encoder(*given)
        pixels = prepared(encoder)
        kept.append((encoder.spec, pixels, encoder.encode(pixels)))
        return encoder, count

    monkeypatch.setattr("embedkit.encoders.fit.fit_encoder", spy)
    folder = embedkit.export_encoder(text, tmp_path / "model", fit=catalog)
    assert {path.name for path in folder.iterdir()} == {"encoder.json", "model.onnx", "model.safetensors", "README.md"}
    assert json.loads((folder / "encoder.json").read_text())["training"] == {"fitted_on": {"pictures": 24}}
    assert "24 pictures" in (folder / "README.md").read_text()
    spec, pixels, vectors = kept[0]
    for runtime in ("onnx", "openvino"):
        encoder = load_encoder(str(folder), runtime=runtime)
        assert encoder.spec.dim == FITTED[text]
        assert encoder.spec.fingerprint == spec.fingerprint
        assert agreement(encoder.encode(pixels), vectors) > 0.9999
        encoder.close()


def squeezenet(options, pictures):
    """A small network, the same one every time."""
    torch.manual_seed(0)
    return fit_encoder(f"torchvision:squeezenet1_1(weights=none, size=64, {options})", pictures)


def test_a_fingerprint_covers_what_was_fitted(given_pictures):
    prints = [squeezenet("dim=4", given_pictures(count))[0].spec.fingerprint for count in (20, 20, 21)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    "text", ["effnet-lite0(pooling=netvlad)", "effnet-lite0(dim=64)", "torchvision:resnet18(weights=none, dim=64)"]
)
def test_without_pictures_the_message_says_how_to_fit(text, tmp_path):
    with pytest.raises(ConfigError, match=r"embedkit export .* --fit"):
        load_encoder(text)
    with pytest.raises(ConfigError, match=r"embedkit export .* --fit"):
        load_encoder(text, runtime="torch")
    with pytest.raises(ConfigError, match=r"embedkit export .* --fit"):
        export_encoder(text, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("options", "count", "message"),
    [
        ("dim=12", 12, "at least 13 good pictures, not 12"),
        ("pooling=netvlad, clusters=20", 2, "at least 3 good pictures, not 2"),
        ("pooling=rmac", 3, "at least 37 good pictures, not 3"),  # 37 x 14 regions for 512 channels
        ("pooling=netvlad", 0, "at least 2 good pictures, not 0"),
    ],
)
def test_too_few_pictures_are_refused_with_the_number_needed(options, count, message, given_pictures):
    with pytest.raises(ConfigError, match=message):
        squeezenet(options, given_pictures(count))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("effnet-lite0(size=64)", ConfigError, "nothing to be fitted"),
        ("effnet-lite0(size=64, clusters=4)", ConfigError, "needs pooling=netvlad"),
        ("effnet-lite0(size=64, pooling=netvlad, clusters=1)", ConfigError, "2 to 1024"),
        ("minilm", ConfigError, "cannot be fitted"),
        ("efnet-lite0(dim=4)", UnknownName, "effnet-lite0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(text, error, message, given_pictures):
    with pytest.raises(error, match=message):
        fit_encoder(text, given_pictures(3))


def test_bad_pictures_are_left_out_of_the_fit_and_counted(given_pictures, caplog):
    good = given_pictures(15)
    with caplog.at_level(logging.WARNING):
        bad = SamplePicture("words.png", b"no picture"), SamplePicture("empty.png", b"")
        encoder, count = squeezenet("dim=4", [bad[0], *good, bad[1]])
    assert count == 15
    assert "2 pictures cannot be decoded" in caplog.text
    assert "The first is words.png: it is not a picture of a known format" in caplog.text
    assert encoder.spec.fingerprint == squeezenet("dim=4", good)[0].spec.fingerprint


def test_no_more_pictures_are_read_than_are_used(given_pictures, monkeypatch):
    monkeypatch.setattr("embedkit.encoders.fit._PICTURES", 10)
    pictures = iter(given_pictures(20))
    assert squeezenet("dim=4", pictures)[1] == 10
    assert len(list(pictures)) == 10


def test_a_sample_is_random_and_yet_the_same_every_time(catalog, caplog):
    source = open_source(str(catalog))
    sample = list(sample_pictures(source))
    assert sample == list(sample_pictures(open_source(str(catalog))))
    files = [one.data for one in sample]
    in_order = [(catalog / "img" / f"{number:02}.png").read_bytes() for number in range(24)]
    assert files != in_order
    assert sorted(files) == sorted(in_order)
    assert sample != list(sample_pictures(source, seed=1))
    (catalog / "img" / "03.png").unlink()
    with caplog.at_level(logging.WARNING):
        assert list(sample_pictures(source)) == [one for one in sample if one.data != in_order[3]]
    assert re.search("1 pictures .* The first is .*03.png: no such file", caplog.text)
