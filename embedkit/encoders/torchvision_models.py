"""Any torchvision classifier as an encoder: ``torchvision:resnet50(pooling=gem, size=224, weights=IMAGENET1K_V2)``."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedkit import plugins
from embedkit.encoders.contract import Encoder, EncoderSpec, RuntimeName
from embedkit.encoders.preprocess import FITS, Preprocess
from embedkit.encoders.spec_text import SpecText
from embedkit.errors import ConfigError, FetchFailed, UnknownName

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build"]

_HEADS = ("fc", "classifier", "head", "heads", "avgpool", "dropout")


def build(spec: SpecText, *, runtime: RuntimeName, threads: int, cache_dir: Path | None) -> Encoder:
    """Raises ConfigError, FetchFailed (no network), MissingExtra, UnknownName.

    ``weights=none`` gives an untrained network, to be trained.
    """
    torchvision = plugins.require("torchvision", "train", needed_for=f"The encoder {spec.text!r}")
    from embedkit.encoders.poolings import NAMES, make_pooling
    from embedkit.encoders.torch_model import PixelModel, TorchImageEncoder, state_fingerprint

    del cache_dir
    if runtime in ("onnx", "openvino"):
        raise ConfigError(
            f"{spec.text!r} runs in torch; for {runtime} write it out first: embedkit export {spec.text!r} FOLDER"
        )
    spec.only("pooling", "size", "fit", "weights")
    if not spec.argument:
        raise ConfigError("Say which torchvision model, such as torchvision:resnet50")
    pooling = spec.choice("pooling", "avg", NAMES)
    network = _trunk(_pretrained(torchvision.models, spec), spec)
    recipe = Preprocess(
        size=(spec.whole_number("size", 224, 32, 1024),) * 2,
        fit=spec.choice("fit", "crop", FITS),  # type: ignore[arg-type]
    )
    model = PixelModel(network, make_pooling(pooling), recipe)
    made = EncoderSpec(
        name=spec.text,
        modalities=("image",),
        dim=_dim(model, recipe),
        fingerprint=state_fingerprint(model, {**recipe.as_dict(), "pooling": pooling}),
        input_size=recipe.size,
    )
    return TorchImageEncoder(made, recipe, model, threads=threads)


def _pretrained(models: Any, spec: SpecText) -> nn.Module:
    known = models.list_models(module=models)
    if spec.argument not in known:
        raise UnknownName("torchvision model", spec.argument, known)
    wanted = spec.options.get("weights", "DEFAULT")
    if wanted.lower() == "none":
        network: nn.Module = models.get_model(spec.argument, weights=None)
        return network
    choices = models.get_model_weights(spec.argument)
    if wanted not in ("DEFAULT", *choices.__members__):
        raise UnknownName(f"set of weights of {spec.argument}", wanted, choices.__members__)
    try:
        trained: nn.Module = models.get_model(spec.argument, weights=wanted)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise FetchFailed(
            f"The weights of {spec.text!r} cannot be fetched ({error}); check the network, "
            "or use the encoder that needs none: effnet-lite0"
        ) from error
    return trained


def _trunk(network: nn.Module, spec: SpecText) -> nn.Module:
    """The network up to its last feature map."""
    from torch import nn

    parts = [(name, child) for name, child in network.named_children() if name not in _HEADS]
    if not parts or not any(name in _HEADS for name, _ in network.named_children()) or hasattr(network, "encoder"):
        raise ConfigError(
            f"{spec.argument!r} of torchvision has no feature map to pool; "
            "choose a convolutional network such as resnet50"
        )
    return nn.Sequential(*(child for _, child in parts))


def _dim(model: nn.Module, recipe: Preprocess) -> int:
    import torch

    try:
        with torch.inference_mode():
            return int(model(torch.zeros(2, *recipe.size, 3, dtype=torch.uint8)).shape[1])
    except (RuntimeError, ValueError, IndexError) as error:
        raise ConfigError(
            f"The network does not take pictures of {recipe.size} and give a feature map: {error}"
        ) from error
