"""What the spec of EfficientNet-Lite0 may say."""

from __future__ import annotations

from embedkit.encoders.pooling_options import POOLING_OPTIONS, PoolingOptions
from embedkit.encoders.preprocess import FITS, Preprocess
from embedkit.specs import SpecText

__all__ = ["effnet_lite0_options"]


def effnet_lite0_options(spec: SpecText) -> tuple[Preprocess, PoolingOptions]:
    """What the spec says about pictures and pooling. Raises ConfigError."""
    spec.only(*POOLING_OPTIONS, "size", "fit")
    size = spec.whole_number("size", 224, 64, 1024)
    recipe = Preprocess(size=(size, size), fit=spec.choice("fit", "crop", FITS))  # type: ignore[arg-type]
    return recipe, PoolingOptions.of(spec)
