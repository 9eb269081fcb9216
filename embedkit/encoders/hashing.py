"""Codes out of the floats of any encoder for pictures, without training: ``effnet-lite0(bits=64, hash=itq)``.

The directions are fitted to pictures when the encoder is written out, and become the last step of its ONNX graph, so
that neither fitting nor running needs torch.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedkit.encoders.choose import open_folder
from embedkit.encoders.contract import EncoderSpec
from embedkit.encoders.fingerprint import fingerprint_of
from embedkit.encoders.folder import MANIFEST, ONNX, WEIGHTS, Manifest, read_manifest
from embedkit.encoders.hash_options import Hashing
from embedkit.encoders.probe import pack, probe_pixels
from embedkit.encoders.projections import directions
from embedkit.encoders.samples import decoded
from embedkit.errors import ConfigError

if TYPE_CHECKING:
    from embedkit.encoders.contract import Encoder
    from embedkit.encoders.samples import SamplePicture
    from embedkit.types import FloatArray

__all__ = ["hash_folder"]

_SEED = 0
_PICTURES = 2_000
_BATCH = 32


def hash_folder(folder: Path, hashing: Hashing, pictures: Iterable[SamplePicture], *, source: str) -> None:
    """Turn the model folder of a float encoder into one of codes. `source`: the spec string that asks for it.

    Raises ConfigError when it takes no pictures, is binary already, or there are too few pictures.
    """
    manifest = read_manifest(folder)
    spec = manifest.spec
    if spec.modalities != ("image",) or spec.kind != "float":
        raise ConfigError(
            f"{hashing.encoder!r} cannot be hashed; encoders of floats can that take pictures and nothing else"
        )
    encoder = open_folder(folder, runtime="onnx")
    try:
        vectors = _vectors(encoder, pictures)
        probe = np.asarray(encoder.encode(probe_pixels(spec.input_size or (0, 0))), np.float32)
    finally:
        encoder.close()
    mean, axes = _fitted(vectors, hashing)
    _extend_graph(folder / ONNX, mean, axes)
    _keep_weights(folder / WEIGHTS, mean, axes)
    identity = {"hash": hashing.method, "bits": hashing.bits, "encoder": spec.fingerprint}
    made = EncoderSpec(
        name=spec.name,
        modalities=spec.modalities,
        dim=hashing.bits,
        fingerprint=fingerprint_of([mean.tobytes(), axes.tobytes()], identity),
        kind="binary",
        normalized=False,
        input_size=spec.input_size,
    )
    training = {
        **{name: value for name, value in manifest.training.items() if name == "fitted_on"},
        "hashed": {"method": hashing.method, "bits": hashing.bits, "pictures": len(vectors)},
    }
    hashed: Manifest = replace(
        manifest,
        spec=made,
        probe=pack(np.asarray((probe - mean) @ axes.T, np.float32)),
        source=source,
        training=training,
    )
    (folder / MANIFEST).write_text(hashed.as_json(), encoding="utf-8")


def _vectors(encoder: Encoder, pictures: Iterable[SamplePicture]) -> FloatArray:
    """Vectors of the first pictures that can be decoded."""
    good = decoded(pictures, encoder.prepare, _PICTURES)
    found: list[FloatArray] = []
    while pixels := list(islice(good, _BATCH)):
        found.append(np.asarray(encoder.encode(np.stack(pixels)), np.float32))
    return np.concatenate(found) if found else np.empty((0, encoder.spec.dim), np.float32)


def _fitted(vectors: FloatArray, hashing: Hashing) -> tuple[FloatArray, FloatArray]:
    """What is taken from a vector, ``(dim,)``, and what it is then multiplied by, ``(bits, dim)``."""
    needed = hashing.bits + 1 if hashing.method in ("itq", "pca") else 2
    if len(vectors) < needed:
        raise ConfigError(
            f"hash={hashing.method} with bits={hashing.bits} needs at least {needed:,} good pictures, "
            f"not {len(vectors):,}; give more, or take fewer bits"
        )
    mean = vectors.mean(axis=0)
    return mean, directions(vectors - mean, hashing.bits, hashing.method, seed=_SEED)


def _extend_graph(path: Path, mean: FloatArray, axes: FloatArray) -> None:
    """Append the projection to a graph whose output is ``vectors``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == "vectors":
                    names[place] = "floats"
    graph.initializer.extend(
        [numpy_helper.from_array(mean, "hash.mean"), numpy_helper.from_array(axes.T.copy(), "hash.axes")]
    )
    graph.node.extend(
        [
            helper.make_node("Sub", ["floats", "hash.mean"], ["hash.centred"]),
            helper.make_node("MatMul", ["hash.centred", "hash.axes"], ["vectors"]),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", len(axes)]))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _keep_weights(path: Path, mean: FloatArray, axes: FloatArray) -> None:
    """Put what was fitted beside the weights of the network, where they lie in the folder."""
    from safetensors.numpy import load_file, save_file

    held = load_file(str(path)) if path.is_file() else {}
    with tempfile.TemporaryDirectory(dir=path.parent) as place:
        save_file({**held, "hash.mean": mean, "hash.axes": np.ascontiguousarray(axes)}, f"{place}/{path.name}")
        shutil.move(f"{place}/{path.name}", path)
