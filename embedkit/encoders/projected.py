"""Texts projected into another space: a text encoder that stays as it is, and one learned layer after it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.codes import packed
from embedkit.encoders.contract import Encoder, EncoderSpec
from embedkit.encoders.text_recipe import TextRecipe
from embedkit.errors import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image

    from embedkit.types import ByteArray, FloatArray, VectorArray

__all__ = ["ProjectedTextEncoder", "Sentences", "TextFiles"]

_KEPT = 1_000_000  # texts


@dataclass(frozen=True, slots=True)
class TextFiles:
    """What a text encoder runs from: its graph, its tokenizer, and the recipe of its manifest."""

    graph: Path
    tokenizer: Path
    recipe: Mapping[str, Any]


class Sentences:
    """The vectors of a text encoder that does not learn: a text that is asked for again is not encoded again."""

    def __init__(self, encoder: Encoder, files: TextFiles) -> None:
        self.spec, self.files = encoder.spec, files
        self._encoder = encoder
        self._known: dict[str, FloatArray] = {}

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        """``(n, dim)`` float32."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if len(self._known) + len(new) > _KEPT:
            self._known.clear()
            new = list(dict.fromkeys(texts))
        if new:
            self._known.update(zip(new, self.once(new), strict=True))
        if not texts:
            return np.empty((0, self.spec.dim), np.float32)
        return np.stack([self._known[text] for text in texts])

    def once(self, texts: Sequence[str]) -> FloatArray:
        """``(n, dim)`` float32 of texts, one or more, that are not kept."""
        from concurrent.futures import ThreadPoolExecutor

        parts = [texts[start : start + 32] for start in range(0, len(texts), 32)]
        with ThreadPoolExecutor(self._encoder.concurrency, thread_name_prefix="embedkit-encode") as pool:
            return np.concatenate(list(pool.map(self._encoder.encode, parts))).astype(np.float32, copy=False)

    def close(self) -> None:
        """Release the encoder."""
        self._encoder.close()


class ProjectedTextEncoder(Encoder):
    """``unit(W · sentence + b)``; without `weight` the sentence's own vector. It is written as one ONNX graph.

    `weight`: ``(dim, n)`` float32, `bias`: ``(dim,)`` float32.
    """

    runtime = "onnx"
    concurrency = 1

    def __init__(
        self, spec: EncoderSpec, sentences: Sentences, weight: FloatArray | None, bias: FloatArray | None
    ) -> None:
        self.spec = spec
        self._sentences, self._weight, self._bias = sentences, weight, bias

    @property
    def recipe(self) -> TextRecipe:
        """How texts become tokens: what the written graph takes. One text at a time where the encoder does so."""
        stored = dict(self._sentences.files.recipe)
        if "pooling" not in stored:
            return TextRecipe.from_dict(stored)
        return TextRecipe(int(stored["max_tokens"]), tuple(stored["inputs"]), alone=True)

    def prepare(self, picture: bytes | Image) -> ByteArray:
        del picture
        raise BadInput(f"The encoder {self.spec.name!r} takes text here, not pictures")

    def encode(self, batch: ByteArray | Sequence[str]) -> VectorArray:
        found = self.numbers(batch)
        return packed(found) if self.spec.kind == "binary" else found

    def numbers(self, batch: ByteArray | Sequence[str]) -> FloatArray:
        """``(n, dim)`` float32 of unit length: of a binary encoder the numbers before the sign."""
        vectors = self._sentences([str(text) for text in batch])
        if self._weight is not None and self._bias is not None:
            vectors = vectors @ self._weight.T + self._bias
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, np.float32(1e-12)), np.float32)

    def write(self, graph: Path, tokenizer: Path) -> None:
        """Write the graph from tokens to vectors, and the tokenizer."""
        import onnx

        files = self._sentences.files
        shutil.copyfile(files.tokenizer, tokenizer)
        model = onnx.load(str(files.graph))
        last = model.graph.output[0].name
        if "pooling" in files.recipe:
            last = _mean_of_tokens(model.graph, last)
        if self._weight is not None and self._bias is not None:
            last = _projected(model.graph, last, self._weight, self._bias)
        last = _unit(model.graph, last, "embedkit.vectors")
        while model.graph.output:
            model.graph.output.pop()
        shape = ["n", self.spec.dim]
        model.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, shape))
        onnx.save(model, str(graph))

    def close(self) -> None:
        self._sentences.close()


def _add(graph: Any, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
    """A node at the end of a graph; the name of what it gives."""
    import onnx

    graph.node.append(onnx.helper.make_node(kind, list(inputs), [name], name=f"{name}-node", **attributes))
    return name


def _constant(graph: Any, name: str, values: Any) -> str:
    import onnx

    graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), name))
    return name


def _mean_of_tokens(graph: Any, tokens: str) -> str:
    """The mean over axis 1 of ``(n, length, dim)``: of one text alone, which has no padding."""
    return _add(graph, "ReduceMean", [tokens], "embedkit.mean", axes=[1], keepdims=0)


def _projected(graph: Any, vectors: str, weight: FloatArray, bias: FloatArray) -> str:
    names = [_constant(graph, "embedkit.weight", weight), _constant(graph, "embedkit.bias", bias)]
    unit = _unit(graph, vectors, "embedkit.sentence")
    return _add(graph, "Gemm", [unit, *names], "embedkit.projected", transB=1)


def _unit(graph: Any, vectors: str, name: str) -> str:
    return _add(graph, "LpNormalization", [vectors], name, axis=1, p=2)
