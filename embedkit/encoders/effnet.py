"""EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946; the Lite variant drops squeeze-and-excite
and swish) as an ONNX graph, made from the published ImageNet weights without torch.

Input ``pixels``: uint8 ``(n, height, width, 3)``. Output ``vectors``: float32 ``(n, 1280)`` of unit length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from embedkit.encoders.preprocess import Preprocess

__all__ = ["BN_EPS", "FEATURES", "STAGES", "Block", "blocks", "build_graph", "folded"]

Array = npt.NDArray[np.float32]

FEATURES = 1280
BN_EPS = 1e-3
GEM_P = 3.0  # Radenović et al. 2018 (arXiv:1711.02512) start from 3
# repeats, kernel, stride, expansion, output channels: table 1 of the paper
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@dataclass(frozen=True, slots=True)
class Block:
    """One inverted residual: expand 1x1, depthwise, project 1x1. `skip`: the input is added."""

    name: str
    kernel: int
    stride: int
    expand: int
    inputs: int
    outputs: int

    @property
    def skip(self) -> bool:
        return self.stride == 1 and self.inputs == self.outputs


def blocks() -> Iterator[Block]:
    """The sixteen blocks in order, named as in the weights file."""
    inputs, index = 32, 0
    for repeats, kernel, stride, expand, outputs in STAGES:
        for repeat in range(repeats):
            yield Block(f"_blocks.{index}", kernel, stride if repeat == 0 else 1, expand, inputs, outputs)
            inputs, index = outputs, index + 1


def folded(weights: Mapping[str, npt.NDArray[Any]], conv: str, norm: str) -> tuple[Array, Array]:
    """Kernel and bias of a convolution with its batch normalisation multiplied in."""
    scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + BN_EPS)
    kernel = weights[f"{conv}.weight"] * scale[:, None, None, None]
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    return kernel.astype(np.float32), bias.astype(np.float32)


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(
        self, x: str, name: str, kernel: Array, bias: Array, *, stride: int = 1, groups: int = 1, clip: bool = True
    ) -> str:
        size = kernel.shape[-1]
        inputs = [x, self.constant(f"{name}.kernel", kernel), self.constant(f"{name}.bias", bias)]
        shape = {"kernel_shape": [size, size], "strides": [stride, stride], "group": groups, "auto_pad": "SAME_UPPER"}
        out = self.add("Conv", inputs, f"{name}.conv", **shape)
        return self.add("Clip", [out, "zero", "six"], f"{name}.relu6") if clip else out


def build_graph(weights: Mapping[str, npt.NDArray[Any]], recipe: Preprocess, pooling: str) -> onnx.ModelProto:
    """The whole model: normalise, convolve, pool, scale to unit length."""
    g = _Graph()
    g.constant("zero", np.float32(0))
    g.constant("six", np.float32(6))
    x = g.add("Cast", ["pixels"], "float", to=TensorProto.FLOAT)
    x = g.add("Sub", [x, g.constant("mean", 255 * np.array(recipe.mean, np.float32))], "centred")
    x = g.add("Mul", [x, g.constant("scale", (1 / (255 * np.array(recipe.std))).astype(np.float32))], "scaled")
    x = g.add("Transpose", [x], "channels_first", perm=[0, 3, 1, 2])
    x = g.conv(x, "stem", *folded(weights, "_conv_stem", "_bn0"), stride=2)
    for block in blocks():
        x = _block(g, x, block, weights)
    x = g.conv(x, "head", *folded(weights, "_conv_head", "_bn1"))
    x = _pooled(g, x, pooling, recipe.size)
    g.add("LpNormalization", [x], "vectors", axis=1, p=2)
    height, width = recipe.size
    graph = helper.make_graph(
        g.nodes,
        "effnet-lite0",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", height, width, 3])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", FEATURES])],
        g.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _block(g: _Graph, x: str, block: Block, weights: Mapping[str, npt.NDArray[Any]]) -> str:
    name, out = block.name, x
    if block.expand != 1:
        out = g.conv(out, f"{name}.expand", *folded(weights, f"{name}._expand_conv", f"{name}._bn0"))
    kernel, bias = folded(weights, f"{name}._depthwise_conv", f"{name}._bn1")
    out = g.conv(out, f"{name}.depthwise", kernel, bias, stride=block.stride, groups=len(kernel))
    kernel, bias = folded(weights, f"{name}._project_conv", f"{name}._bn2")
    out = g.conv(out, f"{name}.project", kernel, bias, clip=False)
    return g.add("Add", [out, x], f"{name}.sum") if block.skip else out


def _pooled(g: _Graph, x: str, pooling: str, size: tuple[int, int]) -> str:
    axes = g.constant("flat_axes", np.array([2, 3], np.int64))
    if pooling == "rmac":
        return _rmac(g, x, (-(-size[0] // 32), -(-size[1] // 32)), axes)
    if pooling == "gem":
        p = g.constant("p", np.float32(GEM_P))
        x = g.add("Pow", [g.add("Clip", [x, g.constant("eps", np.float32(1e-6))], "positive"), p], "powers")
        x = g.add("Squeeze", [g.add("GlobalAveragePool", [x], "power_mean"), axes], "power_mean_flat")
        return g.add("Pow", [x, g.constant("p_inverse", np.float32(1 / GEM_P))], "pooled")
    kind = "GlobalAveragePool" if pooling == "avg" else "GlobalMaxPool"
    return g.add("Squeeze", [g.add(kind, [x], "pool"), axes], "pooled")


def _rmac(g: _Graph, x: str, grid: tuple[int, int], axes: str) -> str:
    """Regional maxima of Tolias et al. 2016 (arXiv:1511.05879): unit vectors of every region, summed."""
    from embedkit.encoders.regions import rmac_regions

    parts = []
    for index, (top, left, side) in enumerate(rmac_regions(*grid)):
        starts = g.constant(f"region{index}.start", np.array([top, left], np.int64))
        ends = g.constant(f"region{index}.end", np.array([top + side, left + side], np.int64))
        cut = g.add("Slice", [x, starts, ends, axes], f"region{index}.cut")
        flat = g.add("Squeeze", [g.add("GlobalMaxPool", [cut], f"region{index}.max"), axes], f"region{index}.flat")
        parts.append(g.add("LpNormalization", [flat], f"region{index}.unit", axis=1, p=2))
    return g.add("Sum", parts, "pooled")
