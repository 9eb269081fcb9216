"""Writing an encoder as a model folder that runs without torch."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit import plugins
from embedkit.encoders.builtin import effnet_lite0_folder, minilm_folder
from embedkit.encoders.choose import open_folder
from embedkit.encoders.folder import CARD, MANIFEST, ONNX, WEIGHTS, Manifest, write_folder
from embedkit.encoders.load import load_encoder, model_folder_of
from embedkit.encoders.probe import pack, probe_pixels
from embedkit.encoders.spec_text import parse_spec
from embedkit.errors import ConfigError

if TYPE_CHECKING:
    from embedkit.encoders.torch_model import TorchImageEncoder

__all__ = ["export_encoder"]

_OPSET = 17


def export_encoder(
    text: str,
    out: Path,
    *,
    fit: Iterable[bytes] | None = None,
    overwrite: bool = False,
    cache_dir: Path | None = None,
) -> Path:
    """Write the folder and check that it gives the vectors of the original; the folder's path.

    `fit`: the bytes of pictures to fit the pooling to, in random order; no more are taken than needed.
    Raises ConfigError, DataCorrupt (the exported model disagrees), MissingExtra, UnknownName.
    """
    ready = (model_folder_of(text) or _builtin_folder(text, cache_dir)) if fit is None else None
    with write_folder(out, overwrite=overwrite) as draft:
        if fit is not None:
            _fit(text, fit, draft)
        elif ready is not None:
            shutil.copytree(ready, draft, dirs_exist_ok=True)
        else:
            encoder = load_encoder(text, cache_dir=cache_dir)
            try:
                _write(encoder, draft)
            finally:
                encoder.close()
        open_folder(draft, runtime="onnx").close()  # raises if the vectors differ from the probe's
    return out


def _builtin_folder(text: str, cache_dir: Path | None) -> Path | None:
    spec = parse_spec(text)
    makers = {"effnet-lite0": effnet_lite0_folder, "minilm": minilm_folder}
    return makers[spec.name](spec, cache_dir) if spec.name in makers else None


def _fit(text: str, pictures: Iterable[bytes], folder: Path) -> None:
    plugins.require("torch", "train", needed_for="Fitting an encoder")
    from embedkit.encoders.fit import fit_encoder

    encoder, count = fit_encoder(text, pictures)
    try:
        _write(encoder, folder, training={"fitted_on": {"pictures": count}})
    finally:
        encoder.close()


def _write(encoder: Any, folder: Path, *, training: Mapping[str, Any] | None = None) -> None:
    plugins.require("torch", "train", needed_for="Exporting an encoder")
    from embedkit.encoders.torch_model import TorchImageEncoder

    if not isinstance(encoder, TorchImageEncoder):
        raise ConfigError(f"{encoder.spec.name!r} cannot be exported; image encoders that run in torch can")
    probe = encoder.encode(probe_pixels(encoder.recipe.size))
    packed = pack(np.asarray(probe, np.float32))
    manifest = Manifest(encoder.spec, encoder.recipe.as_dict(), packed, encoder.spec.name, training or {})
    (folder / MANIFEST).write_text(manifest.as_json(), encoding="utf-8")
    (folder / CARD).write_text(_card(encoder, manifest), encoding="utf-8")
    _weights(encoder, folder / WEIGHTS)
    _onnx(encoder, folder / ONNX)


def _weights(encoder: TorchImageEncoder, path: Path) -> None:
    from safetensors.torch import save_file

    state = {name: tensor.detach().contiguous().clone() for name, tensor in encoder.model.state_dict().items()}
    save_file(state, str(path))


def _onnx(encoder: TorchImageEncoder, path: Path) -> None:
    import torch

    pixels = torch.from_numpy(probe_pixels(encoder.recipe.size))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the exporter warns about itself being the old one; the new one needs more packages
        torch.onnx.export(
            encoder.model,
            (pixels,),
            str(path),
            input_names=["pixels"],
            output_names=["vectors"],
            dynamic_axes={"pixels": {0: "n"}, "vectors": {0: "n"}},
            opset_version=_OPSET,
            dynamo=False,
        )


def _card(encoder: TorchImageEncoder, manifest: Manifest) -> str:
    fitted = manifest.training.get("fitted_on")
    lines = "".join(f"| {name} | {value} |\n" for name, value in asdict(encoder.spec).items())
    return (
        f"# {encoder.spec.name}\n\nAn embedkit model folder, exported from `{encoder.spec.name}`.\n\n"
        f"| field | value |\n|---|---|\n{lines}\n"
        + (f"Its pooling was fitted to {fitted['pictures']:,} pictures.\n" if fitted else "")
        + "Runs in ONNX Runtime and OpenVINO; the pixels go in as uint8 RGB, unit vectors come out.\n"
    )
