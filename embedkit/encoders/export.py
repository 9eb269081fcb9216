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
from embedkit.encoders.contract import Encoder, EncoderSpec
from embedkit.encoders.folder import (
    CARD,
    MANIFEST,
    ONNX,
    TEXT_ONNX,
    TOKENIZER,
    WEIGHTS,
    Manifest,
    read_manifest,
    write_folder,
)
from embedkit.encoders.hash_options import Hashing, hashing_of
from embedkit.encoders.load import load_encoder, model_folder_of
from embedkit.encoders.model import JointEncoder
from embedkit.encoders.probe import PROBE_TEXTS, pack, probe_pixels
from embedkit.errors import ConfigError
from embedkit.specs import parse_spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from embedkit.encoders.gru import GruTextEncoder
    from embedkit.encoders.hf.texts import TorchTextEncoder
    from embedkit.encoders.samples import SamplePicture
    from embedkit.encoders.torch_model import TorchImageEncoder

__all__ = ["export_encoder", "write_model"]

_OPSET = 17


def export_encoder(
    text: str,
    out: Path,
    *,
    fit: Iterable[SamplePicture] | None = None,
    overwrite: bool = False,
    cache_dir: Path | None = None,
) -> Path:
    """Write the folder and check that it gives the vectors of the original; the folder's path.

    `fit`: the bytes of pictures to fit the pooling to, or the bits of ``hash=``, in random order; no more are taken
    than needed.
    Raises ConfigError, DataCorrupt (the exported model disagrees), MissingExtra, UnknownName.
    """
    hashing = hashing_of(text)
    if hashing is not None:
        return _hashed(hashing, text, out, fit, overwrite=overwrite, cache_dir=cache_dir)
    ready = (model_folder_of(text) or _builtin_folder(text, cache_dir)) if fit is None else None
    with write_folder(out, overwrite=overwrite) as draft:
        if fit is not None:
            _fit(text, fit, draft)
        elif ready is not None:
            shutil.copytree(ready, draft, dirs_exist_ok=True)
        else:
            encoder = load_encoder(text, cache_dir=cache_dir)
            try:
                write_model(encoder, draft)
            finally:
                encoder.close()
        open_folder(draft, runtime="onnx").close()  # raises if the vectors differ from the probe's
    return out


def _hashed(
    hashing: Hashing,
    text: str,
    out: Path,
    fit: Iterable[SamplePicture] | None,
    *,
    overwrite: bool,
    cache_dir: Path | None,
) -> Path:
    """The float encoder as a folder, and then its codes."""
    from embedkit.encoders.hashing import hash_folder

    if fit is None:
        raise ConfigError(
            f"{text!r} is fitted to your pictures; run: embedkit export {text!r} {str(out)!r} --fit PICTURES"
        )
    with write_folder(out, overwrite=overwrite) as draft:
        export_encoder(hashing.encoder, draft / "floats", cache_dir=cache_dir)
        hash_folder(draft / "floats", hashing, fit, source=text)
        for path in (draft / "floats").iterdir():
            path.rename(draft / path.name)
        (draft / "floats").rmdir()
        (draft / CARD).write_text(_card(read_manifest(draft)), encoding="utf-8")
        open_folder(draft, runtime="onnx").close()
    return out


def _builtin_folder(text: str, cache_dir: Path | None) -> Path | None:
    spec = parse_spec(text)
    makers = {"effnet-lite0": effnet_lite0_folder, "minilm": minilm_folder}
    return makers[spec.name](spec, cache_dir) if spec.name in makers else None


def _fit(text: str, pictures: Iterable[SamplePicture], folder: Path) -> None:
    plugins.require("torch", "train", needed_for="Fitting an encoder")
    from embedkit.encoders.fit import fit_encoder

    encoder, count = fit_encoder(text, pictures)
    try:
        write_model(encoder, folder, training={"fitted_on": {"pictures": count}})
    finally:
        encoder.close()


def write_model(encoder: Any, folder: Path, *, training: Mapping[str, Any] | None = None) -> None:
    """Write the files of a model folder; `training`: recipe and figures of one that was trained or fitted.

    Raises ConfigError for an encoder that does not run in torch, MissingExtra.
    """
    plugins.require("torch", "train", needed_for="Exporting an encoder")
    from embedkit.encoders.gru import GruTextEncoder
    from embedkit.encoders.hf.texts import TorchTextEncoder
    from embedkit.encoders.projected import ProjectedTextEncoder
    from embedkit.encoders.torch_model import TorchImageEncoder

    pictures, texts = (encoder.pictures, encoder.texts) if isinstance(encoder, JointEncoder) else (encoder, encoder)
    recipe = probe = text = text_probe = None
    if isinstance(texts, TorchTextEncoder | GruTextEncoder):
        text, text_probe = texts.recipe.as_dict(), _probe(texts, PROBE_TEXTS)
        texts.write_tokenizer(folder / TOKENIZER)
        _text_graph(texts, folder / (ONNX if texts is encoder else TEXT_ONNX))
    elif isinstance(texts, ProjectedTextEncoder):
        text, text_probe = texts.recipe.as_dict(), _probe(texts, PROBE_TEXTS)
        texts.write(folder / TEXT_ONNX, folder / TOKENIZER)
    if isinstance(pictures, TorchImageEncoder):
        recipe, probe = pictures.recipe.as_dict(), _probe(pictures, probe_pixels(pictures.recipe.size))
        _picture_graph(pictures, folder / ONNX)
        if pictures is encoder or isinstance(texts, ProjectedTextEncoder | GruTextEncoder):
            _weights(pictures, folder / WEIGHTS)
    if recipe is None:  # texts alone: their recipe is the recipe
        recipe, probe, text, text_probe = text, text_probe, None, None
    if recipe is None:
        raise ConfigError(f"{encoder.spec.name!r} cannot be exported; encoders that run in torch can")
    source = (training or {}).get("recipe", {}).get("encoder", encoder.spec.name)
    manifest = Manifest(encoder.spec, recipe, probe, source, training or {}, text=text, text_probe=text_probe)
    (folder / MANIFEST).write_text(manifest.as_json(), encoding="utf-8")
    (folder / CARD).write_text(_card(manifest), encoding="utf-8")


def _probe(encoder: Encoder, probe: Any) -> dict[str, Any]:
    """What a runtime is held to: vectors, of a binary encoder the numbers before the sign."""
    from embedkit.encoders.gru import GruTextEncoder
    from embedkit.encoders.projected import ProjectedTextEncoder
    from embedkit.encoders.torch_model import TorchImageEncoder

    raw = TorchImageEncoder | ProjectedTextEncoder | GruTextEncoder
    found = encoder.numbers(probe) if isinstance(encoder, raw) else encoder.encode(probe)
    return pack(np.asarray(found, np.float32))


def _weights(encoder: TorchImageEncoder, path: Path) -> None:
    from safetensors.torch import save_file

    state = {name: tensor.detach().contiguous().clone() for name, tensor in encoder.model.state_dict().items()}
    save_file(state, str(path))


def _picture_graph(encoder: TorchImageEncoder, path: Path) -> None:
    import torch

    pixels = torch.from_numpy(probe_pixels(encoder.recipe.size))
    _graph(encoder.model, {"pixels": pixels}, {0: "n"}, path)


def _text_graph(encoder: TorchTextEncoder | GruTextEncoder, path: Path) -> None:
    # Other shapes than the probe's, so that the probe shows a graph that learned the shape by heart.
    tokens = encoder.tokens(["four words of text", "two words"])
    axes = {0: "n"} if encoder.recipe.padding == "full" else {0: "n", 1: "length"}
    _graph(encoder.tower, dict(zip(encoder.recipe.inputs, tokens, strict=True)), axes, path)


def _graph(model: nn.Module, inputs: Mapping[str, Tensor], axes: Mapping[int, str], path: Path) -> None:
    """Write the ONNX graph; `axes`: which axes of the inputs vary."""
    import torch

    with warnings.catch_warnings():
        # The exporter warns about itself being the old one; the new one needs more packages.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=["vectors"],
            dynamic_axes={**{name: dict(axes) for name in inputs}, "vectors": {0: "n"}},
            opset_version=_OPSET,
            dynamo=False,
        )


def _card(manifest: Manifest) -> str:
    spec, fitted = manifest.spec, manifest.training.get("fitted_on")
    lines = "".join(f"| {name} | {value} |\n" for name, value in asdict(spec).items())
    ways = {
        "image": "uint8 RGB pixels go into `model.onnx`",
        "text": f"texts through `{TOKENIZER}` into `{TEXT_ONNX if 'image' in spec.modalities else ONNX}`",
    }
    given = ", ".join(ways[modality] for modality in spec.modalities)
    trained, hashed = "recipe" in manifest.training, manifest.training.get("hashed")
    made = "trained" if trained else "exported"
    return (
        f"# {spec.name}\n\nAn embedkit model folder, {made} from `{manifest.source}`.\n\n"
        f"| field | value |\n|---|---|\n{lines}\n"
        + (_trained(manifest.training) if trained else "")
        + (f"Its pooling was fitted to {fitted['pictures']:,} pictures.\n" if fitted else "")
        + (_fitted_bits(hashed) if hashed else "")
        + f"Runs in ONNX Runtime and OpenVINO; {given}; {_out(spec)} come out.\n"
    )


def _fitted_bits(hashed: Mapping[str, Any]) -> str:
    return (
        f"Its {hashed['bits']} bits are made of floats by {hashed['method']}, "
        f"fitted to {hashed['pictures']:,} pictures.\n"
    )


def _out(spec: EncoderSpec) -> str:
    if spec.kind == "binary":
        return f"{spec.dim} numbers, whose signs are the bits of the code (1 where a number is over 0),"
    return "unit vectors"


def _trained(training: Mapping[str, Any]) -> str:
    """The part of a model card on how it was trained, and how good it became."""
    recipe, start = training["recipe"], training["start"]
    rows = "".join(
        f"| {name} | {f'{start[name]:.4f}' if name in start else ''} | {value:.4f} |\n"
        for name, value in training["metrics"].items()
    )
    figures = f"\n| figure, on classes of its test split | before | after |\n|---|---|---|\n{rows}" if rows else ""
    return (
        f"Trained on `{training['data']}` with the loss `{recipe['loss']}`: {training['steps']:,} batches, "
        f"{training['epochs']:g} epochs, {training['seconds']:,.0f} s; every setting is in `encoder.json`.\n{figures}\n"
    )
