"""From a model folder to a running encoder: which runtime, and does it agree."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

from embedkit.encoders.contract import Encoder, RuntimeName
from embedkit.encoders.folder import ONNX, TOKENIZER, Manifest, read_manifest
from embedkit.encoders.model import ImageEncoder, TextEncoder
from embedkit.encoders.preprocess import Preprocess
from embedkit.encoders.probe import AGREEMENT, PROBE_TEXTS, agreement, probe_pixels, unpack
from embedkit.encoders.runtimes.contract import Session
from embedkit.encoders.runtimes.onnx import OnnxSession
from embedkit.errors import ConfigError, DataCorrupt

__all__ = ["open_folder"]

_log = logging.getLogger(__name__)


def open_folder(folder: Path, *, name: str = "", runtime: RuntimeName = "auto", threads: int = 0) -> Encoder:
    """Load a model folder without torch. `name`: the spec string that leads here.

    ``auto`` takes OpenVINO where it is installed and agrees with the stored probe, else ONNX Runtime.
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
    return _checked(manifest, folder, _session(runtime, model, threads))


def _session(runtime: str, model: Path, threads: int) -> Session:
    if runtime == "openvino":
        from embedkit.encoders.runtimes.openvino import OpenVinoSession

        return OpenVinoSession(model, threads=threads)
    return OnnxSession(model, threads=threads)


def _fastest(manifest: Manifest, folder: Path, threads: int) -> Encoder:
    # Texts are short: there ONNX Runtime is as fast, and int8 kernels differ between the two.
    if manifest.spec.modalities == ("image",) and find_spec("openvino") is not None:
        try:
            return _checked(manifest, folder, _session("openvino", folder / ONNX, threads))
        except DataCorrupt as error:
            _log.warning("%s Using ONNX Runtime instead.", error)
    return _checked(manifest, folder, _session("onnx", folder / ONNX, threads))


def _build(manifest: Manifest, folder: Path, session: Session) -> Encoder:
    if manifest.spec.modalities == ("text",):
        return TextEncoder(manifest.spec, dict(manifest.preprocess), folder / TOKENIZER, session)
    return ImageEncoder(manifest.spec, Preprocess.from_dict(manifest.preprocess), session)


def _checked(manifest: Manifest, folder: Path, session: Session) -> Encoder:
    """The encoder, after its vectors of the probe were compared with the stored ones."""
    encoder = _build(manifest, folder, session)
    if manifest.probe is not None:
        size = manifest.spec.input_size
        probe = probe_pixels(size) if size else PROBE_TEXTS
        found = agreement(encoder.encode(probe), unpack(manifest.probe))
        if found < AGREEMENT:
            encoder.close()
            raise DataCorrupt(
                f"{folder}: {session.name} gives other vectors than the model was exported with "
                f"(cosine {found:.4f}, not {AGREEMENT}); use another runtime, or export the model again"
            )
    return encoder
