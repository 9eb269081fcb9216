"""Any Hugging Face vision model, CLIP-like pair or sentence encoder: ``hf:openai/clip-vit-base-patch32``.

The name is a hub id or the path of a folder. Options: ``revision``; ``pooling`` (``cls``, ``max`` or ``mean`` over
tokens, or the model's own ``pooler``) for models that do not project. By default pictures take the pooler where its
weights were published, else ``cls``; texts what the files of sentence-transformers say, else ``mean``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedkit import plugins
from embedkit.encoders.contract import Encoder, EncoderSpec, RuntimeName
from embedkit.encoders.model import JointEncoder
from embedkit.encoders.probe import PROBE_TEXTS, probe_pixels
from embedkit.errors import ConfigError
from embedkit.specs import SpecText
from embedkit.types import Modality

if TYPE_CHECKING:
    from embedkit.encoders.hf.load import Parts
    from embedkit.encoders.hf.texts import TorchTextEncoder
    from embedkit.encoders.torch_model import TorchImageEncoder

__all__ = ["build"]


def build(spec: SpecText, *, runtime: RuntimeName, threads: int, cache_dir: Path | None) -> Encoder:
    """Raises ConfigError, FetchFailed (not on this machine and no network), MissingExtra."""
    transformers = plugins.require("transformers", "train", needed_for=f"The encoder {spec.text!r}")
    for package in ("torch", "torchvision"):
        plugins.require(package, "train", needed_for=f"The encoder {spec.text!r}")
    from embedkit.encoders.hf.load import load_parts

    del cache_dir  # the hub library has a cache of its own
    if runtime in ("onnx", "openvino"):
        raise ConfigError(
            f"{spec.text!r} runs in torch; for {runtime} write it out first: embedkit export {spec.text!r} FOLDER"
        )
    spec.only("pooling", "revision")
    if not spec.argument:
        raise ConfigError("Say which model, such as hf:openai/clip-vit-base-patch32 or hf:/path/to/folder")
    parts = load_parts(transformers, spec)
    if parts.joint and "pooling" in spec.options:
        raise ConfigError(f"{spec.argument!r} projects its vectors itself; leave pooling out of {spec.text!r}")
    try:
        pictures = _pictures(spec, parts, threads) if parts.processor is not None else None
        texts = _texts(transformers, spec, parts, threads) if parts.tokenizer is not None else None
        return _identified(spec, parts, pictures, texts)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ConfigError(
            f"{spec.argument!r} does not make vectors of pictures or texts alone ({reason}); choose another model"
        ) from error


def _pictures(spec: SpecText, parts: Parts, threads: int) -> TorchImageEncoder:
    from torch import nn

    from embedkit.encoders.hf.pixels import recipe_of
    from embedkit.encoders.hf.towers import PictureTower, picture_pooling
    from embedkit.encoders.torch_model import PixelModel, TorchImageEncoder

    recipe = recipe_of(parts.processor, parts.model.config, name=spec.argument)
    pooling = None
    if not parts.joint:
        pooling = picture_pooling(parts.model, recipe.size, _wanted(spec), pooled=parts.pooled)
    model = PixelModel(PictureTower(parts.model, pooling), nn.Identity(), recipe)
    return TorchImageEncoder(_draft(spec), recipe, model, threads=threads)


def _texts(transformers: Any, spec: SpecText, parts: Parts, threads: int) -> TorchTextEncoder:
    from embedkit.encoders.hf.load import read_json
    from embedkit.encoders.hf.sentences import SentenceFiles, read_sentence_files
    from embedkit.encoders.hf.texts import TorchTextEncoder, text_recipe_of
    from embedkit.encoders.hf.towers import TextTower

    files, pooling = SentenceFiles(), None
    if not parts.joint:
        read = partial(read_json, transformers, spec)
        files = read_sentence_files(read, name=spec.argument, pooling=_wanted(spec))
        pooling = files.pooling
        if pooling == "pooler" and not parts.pooled:
            raise ConfigError(f"The weights of {spec.argument!r} lack its pooler; choose pooling=cls, mean or max")
    recipe = text_recipe_of(parts.model, parts.tokenizer, files, name=spec.argument)
    tower = TextTower(parts.model, recipe.inputs, pooling)
    return TorchTextEncoder(_draft(spec), recipe, parts.tokenizer, tower, threads=threads)


def _wanted(spec: SpecText) -> str:
    """The pooling that is asked for, or nothing."""
    from embedkit.encoders.hf.sentences import POOLINGS

    return spec.choice("pooling", "", POOLINGS) if "pooling" in spec.options else ""


def _draft(spec: SpecText) -> EncoderSpec:
    return EncoderSpec(spec.text, (), 0, "")


def _identified(
    spec: SpecText, parts: Parts, pictures: TorchImageEncoder | None, texts: TorchTextEncoder | None
) -> Encoder:
    """The encoder with its spec: dimension measured, one fingerprint over weights and both recipes."""
    from embedkit.encoders.torch_model import state_fingerprint

    held: dict[str, object] = {}
    modalities: list[Modality] = []
    dims = set()
    if pictures is not None:
        modalities.append("image")
        held["pictures"] = {**pictures.recipe.as_dict(), "pooling": pictures.model.network.pooling}
        dims.add(pictures.encode(probe_pixels(pictures.recipe.size)).shape[1])
    if texts is not None:
        modalities.append("text")
        held["texts"] = {**texts.recipe.as_dict(), **texts.content()}
        dims.add(texts.encode(PROBE_TEXTS).shape[1])
    if len(dims) != 1:
        raise ConfigError(f"{spec.argument!r} makes vectors of {sorted(dims)} floats, which are not in one space")
    made = EncoderSpec(
        name=spec.text,
        modalities=tuple(modalities),
        dim=dims.pop(),
        fingerprint=state_fingerprint(parts.model, held),
        input_size=pictures.recipe.size if pictures is not None else None,
    )
    for encoder in (pictures, texts):
        if encoder is not None:
            encoder.spec = made
    if pictures is not None and texts is not None:
        return JointEncoder(made, pictures, texts)
    only: Encoder = pictures or texts  # type: ignore[assignment]
    return only
