"""EfficientNet-Lite0 as a torch module: the same network as `effnet`, for training and for the torch runtime."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from embedkit.encoders.effnet import BN_EPS, FEATURES, Block, blocks
from embedkit.encoders.effnet_options import effnet_lite0_options
from embedkit.encoders.folder import read_manifest
from embedkit.encoders.poolings import make_pooling
from embedkit.encoders.torch_model import Backbone, PixelModel, TorchImageEncoder

if TYPE_CHECKING:
    from torch import Tensor

    from embedkit.encoders.contract import Encoder
    from embedkit.specs import SpecText

__all__ = ["EfficientNetLite0", "backbone", "build", "load_weights"]


class _Conv(nn.Sequential):
    """Convolution with TensorFlow's "same" padding, normalisation, and ReLU6 where `relu`."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1, relu: bool = True):
        super().__init__()
        self.size, self.stride, self.relu = size, stride, relu
        self.conv = nn.Conv2d(inputs, outputs, size, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=BN_EPS, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        down, across = (self._padding(length) for length in x.shape[2:])
        both = down // 2
        if down % 2 or down != across:
            x, both = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2)), 0
        if self.norm.training:
            x = self.norm(F.conv2d(x, self.conv.weight, None, self.stride, both, groups=self.conv.groups))
        else:
            x = F.conv2d(x, *self._folded(), self.stride, both, groups=self.conv.groups)
        return F.relu6(x, inplace=True) if self.relu else x

    def _folded(self) -> tuple[Tensor, Tensor]:
        """Kernel and bias with a normalisation that keeps its statistics multiplied in: one pass less over the maps."""
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert variance is not None
        scale = self.norm.weight * (variance + self.norm.eps).rsqrt()
        return self.conv.weight * scale[:, None, None, None], self.norm.bias - mean * scale

    def _padding(self, length: int) -> int:
        return max(0, (-(-length // self.stride) - 1) * self.stride + self.size - length)


class _Residual(nn.Module):
    def __init__(self, block: Block) -> None:
        super().__init__()
        wide = block.inputs * block.expand
        self.skip = block.skip
        self.expand = _Conv(block.inputs, wide, 1) if block.expand != 1 else nn.Identity()
        self.depthwise = _Conv(wide, wide, block.kernel, stride=block.stride, groups=wide)
        self.project = _Conv(wide, block.outputs, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return out + x if self.skip else out


class EfficientNetLite0(nn.Module):
    """``(n, 3, height, width)`` normalised RGB in, feature map ``(n, 1280, height / 32, width / 32)`` out."""

    channels = FEATURES

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(3, 32, 3, stride=2)
        self.blocks = nn.Sequential(*(_Residual(block) for block in blocks()))
        self.head = _Conv(320, FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.head(self.blocks(self.stem(x)))
        return features


def load_weights(network: EfficientNetLite0, weights: dict[str, Any]) -> None:
    """Take the published state dict, whose names are of another implementation."""
    names = {"conv": ("weight",), "norm": ("weight", "bias", "running_mean", "running_var")}
    pairs = [("stem", "_conv_stem", "_bn0"), ("head", "_conv_head", "_bn1")]
    for index, block in enumerate(blocks()):
        here = f"blocks.{index}"
        if block.expand != 1:
            pairs.append((f"{here}.expand", f"{block.name}._expand_conv", f"{block.name}._bn0"))
        pairs.append((f"{here}.depthwise", f"{block.name}._depthwise_conv", f"{block.name}._bn1"))
        pairs.append((f"{here}.project", f"{block.name}._project_conv", f"{block.name}._bn2"))
    state: OrderedDict[str, Tensor] = OrderedDict()
    for ours, conv, norm in pairs:
        for part, theirs in (("conv", conv), ("norm", norm)):
            for name in names[part]:
                state[f"{ours}.{part}.{name}"] = torch.from_numpy(weights[f"{theirs}.{name}"])
    missing = network.load_state_dict(state, strict=False).missing_keys
    left = [name for name in missing if not name.endswith("num_batches_tracked")]
    if left:
        raise ValueError(f"the weights lack {left[0]}")


def backbone(spec: SpecText) -> Backbone:
    """The network with its published weights. Raises ConfigError, DataCorrupt."""
    from embedkit.encoders.effnet_weights import effnet_weights
    from embedkit.encoders.pth import read_pth

    recipe, options = effnet_lite0_options(spec)
    network = EfficientNetLite0()
    load_weights(network, read_pth(effnet_weights()))
    return Backbone(network, recipe, options)


def build(folder: Path, spec: SpecText) -> Encoder:
    """The encoder of the builtin spec, run by torch."""
    made = backbone(spec)
    model = PixelModel(made.network, make_pooling(made.options.unfitted(spec)), made.recipe)
    return TorchImageEncoder(read_manifest(folder, name=spec.text).spec, made.recipe, model)
