"""The class vectors of the instance loss, kept beside the model for the run that goes on with them."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from torch import Tensor

from embedkit.errors import DataCorrupt
from embedkit.training.datasets.contract import Captions

__all__ = ["CLASSES", "keep_classes", "start_at_kept"]

CLASSES = "classes.safetensors"
_VECTORS = "vectors"
_CAPTIONS = "captions"
_log = logging.getLogger(__name__)


def keep_classes(folder: Path, vectors: Tensor, captions: Captions) -> None:
    """Write class vectors ``(classes, dim)`` into a folder, with what their labels mean."""
    from safetensors.torch import save_file

    kept = vectors.detach().float().cpu().contiguous()
    save_file({_VECTORS: kept}, str(folder / CLASSES), metadata={_CAPTIONS: _digest(captions)})


def start_at_kept(vectors: Tensor, folder: Path, captions: Captions) -> None:
    """Set class vectors to those of a run folder, if it has any, and of the same captions. Raises DataCorrupt.

    The second stage of Zheng 2020 goes on with the classifier of the first. With other captions a label
    means something else, so that the vectors stay as they are.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / CLASSES
    if not path.is_file():
        return
    try:
        with safe_open(str(path), framework="pt") as file:
            known, kept = (file.metadata() or {}).get(_CAPTIONS), file.get_tensor(_VECTORS)
    except (OSError, SafetensorError) as error:
        raise DataCorrupt(f"{path}: the class vectors of this run cannot be read: {error}") from error
    if known != _digest(captions) or kept.shape != vectors.shape:
        _log.warning("%s learned other captions; its class vectors are left out, and new ones start at random", folder)
        return
    with torch.no_grad():
        vectors.copy_(kept)


def _digest(captions: Captions) -> str:
    """Of every label and its texts."""
    digest = hashlib.blake2b(digest_size=16)
    for label, text in zip(captions.labels.tolist(), captions.texts, strict=True):
        digest.update(f"{label}\0{text}\0".encode(errors="surrogatepass"))
    return digest.hexdigest()
