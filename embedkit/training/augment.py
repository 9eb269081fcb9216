"""Random changes of a batch of pictures, on the device that trains. Every one follows from (seed, step, process)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from embedkit.training.recipe import Augment

__all__ = ["Augmenter", "step_seed"]

_RATIO = math.log(4 / 3)  # of the sides of a crop, as in torchvision's RandomResizedCrop
_ERASED = (0.02, 0.33)  # share of the area that is erased (Zhong 2017, section 4)
_SHRINK = 1.5  # pixels of a picture for each that it is read at, at most
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


def step_seed(seed: int, step: int, shard: int = 0) -> int:
    """A seed for everything random in one step of one process.

    >>> step_seed(0, 1) != step_seed(1, 0)
    True
    """
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xC2B2AE3D27D4EB4F + shard * 0x165667B19E3779F9) & (2**64 - 1)
    mixed ^= mixed >> 31
    return (mixed * 0xBF58476D1CE4E5B9 & (2**64 - 1)) >> 1


class Augmenter:
    """uint8 ``(n, height, width, 3)`` in, float32 of the same range (0..255) out; of `options.size`, if that is set."""

    def __init__(self, options: Augment) -> None:
        self._options = options

    @torch.no_grad()
    def __call__(self, pixels: Tensor, *, seed: int) -> Tensor:
        options, count = self._options, len(pixels)
        draw = _Draw(count, seed, pixels.device)
        pictures = pixels.permute(0, 3, 1, 2).float()
        if options.crop < 1 or options.rotate > 0 or options.size:
            places = self._places(draw, aspect=pictures.shape[3] / pictures.shape[2])
            pictures = _moved(pictures, places, options.size)
        elif options.flip:
            pictures = torch.where(draw.chance(0.5)[:, None, None, None], pictures.flip(3), pictures)
        if options.colour > 0:
            pictures = _coloured(pictures, draw, options.colour)
        if options.erase > 0:
            pictures = _erased(pictures, draw, options.erase)
        return pictures.permute(0, 2, 3, 1)

    def _places(self, draw: _Draw, *, aspect: float) -> Tensor:
        """Where each picture of the result lies in the old one: maps ``(n, 2, 3)``. `aspect`: width by height."""
        options = self._options
        area, ratio = draw.between(options.crop, 1.0), draw.between(-_RATIO, _RATIO).exp()
        ratio = ratio.clamp(area, 1 / area)  # a longer side would not fit, and less than the area be kept
        across, down = (area * ratio).sqrt(), (area / ratio).sqrt()
        left, top = draw.between(-1, 1) * (1 - across), draw.between(-1, 1) * (1 - down)
        angle = draw.between(-1, 1) * math.radians(options.rotate)
        if options.flip:
            across = torch.where(draw.chance(0.5), -across, across)
        rows = (
            torch.stack([across * angle.cos(), -down * angle.sin() / aspect, left], dim=1),
            torch.stack([across * angle.sin() * aspect, down * angle.cos(), top], dim=1),
        )
        return torch.stack(rows, dim=1)


class _Draw:
    """Random numbers, one a picture; drawn on the CPU, so that every device gets the same."""

    def __init__(self, count: int, seed: int, device: torch.device) -> None:
        self._count, self._device = count, device
        self._generator = torch.Generator().manual_seed(seed)

    def between(self, low: float, high: float) -> Tensor:
        drawn = torch.rand(self._count, generator=self._generator) * (high - low) + low
        return drawn.to(self._device)

    def chance(self, probability: float) -> Tensor:
        return self.between(0, 1) < probability


def _moved(pictures: Tensor, places: Tensor, size: int) -> Tensor:
    """The pictures as `places` says; where they shrink by much, as means over a finer grid, as they are judged.

    A grid that skips pixels makes of fine textures what is not there: of photos, 224 to 96, neighbouring pixels 20 %
    further apart than the resize of an encoder does.
    """
    finer = max(1, math.ceil(max(pictures.shape[2:]) / size / _SHRINK)) if size else 1
    sides = [finer * size, finer * size] if size else list(pictures.shape[2:])
    grid = F.affine_grid(places, [*pictures.shape[:2], *sides], align_corners=False)
    moved = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return F.avg_pool2d(moved, finer) if finer > 1 else moved


def _coloured(pictures: Tensor, draw: _Draw, strength: float) -> Tensor:
    """Brightness, contrast and saturation, each multiplied by 1 ± `strength`."""
    bright, contrast, colourful = (draw.between(1 - strength, 1 + strength)[:, None, None, None] for _ in range(3))
    pictures = pictures * bright
    weights = torch.tensor(_GREY, device=pictures.device)[:, None, None]
    grey = (pictures * weights).sum(1, keepdim=True)
    middle = grey.mean(dim=(2, 3), keepdim=True)
    pictures = grey + (pictures - grey) * colourful
    return (middle + (pictures - middle) * contrast).clamp(0, 255)


def _erased(pictures: Tensor, draw: _Draw, probability: float) -> Tensor:
    """A rectangle of each chosen picture becomes its mean colour."""
    height, width = pictures.shape[2:]
    area, ratio = draw.between(*_ERASED), draw.between(-_RATIO, _RATIO).exp()
    tall, wide = (area / ratio).sqrt() * height, (area * ratio).sqrt() * width
    top, left = draw.between(0, 1) * (height - tall), draw.between(0, 1) * (width - wide)
    rows, columns = torch.arange(height, device=pictures.device), torch.arange(width, device=pictures.device)
    inside_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
    inside_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    mask = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    mask &= draw.chance(probability)[:, None, None, None]
    return torch.where(mask, pictures.mean(dim=(2, 3), keepdim=True), pictures)
