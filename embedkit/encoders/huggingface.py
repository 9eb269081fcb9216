"""Any Hugging Face vision model, CLIP-like pair or sentence encoder: ``hf:openai/clip-vit-base-patch32``.

The name is a hub id or the path of a folder. Options: ``pooling`` (``cls`` or ``mean`` over tokens, for
models that do not project), ``revision``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embedkit import plugins
from embedkit.encoders.contract import Encoder, EncoderSpec, RuntimeName
from embedkit.encoders.preprocess import Preprocess
from embedkit.encoders.spec_text import SpecText
from embedkit.errors import BadInput, ConfigError, FetchFailed
from embedkit.types import Modality

if TYPE_CHECKING:
    from PIL.Image import Image

    from embedkit.types import ByteArray, FloatArray, VectorArray

__all__ = ["HuggingFaceEncoder", "build"]

_BICUBIC = 3  # PIL's number
_MAX_TOKENS = 512


def build(spec: SpecText, *, runtime: RuntimeName, threads: int, cache_dir: Path | None) -> Encoder:
    """Raises ConfigError, FetchFailed (not on this machine and no network), MissingExtra."""
    transformers = plugins.require("transformers", "train", needed_for=f"The encoder {spec.text!r}")
    plugins.require("torch", "train", needed_for=f"The encoder {spec.text!r}")
    del cache_dir  # the hub library has a cache of its own
    if runtime in ("onnx", "openvino"):
        raise ConfigError(f"{spec.text!r} runs in torch; set runtime to auto or torch")
    spec.only("pooling", "revision")
    if not spec.argument:
        raise ConfigError("Say which model, such as hf:openai/clip-vit-base-patch32 or hf:/path/to/folder")
    return HuggingFaceEncoder(spec, _load(transformers, spec), threads=threads)


def _load(transformers: Any, spec: SpecText) -> tuple[Any, Any, Any]:
    """(model, tokenizer or None, image processor or None). Weights come as safetensors only."""
    revision = spec.options.get("revision")
    try:
        config = transformers.AutoConfig.from_pretrained(spec.argument, revision=revision)
        model = transformers.AutoModel.from_pretrained(
            spec.argument, revision=revision, config=config, use_safetensors=True
        ).eval()
        joint = hasattr(model, "get_text_features") and hasattr(model, "get_image_features")
        seeing = joint or hasattr(config, "num_channels") or hasattr(config, "image_size")
        reading = joint or not seeing
        tokenizer = transformers.AutoTokenizer.from_pretrained(spec.argument, revision=revision) if reading else None
        processor = (
            transformers.AutoImageProcessor.from_pretrained(spec.argument, revision=revision) if seeing else None
        )
    except (OSError, ValueError, ImportError) as error:
        raise FetchFailed(
            f"The model {spec.argument!r} cannot be loaded ({str(error).strip().splitlines()[0][:200]}); "
            "check the name and the network, give a folder, or use an encoder that needs none: effnet-lite0 or minilm"
        ) from error
    return model, tokenizer, processor


class HuggingFaceEncoder(Encoder):
    """A transformers model in torch. A CLIP-like one takes pictures and texts into one space."""

    runtime = "torch"
    concurrency = 1

    def __init__(self, spec: SpecText, parts: tuple[Any, Any, Any], *, threads: int = 0) -> None:
        import torch

        from embedkit.encoders.torch_model import state_fingerprint

        self._model, self._tokenizer, processor = parts
        self._pooling = spec.choice("pooling", "mean" if processor is None else "cls", ("cls", "mean"))
        self._recipe = _recipe_of(processor) if processor is not None else None
        torch.set_num_threads(threads or os.cpu_count() or 1)
        modalities: list[Modality] = []
        if processor is not None:
            modalities.append("image")
        if self._tokenizer is not None:
            modalities.append("text")
        recipe = {**(self._recipe.as_dict() if self._recipe else {}), "pooling": self._pooling}
        self.spec = EncoderSpec(
            name=spec.text,
            modalities=tuple(modalities),
            dim=self._probe_dim(),
            fingerprint=state_fingerprint(self._model, recipe),
            input_size=self._recipe.size if self._recipe else None,
        )

    def _probe_dim(self) -> int:
        if self._recipe is not None:
            return int(self._pictures(np.zeros((1, *self._recipe.size, 3), np.uint8)).shape[1])
        return int(self._texts(["probe"]).shape[1])

    def prepare(self, picture: bytes | Image) -> ByteArray:
        if self._recipe is None:
            raise BadInput(f"The encoder {self.spec.name!r} takes text, not pictures")
        return self._recipe(picture)

    def encode(self, batch: ByteArray | Sequence[str]) -> VectorArray:
        if not len(batch):
            return np.empty((0, self.spec.dim), np.float32)
        if isinstance(batch, np.ndarray):
            if self._recipe is None:
                raise BadInput(f"The encoder {self.spec.name!r} takes text, not pictures")
            return self._pictures(batch)
        if self._tokenizer is None:
            raise BadInput(f"The encoder {self.spec.name!r} takes pictures, not text")
        return self._texts([str(text) for text in batch])

    def _pictures(self, pixels: ByteArray) -> FloatArray:
        import torch

        recipe = cast(Preprocess, self._recipe)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (recipe.mean, recipe.std))
        with torch.inference_mode():
            x = (torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255 - mean) / std
            if hasattr(self._model, "get_image_features"):
                return self._unit(self._model.get_image_features(pixel_values=x))
            return self._unit(self._model(pixel_values=x))

    def _texts(self, texts: Sequence[str]) -> FloatArray:
        import torch

        limit = min(int(getattr(self._tokenizer, "model_max_length", _MAX_TOKENS)), _MAX_TOKENS)
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        with torch.inference_mode():
            if hasattr(self._model, "get_text_features"):
                return self._unit(self._model.get_text_features(**tokens))
            return self._unit(self._model(**tokens), tokens["attention_mask"])

    def _unit(self, answer: Any, mask: Any = None) -> FloatArray:
        """One unit vector a row out of whatever the model answers."""
        import torch
        from torch.nn import functional as F

        if isinstance(answer, torch.Tensor):
            vectors = answer
        elif mask is None and getattr(answer, "pooler_output", None) is not None:
            vectors = answer.pooler_output.flatten(1)
        else:
            states = answer.last_hidden_state
            if states.ndim == 4:  # a convolutional network
                vectors = states.mean(dim=(2, 3))
            elif self._pooling == "cls":
                vectors = states[:, 0]
            else:
                weights = torch.ones(states.shape[:2]) if mask is None else mask.float()
                vectors = (states * weights.unsqueeze(2)).sum(dim=1) / weights.sum(dim=1, keepdim=True).clamp(min=1e-9)
        return cast("FloatArray", F.normalize(vectors.float(), dim=1).numpy())

    def close(self) -> None:
        self._model = None


def _recipe_of(processor: Any) -> Preprocess:
    """The image processor's numbers in our own recipe, so that one decoder serves every encoder."""
    crop = _size_of(getattr(processor, "crop_size", None)) if getattr(processor, "do_center_crop", False) else None
    resize = processor.size if isinstance(processor.size, dict) else dict(processor.size or {})
    shortest = resize.get("shortest_edge")
    size = crop or _size_of(resize) or (int(shortest or 224),) * 2
    keep = min(1.0, size[0] / shortest) if crop and shortest else 1.0
    return Preprocess(
        size=size,
        fit="crop" if crop or shortest else "squash",
        keep=keep,
        interpolation="bicubic" if getattr(processor, "resample", _BICUBIC) == _BICUBIC else "bilinear",
        mean=cast("tuple[float, float, float]", tuple(getattr(processor, "image_mean", None) or (0.0, 0.0, 0.0))),
        std=cast("tuple[float, float, float]", tuple(getattr(processor, "image_std", None) or (1.0, 1.0, 1.0))),
    )


def _size_of(values: Any) -> tuple[int, int] | None:
    if values is None:
        return None
    values = values if isinstance(values, dict) else dict(values)
    return (int(values["height"]), int(values["width"])) if "height" in values and "width" in values else None
