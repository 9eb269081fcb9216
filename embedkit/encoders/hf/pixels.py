"""An image processor's numbers as a recipe of ours, so that one decoder serves every encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from embedkit.encoders.preprocess import Preprocess
from embedkit.encoders.probe import probe_pixels
from embedkit.errors import ConfigError

if TYPE_CHECKING:
    from embedkit.types import FloatArray

__all__ = ["recipe_of"]

_ALLOWED = 1.0  # mean difference of the pixels, in levels of 0..255
_WARPS_FROM = 384  # a ConvNeXT processor crops below this size and squashes from it on


def recipe_of(processor: Any, config: Any, *, name: str) -> Preprocess:
    """The recipe; `config` tells the size where the processor does not resize.

    It is tried on a picture and held to what the processor makes of it. Raises ConfigError.
    """
    try:
        recipe = _translated(processor, config)
        picture = _picture(recipe, resized=bool(getattr(processor, "do_resize", True)))
        theirs = np.asarray(processor(images=picture, return_tensors="np")["pixel_values"][0], np.float32)
    except (ConfigError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{name!r} prepares pictures in a way that embedkit cannot follow ({error})") from error
    found = _difference(recipe, picture, theirs)
    if found > _ALLOWED:
        raise ConfigError(
            f"{name!r} prepares pictures in a way that embedkit cannot follow: {type(processor).__name__} gives other "
            f"pixels than {recipe} (by {found:.1f} of 255 levels on average); choose another model"
        )
    return recipe


def _translated(processor: Any, config: Any) -> Preprocess:
    size, fit, keep = _geometry(processor, config)
    scale = 255 * (float(processor.rescale_factor) if getattr(processor, "do_rescale", True) else 1.0)
    normalised = getattr(processor, "do_normalize", True)
    mean = _three(processor.image_mean if normalised else 0.0, scale)
    std = _three(processor.image_std if normalised else 1.0, scale)
    filter = getattr(processor, "resample", None)
    resample = Image.Resampling.BILINEAR if filter is None else Image.Resampling(int(filter))
    return Preprocess(size, fit, keep, resample.name.lower(), mean, std)  # type: ignore[arg-type]


def _geometry(processor: Any, config: Any) -> tuple[tuple[int, int], str, float]:
    """(size, fit, keep)."""
    cropped = getattr(processor, "do_center_crop", False)
    crop = _pair(getattr(processor, "crop_size", None)) if cropped else None
    if not getattr(processor, "do_resize", True):
        side = getattr(getattr(config, "vision_config", config), "image_size", None)
        size = crop or (_pair(side) if side else None)
        if size is None:
            raise ConfigError("neither the processor nor the model says the size of the pictures")
        return size, "crop", 1.0
    resize = _sizes(processor.size)
    shortest = int(resize.get("shortest_edge") or 0)
    if shortest and getattr(processor, "crop_pct", None):
        if shortest >= _WARPS_FROM:
            return (shortest, shortest), "squash", 1.0
        return (shortest, shortest), "crop", shortest / int(shortest / processor.crop_pct)
    if shortest:
        size = crop or (shortest, shortest)
        return size, "crop", min(1.0, min(size) / shortest)
    whole = _pair(resize)
    size = crop or whole
    return size, "squash", min(1.0, size[0] / whole[0])


def _three(values: Any, scale: float) -> tuple[float, float, float]:
    one = [float(values)] * 3 if isinstance(values, int | float) else [float(value) for value in values]
    red, green, blue = one
    return red / scale, green / scale, blue / scale


def _sizes(values: Any) -> Mapping[str, Any]:
    return {"shortest_edge": values} if isinstance(values, int) else dict(values)


def _pair(values: Any) -> tuple[int, int]:
    """(height, width) of a number, a pair or a mapping."""
    if isinstance(values, int):
        return values, values
    if isinstance(values, list | tuple):
        return int(values[0]), int(values[1])
    sides = dict(values)
    return int(sides["height"]), int(sides["width"])


def _picture(recipe: Preprocess, *, resized: bool) -> Image.Image:
    """A picture of another shape than the model takes, unless the processor leaves the shape as it is."""
    height, width = recipe.size
    size = (2 * height + 3, 3 * width - 1) if resized else recipe.size
    return Image.fromarray(probe_pixels(size)[0])


def _difference(recipe: Preprocess, picture: Image.Image, theirs: FloatArray) -> float:
    mean, std = np.array(recipe.mean, np.float32), np.array(recipe.std, np.float32)
    ours = (recipe(picture) / np.float32(255) - mean) / std
    if theirs.shape != (3, *recipe.size):
        return 255.0
    return float(np.abs((ours - theirs.transpose(1, 2, 0)) * std).mean() * 255)
