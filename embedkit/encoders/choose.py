"""From a model folder to a running encoder: which runtime, and does it agree."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.encoders.codes import clear_flips
from embedkit.encoders.contract import Encoder, RuntimeName
from embedkit.encoders.folder import ONNX, TEXT_ONNX, TOKENIZER, Manifest, read_manifest
from embedkit.encoders.model import BatchTextEncoder, ImageEncoder, JointEncoder, TextEncoder
from embedkit.encoders.preprocess import Preprocess
from embedkit.encoders.probe import AGREEMENT, PROBE_TEXTS, agreement, probe_pixels, unpack
from embedkit.encoders.runtimes.contract import Session
from embedkit.encoders.runtimes.onnx import OnnxSession
from embedkit.encoders.text_recipe import TextRecipe, Tokens
from embedkit.errors import ConfigError, DataCorrupt, EmbedkitError

if TYPE_CHECKING:
    from embedkit.types import ByteArray, FloatArray, VectorArray

__all__ = ["open_folder"]

_log = logging.getLogger(__name__)


def open_folder(folder: Path, *, name: str = "", runtime: RuntimeName = "auto", threads: int = 0) -> Encoder:
    """Load a model folder without torch. `name`: the spec string that leads here.

    ``auto`` takes OpenVINO for pictures where it is installed and agrees with the stored probe, else ONNX
    Runtime; texts always run in ONNX Runtime.
    Raises ConfigError, DataCorrupt, MissingExtra.
    """
    manifest = read_manifest(folder, name=name)
    model = folder / ONNX
    if not model.is_file():
        raise ConfigError(f"{str(folder)!r} has no {ONNX}; export it again with: embedkit export")
    if runtime == "torch":
        raise ConfigError(
            f"The model folder {str(folder)!r} runs in ONNX Runtime or OpenVINO; set runtime to auto, onnx or openvino"
        )
    if runtime == "auto":
        return _fastest(manifest, folder, threads)
    return _opened(manifest, folder, runtime, runtime, threads)


def _session(runtime: str, model: Path, threads: int) -> Session:
    if runtime == "openvino":
        from embedkit.encoders.runtimes.openvino import OpenVinoSession

        return OpenVinoSession(model, threads=threads)
    return OnnxSession(model, threads=threads)


def _fastest(manifest: Manifest, folder: Path, threads: int) -> Encoder:
    # Texts are short: there ONNX Runtime is as fast, and int8 kernels differ between the two.
    if "image" in manifest.spec.modalities and find_spec("openvino") is not None:
        try:
            return _opened(manifest, folder, "openvino", "onnx", threads)
        except DataCorrupt as error:
            _log.warning("%s Using ONNX Runtime instead.", error)
    return _opened(manifest, folder, "onnx", "onnx", threads)


def _opened(manifest: Manifest, folder: Path, for_pictures: str, for_texts: str, threads: int) -> Encoder:
    """The encoder in the runtimes asked for, its vectors of the probe held to the stored ones."""
    spec = manifest.spec
    if "image" not in spec.modalities:
        texts = _text_encoder(manifest, manifest.preprocess, folder, _session(for_texts, folder / ONNX, threads))
        return _checked(texts, PROBE_TEXTS, manifest.probe, folder)
    recipe = Preprocess.from_dict(manifest.preprocess)
    pictures = ImageEncoder(spec, recipe, _session(for_pictures, folder / ONNX, threads))
    _checked(pictures, probe_pixels(recipe.size), manifest.probe, folder)
    if manifest.text is None:
        return pictures
    try:
        texts = _text_encoder(manifest, manifest.text, folder, _session(for_texts, folder / TEXT_ONNX, threads))
        return JointEncoder(spec, pictures, _checked(texts, PROBE_TEXTS, manifest.text_probe, folder))
    except EmbedkitError:
        pictures.close()
        raise


def _text_encoder(manifest: Manifest, recipe: Mapping[str, Any], folder: Path, session: Session) -> Encoder:
    if "pooling" in recipe:  # the graph ends at the tokens
        return TextEncoder(manifest.spec, dict(recipe), folder / TOKENIZER, session)
    texts = TextRecipe.from_dict(recipe)
    return BatchTextEncoder(manifest.spec, Tokens(folder / TOKENIZER, texts), session, alone=texts.alone)


def _checked(
    encoder: Encoder, probe: ByteArray | Sequence[str], stored: Mapping[str, Any] | None, folder: Path
) -> Encoder:
    """The encoder, after its vectors of the probe were compared with the stored ones."""
    if stored is not None:
        try:
            raw = ImageEncoder | BatchTextEncoder
            found = encoder.numbers(probe) if isinstance(encoder, raw) else encoder.encode(probe)
        except Exception as error:  # a runtime raises what it likes
            encoder.close()
            reason = str(error).strip().splitlines()[0]
            raise DataCorrupt(
                f"{folder}: {encoder.runtime} cannot run the model ({reason}); export it again"
            ) from error
        reason = _disagreement(found, unpack(stored), binary=encoder.spec.kind == "binary")
        if reason:
            encoder.close()
            raise DataCorrupt(
                f"{folder}: {encoder.runtime} gives other vectors than the model was exported with "
                f"({reason}); use another runtime, or export the model again"
            )
    return encoder


def _disagreement(found: VectorArray, expected: FloatArray, *, binary: bool) -> str:
    """How much two answers to the probe differ; nothing if they agree. Of a binary encoder they are before the sign."""
    cosine = agreement(found, expected)
    if cosine < AGREEMENT:
        return f"cosine {cosine:.4f}, not {AGREEMENT}"
    flips = clear_flips(found.astype(np.float32), expected) if binary else 0
    return f"{flips} of {expected.size} bits" if flips else ""
