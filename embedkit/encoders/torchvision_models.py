"""Any torchvision classifier as an encoder: ``torchvision:resnet50(pooling=gem, size=224, weights=IMAGENET1K_V2)``.

Vision transformers give their class token (``pooling=cls``) or their grid of patches to any other pooling.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedkit import plugins
from embedkit.encoders.contract import Encoder, RuntimeName
from embedkit.encoders.pooling_options import POOLING_OPTIONS, POOLINGS, PoolingOptions
from embedkit.encoders.preprocess import FITS, Preprocess
from embedkit.errors import ConfigError, FetchFailed, UnknownName
from embedkit.specs import SpecText

if TYPE_CHECKING:
    from torch import nn

    from embedkit.encoders.torch_model import Backbone

__all__ = ["backbone", "build"]

# Families whose forward runs their children in order, up to the first that belongs to the head.
_GRIDS = frozenset(
    [
        "AlexNet",
        "ConvNeXt",
        "DenseNet",
        "EfficientNet",
        "GoogLeNet",
        "Inception3",
        "MNASNet",
        "MaxVit",
        "MobileNetV2",
        "MobileNetV3",
        "RegNet",
        "ResNet",
        "ShuffleNetV2",
        "SqueezeNet",
        "SwinTransformer",
        "VGG",
    ]
)
_HEAD = frozenset(["AuxLogits", "aux1", "aux2", "avgpool", "classifier", "dropout", "fc", "flatten", "head"])
_SIZES = {"Inception3": 299, "MaxVit": 224}  # what a network was made for, where no weights say it


def build(spec: SpecText, *, runtime: RuntimeName, threads: int, cache_dir: Path | None) -> Encoder:
    """Raises ConfigError, FetchFailed (no network), MissingExtra, UnknownName.

    ``weights=none`` gives an untrained network, to be trained.
    """
    plugins.require("torchvision", "train", needed_for=f"The encoder {spec.text!r}")
    from embedkit.encoders.poolings import make_pooling
    from embedkit.encoders.torch_model import encoder_of

    del cache_dir
    if runtime in ("onnx", "openvino"):
        raise ConfigError(
            f"{spec.text!r} runs in torch; for {runtime} write it out first: embedkit export {spec.text!r} FOLDER"
        )
    pooling = make_pooling(_options(spec).unfitted(spec))
    return encoder_of(spec, backbone(spec), pooling, threads=threads)


def backbone(spec: SpecText) -> Backbone:
    """The network up to its last feature map, or class token. Raises ConfigError, FetchFailed, UnknownName."""
    torchvision = plugins.require("torchvision", "train", needed_for=f"The encoder {spec.text!r}")
    from embedkit.encoders.torch_model import Backbone

    options = _options(spec)
    network, weights = _pretrained(torchvision.models, spec)
    recipe = _recipe(network, weights, spec)
    return Backbone(_trunk(network, spec, options), recipe, options)


def _options(spec: SpecText) -> PoolingOptions:
    spec.only(*POOLING_OPTIONS, "size", "fit", "weights")
    if not spec.argument:
        raise ConfigError("Say which torchvision model, such as torchvision:resnet50")
    if spec.argument.startswith("vit_"):
        return PoolingOptions.of(spec, default="cls", known=("cls", *POOLINGS))
    return PoolingOptions.of(spec)


def _pretrained(models: Any, spec: SpecText) -> tuple[nn.Module, Any]:
    """The classifier and its weights, None if it is untrained."""
    known = models.list_models(module=models)
    if spec.argument not in known:
        raise UnknownName("torchvision model", spec.argument, known)
    wanted = spec.options.get("weights", "DEFAULT")
    if wanted.lower() == "none":
        more = {"init_weights": True} if spec.argument in ("googlenet", "inception_v3") else {}  # else they warn
        return models.get_model(spec.argument, weights=None, **more), None
    choices = models.get_model_weights(spec.argument)
    if wanted not in ("DEFAULT", *choices.__members__):
        raise UnknownName(f"set of weights of {spec.argument}", wanted, choices.__members__)
    weights = choices[wanted]
    try:
        weights.get_state_dict(progress=False, check_hash=True, weights_only=True)  # refuses more than plain tensors
        return models.get_model(spec.argument, weights=weights), weights
    except Exception as error:  # no network, or what a damaged file leads to
        raise FetchFailed(
            f"The weights of {spec.text!r} cannot be fetched ({error}); check the network, "
            "or use the encoder that needs none: effnet-lite0"
        ) from error


def _recipe(network: Any, weights: Any, spec: SpecText) -> Preprocess:
    """How the weights were trained, where the spec does not say otherwise."""
    family = type(network).__name__
    fixed = network.image_size if family == "VisionTransformer" else _SIZES[family] if family == "MaxVit" else None
    given: dict[str, Any] = {}
    size = fixed or _SIZES.get(family, 224)
    if weights is not None:
        used = weights.transforms()
        size = fixed or used.crop_size[0]
        given = {
            "keep": min(1.0, used.crop_size[0] / used.resize_size[0]),
            "interpolation": used.interpolation.value,
            "mean": tuple(used.mean),
            "std": tuple(used.std),
        }
    if getattr(network, "transform_input", False):  # its forward turns ImageNet's mean and deviation into these
        given |= {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    size = spec.whole_number("size", size, 32, 1024)
    if fixed and size != fixed:
        raise ConfigError(f"{spec.argument} of torchvision takes pictures of {fixed} x {fixed} only; leave size= out")
    fit = spec.choice("fit", "crop", FITS)
    return Preprocess(size=(size, size), fit=fit, **given)  # type: ignore[arg-type]


def _trunk(network: Any, spec: SpecText, options: PoolingOptions) -> nn.Module:
    """The network without its head."""
    from torch import nn

    family = type(network).__name__
    if family == "VisionTransformer":
        from embedkit.encoders.vit import PatchGrid

        network.heads = nn.Identity()
        return network if options.name == "cls" else PatchGrid(network)
    if family not in _GRIDS:
        raise ConfigError(
            f"embedkit does not know where the head of {spec.argument!r} begins; choose another one, such as resnet50"
        )
    steps = OrderedDict(
        (name, nn.Sequential(*child) if isinstance(child, nn.ModuleList) else child)
        for name, child in network.named_children()
        if name not in _HEAD
    )
    if family == "DenseNet":
        steps["relu"] = nn.ReLU()  # in its forward, after the last normalisation
    return nn.Sequential(steps)
