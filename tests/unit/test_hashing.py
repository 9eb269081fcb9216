"""Codes out of the floats of any encoder: the methods in plain NumPy, and the folders they become."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

import embedkit
from embedkit.codes import packed
from embedkit.encoders.codes import check_bits
from embedkit.encoders.hash_options import Hashing, hashing_of
from embedkit.encoders.load import load_encoder
from embedkit.encoders.projections import directions, itq_rotation, principal_axes
from embedkit.errors import ConfigError
from tests.conftest import WITHOUT_TORCH

RNG = np.random.default_rng(8)


def skewed(count, channels):
    return (RNG.normal(size=(count, channels)) * np.linspace(3, 0.2, channels)).astype(np.float32)


@pytest.mark.parametrize("count", [300, 15], ids=["many", "fewer than channels"])
def test_principal_axes_are_those_of_a_singular_value_decomposition(count):
    vectors = skewed(count, 24)
    centred = vectors - vectors.mean(axis=0)
    expected = np.linalg.svd(centred)[2][:10]
    assert np.abs(np.sum(principal_axes(centred, 10) * expected, axis=1)) == pytest.approx(np.ones(10), abs=1e-4)


def test_itq_loses_less_by_the_sign_than_its_start_and_stays_a_rotation():
    """Gong & Lazebnik 2011, eq. 2: ‖B - VR‖² is to be small."""
    values = skewed(500, 16)

    def loss(rotation):
        turned = values @ rotation
        return float(np.square(np.where(turned > 0, 1, -1) - turned).sum())

    losses = [loss(itq_rotation(values, rounds=rounds)) for rounds in (0, 1, 5, 50)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    rotation = itq_rotation(values)
    assert rotation @ rotation.T == pytest.approx(np.eye(16), abs=1e-4)


def test_itq_turns_the_principal_axes():
    vectors = skewed(400, 24)
    centred = vectors - vectors.mean(axis=0)
    itq, axes = directions(centred, 16, "itq"), principal_axes(centred, 16)
    assert itq == pytest.approx(itq_rotation(centred @ axes.T).T @ axes, abs=1e-5)
    assert directions(centred, 16, "pca") == pytest.approx(axes, abs=1e-5)


@pytest.mark.parametrize("method", ["itq", "pca"])
def test_what_is_fitted_does_not_depend_on_the_order_of_sums(method):
    """Which another number of threads changes too; the fingerprint of an encoder is of these very numbers."""
    vectors = skewed(600, 24)
    centred = vectors - vectors.mean(axis=0)
    assert (directions(centred[::-1], 16, method) == directions(centred, 16, method)).all()


def test_sign_takes_the_numbers_as_they_are_and_lsh_random_directions():
    vectors = skewed(50, 16)
    assert (directions(vectors, 16, "sign") == np.eye(16)).all()
    assert (directions(vectors, 32, "lsh") == directions(vectors * 0, 32, "lsh")).all()
    with pytest.raises(ConfigError, match="a bit for each of 16 numbers, not bits=24"):
        directions(vectors, 24, "sign")


def test_what_a_spec_says_about_codes():
    assert hashing_of("effnet-lite0(size=96, bits=64, hash=itq)") == Hashing("effnet-lite0(size=96)", 64, "itq")
    assert hashing_of("runs/my run(bits=32, hash=lsh)") == Hashing("runs/my run", 32, "lsh")
    assert hashing_of("effnet-lite0(size=96)") is None
    assert hashing_of("runs/npair") is None
    for text, message in (
        ("effnet-lite0(bits=64)", "needs both bits and hash"),
        ("effnet-lite0(bits=60, hash=itq)", "bits = 60 is not a multiple of 8"),
        ("effnet-lite0(bits=64, hash=best)", "hash=best .* is not one of itq, lsh, pca, sign"),
    ):
        with pytest.raises(ConfigError, match=message):
            hashing_of(text)
    assert [check_bits(bits) for bits in (16, 512)] == [16, 512]


@pytest.mark.parametrize("method", ["itq", "pca", "lsh"])
def test_a_float_encoder_becomes_a_folder_of_codes_that_every_runtime_gives(method, tmp_path, catalog):
    folder = embedkit.export_encoder(f"effnet-lite0(size=64, bits=16, hash={method})", tmp_path / "model", fit=catalog)
    spec = embedkit.describe_encoder(str(folder))
    assert (spec.kind, spec.dim) == ("binary", 16)
    assert "16 bits" in (folder / "README.md").read_text()
    floats = load_encoder("effnet-lite0(size=64)", runtime="onnx")
    pixels = np.stack([floats.prepare((catalog / "img" / f"{number:02}.png").read_bytes()) for number in range(24)])
    vectors = floats.encode(pixels)
    kept = load_file(folder / "model.safetensors")
    mean = vectors.mean(axis=0)
    assert kept["hash.mean"] == pytest.approx(mean, abs=1e-5)
    if method != "itq":  # whose last digits depend on the order of pictures
        assert kept["hash.axes"] == pytest.approx(directions(vectors - mean, 16, method), abs=1e-3)
    expected = packed((vectors - kept["hash.mean"]) @ kept["hash.axes"].T)
    for runtime in ("onnx", "openvino"):
        encoder = load_encoder(str(folder), runtime=runtime)
        found = encoder.encode(pixels)
        encoder.close()
        differ = np.unpackbits(found ^ expected)
        assert differ.mean() < 0.01, runtime
    assert spec.fingerprint != floats.spec.fingerprint
    floats.close()


def test_a_folder_can_be_hashed_as_well_and_then_no_more(tmp_path, catalog):
    floats = embedkit.export_encoder("effnet-lite0(size=64, dim=16)", tmp_path / "floats", fit=catalog)
    folder = embedkit.export_encoder(f"{floats}(bits=16, hash=sign)", tmp_path / "codes", fit=catalog)
    assert embedkit.describe_encoder(str(folder)).kind == "binary"
    stored = json.loads((folder / "encoder.json").read_text())
    assert stored["training"] == {
        "fitted_on": {"pictures": 24},
        "hashed": {"method": "sign", "bits": 16, "pictures": 24},
    }
    with pytest.raises(ConfigError, match="cannot be hashed"):
        embedkit.export_encoder(f"{folder}(bits=16, hash=lsh)", tmp_path / "again", fit=catalog)
    assert not (tmp_path / "again").exists()


def test_codes_are_fitted_and_encoded_where_torch_is_not_installed(tmp_path, catalog):
    code = f"""{WITHOUT_TORCH}
import embedkit
spec = "effnet-lite0(size=64, bits=16, hash=itq)"
folder = embedkit.export_encoder(spec, {str(tmp_path / "m")!r}, fit={str(catalog)!r})
assert embedkit.describe_encoder(str(folder)).kind == "binary"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_hashed_says_what_to_do(tmp_path, catalog, caplog):
    with pytest.raises(ConfigError, match=r"embedkit export .*hash=itq.* --fit PICTURES"):
        embedkit.export_encoder("effnet-lite0(bits=64, hash=itq)", tmp_path / "m")
    with pytest.raises(ConfigError, match=r"embedkit export .* FOLDER --fit PICTURES"):
        load_encoder("effnet-lite0(bits=64, hash=itq)")
    for number in range(3):
        (catalog / "img" / f"{number:02}.png").write_bytes(b"words")
    with pytest.raises(ConfigError, match="at least 65 good pictures, not 21"):
        embedkit.export_encoder("effnet-lite0(size=64, bits=64, hash=itq)", tmp_path / "m", fit=catalog)
    assert re.search(r"3 pictures cannot be decoded .* The first is .*0[0-2]\.png: it is not a picture", caplog.text)
    with pytest.raises(ConfigError, match="cannot be hashed"):
        embedkit.export_encoder("minilm(bits=64, hash=lsh)", tmp_path / "m", fit=catalog)
