"""The model folder: ``encoder.json``, ``model.onnx`` and/or ``model.safetensors``, ``README.md``.

A text encoder has ``tokenizer.json`` beside them. One that takes both has two graphs in one space:
``model.onnx`` for pictures, ``text.onnx`` with ``tokenizer.json`` for texts.

A folder is written beside its place and moved there whole, so that a half-written one is never seen.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedkit.encoders.codes import check_bits
from embedkit.encoders.contract import EncoderSpec
from embedkit.errors import ConfigError, DataCorrupt, DiskFull, disk_is_full

__all__ = ["CARD", "MANIFEST", "ONNX", "TEXT_ONNX", "TOKENIZER", "WEIGHTS", "Manifest", "read_manifest", "write_folder"]

MANIFEST = "encoder.json"
ONNX = "model.onnx"
TEXT_ONNX = "text.onnx"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
CARD = "README.md"
_VERSION = 2
_READABLE = (1, 2)  # 1 knew neither encoders of two modalities nor texts that are pooled in the graph


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``encoder.json`` holds. `preprocess`: the recipe for pictures or texts; `probe`: packed vectors.

    `source`: the spec string that the folder was made from; `training`: recipe and metrics, if it was trained;
    ``fitted_on``, if its pooling was fitted to pictures. `text`, `text_probe`: the recipe and the vectors for texts,
    of an encoder that takes pictures and texts.
    """

    spec: EncoderSpec
    preprocess: Mapping[str, Any]
    probe: Mapping[str, Any] | None = None
    source: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    text: Mapping[str, Any] | None = None
    text_probe: Mapping[str, Any] | None = None

    def as_json(self) -> str:
        spec = self.spec
        values = {
            "format": _VERSION,
            "name": spec.name,
            "source": self.source,
            "modalities": list(spec.modalities),
            "kind": spec.kind,
            "dim": spec.dim,
            "normalized": spec.normalized,
            "input_size": list(spec.input_size) if spec.input_size else None,
            "fingerprint": spec.fingerprint,
            "preprocess": dict(self.preprocess),
            "training": dict(self.training),
            "probe": self.probe,
            "text": dict(self.text) if self.text is not None else None,
            "text_probe": self.text_probe,
        }
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def read_manifest(folder: Path, *, name: str = "") -> Manifest:
    """Read ``encoder.json``; `name` replaces the stored one. Raises ConfigError, DataCorrupt."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ConfigError(f"{str(folder)!r} is no model folder: it has no {MANIFEST}; write one with: embedkit export")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] not in _READABLE:
            raise ConfigError(
                f"{path}: the format {values['format']!r} is not {_VERSION} or older; use the embedkit that wrote it"
            )
        size = values["input_size"]
        spec = EncoderSpec(
            name=name or str(folder),
            modalities=tuple(values["modalities"]),
            dim=int(values["dim"]),
            fingerprint=str(values["fingerprint"]),
            kind=values["kind"],
            normalized=bool(values["normalized"]),
            input_size=(int(size[0]), int(size[1])) if size else None,
        )
        _check_kind(spec)
        return Manifest(
            spec,
            values["preprocess"],
            values["probe"],
            values["source"],
            values["training"],
            values.get("text"),
            values.get("text_probe"),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataCorrupt(f"{path}: it cannot be read ({error}); export the model again") from error


def _check_kind(spec: EncoderSpec) -> None:
    """Raise ValueError for a kind of vectors, or a number of bits, that there is not."""
    if spec.kind not in ("float", "binary"):
        raise ValueError(f"the kind {spec.kind!r} is neither float nor binary")
    if spec.kind == "binary":
        try:
            check_bits(spec.dim)
        except ConfigError as error:
            raise ValueError(str(error)) from error


@contextmanager
def write_folder(place: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A fresh folder to write into, moved to `place` at the end. Raises ConfigError if something is there, DiskFull."""
    if place.exists() and not overwrite:
        raise ConfigError(f"{str(place)!r} exists; choose another folder or say --overwrite")
    if place.exists() and not (place / MANIFEST).is_file() and (not place.is_dir() or any(place.iterdir())):
        raise ConfigError(f"{str(place)!r} is no model folder and will not be overwritten; choose another one")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    except OSError as error:
        raise ConfigError(f"The folder {str(place)!r} cannot be made: {error.strerror or error}") from error
    try:
        yield draft
        draft.chmod(0o755)
        _move(draft, place)
    except Exception as error:  # of torch, safetensors or ONNX too
        if disk_is_full(error):
            raise DiskFull(f"The disk of {str(place)!r} is full; free some space and run the same again") from error
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _move(draft: Path, place: Path) -> None:
    if place.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        os.replace(place, old / "old")
        os.replace(draft, place)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(draft, place)
