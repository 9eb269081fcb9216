"""From a spec string, or the path of a model folder, to an encoder."""

from __future__ import annotations

import os
from pathlib import Path

from embedkit import plugins
from embedkit.encoders.contract import Encoder, EncoderSpec, RuntimeName
from embedkit.encoders.folder import MANIFEST, read_manifest
from embedkit.encoders.hash_options import hashing_of
from embedkit.errors import ConfigError
from embedkit.specs import parse_spec

__all__ = ["FLOATS", "absolute_spec", "describe_encoder", "folder_behind", "load_encoder", "model_folder_of"]

FLOATS = "floats:"  # before the name of an encoder of codes: the floats that it makes them of
_RUNTIMES = ("auto", "onnx", "openvino", "torch")


def model_folder_of(text: str) -> Path | None:
    """The path, if the text is the path of a model folder rather than a name."""
    path = Path(os.path.expanduser(text))  # which leaves the ~ of nobody as it is
    try:
        if (path / MANIFEST).is_file():
            return path
        there = path.is_dir()
    except OSError:  # too long for a path
        there = False
    if there or text.startswith(("/", "./", "../", "~")):
        raise ConfigError(f"{text!r} is no model folder: it has no {MANIFEST}; write one with: embedkit export")
    return None


def folder_behind(text: str) -> Path | None:
    """The model folder that an encoder is, or whose floats it gives; else None."""
    return model_folder_of(text.removeprefix(FLOATS))


def absolute_spec(text: str) -> str:
    """The same encoder by a text that is right in every working directory."""
    folder = folder_behind(text)
    return text if folder is None else f"{FLOATS if text.startswith(FLOATS) else ''}{folder.absolute()}"


def load_encoder(
    text: str, *, runtime: RuntimeName = "auto", threads: int = 0, cache_dir: Path | None = None
) -> Encoder:
    """Load the encoder that a text names. `threads`: 0 takes every core.

    Raises ConfigError, UnknownName, MissingExtra, DataCorrupt.
    """
    if runtime not in _RUNTIMES:
        raise ConfigError(f"There is no runtime {runtime!r}; known: {', '.join(_RUNTIMES)}")
    _refuse_hashing(text)
    folder = model_folder_of(text)
    if folder is not None:
        from embedkit.encoders.choose import open_folder

        return open_folder(folder, name=text, runtime=runtime, threads=threads)
    spec = parse_spec(text)
    build = plugins.load("encoders", spec.name)
    encoder: Encoder = build(spec, runtime=runtime, threads=threads, cache_dir=cache_dir)
    return encoder


def describe_encoder(text: str, *, cache_dir: Path | None = None) -> EncoderSpec:
    """What an encoder makes. A model folder is read without loading its weights."""
    _refuse_hashing(text)
    folder = model_folder_of(text)
    if folder is not None:
        return read_manifest(folder, name=text).spec
    encoder = load_encoder(text, cache_dir=cache_dir)
    try:
        return encoder.spec
    finally:
        encoder.close()


def _refuse_hashing(text: str) -> None:
    """Raise ConfigError for codes out of floats, which there are only once they are written out."""
    text = text.removeprefix(FLOATS)
    if hashing_of(text) is not None:
        raise ConfigError(
            f"{text!r} is fitted to your pictures when it is written out; "
            f"run: embedkit export {text!r} FOLDER --fit PICTURES"
        )
