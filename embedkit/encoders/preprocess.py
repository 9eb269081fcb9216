"""How a picture becomes the pixels that an image encoder takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from PIL import Image

from embedkit.encoders.images import decode_image
from embedkit.errors import ConfigError

if TYPE_CHECKING:
    from embedkit.types import ByteArray

__all__ = ["FITS", "Fit", "Preprocess"]

Fit = Literal["crop", "pad", "squash"]
FITS: tuple[Fit, ...] = get_args(Fit)
_FILTERS = {kind.name.lower(): kind for kind in Image.Resampling}
_WHITE = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The recipe, stored with the model and part of its fingerprint.

    `size`: (height, width). `fit`: ``crop`` cuts the middle out, ``pad`` adds white, ``squash`` distorts.
    `keep`: the share of the scaled picture's shorter side that is kept (0.875 is the usual 224 of 256); the
    cut falls on whole pixels of the scaled picture, as in torchvision and transformers.
    `mean`, `std`: of the RGB values scaled to 0..1; the model itself subtracts and divides.
    """

    size: tuple[int, int] = (224, 224)
    fit: Fit = "crop"
    keep: float = 1.0
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.fit not in FITS or self.interpolation not in _FILTERS or not 0 < self.keep <= 1:
            raise ConfigError(f"{self} is no recipe for pictures")

    def __call__(self, picture: bytes | Image.Image) -> ByteArray:
        """``(height, width, 3)`` uint8 RGB. Raises BadImage."""
        height, width = self.size
        wanted = (round(height / self.keep), round(width / self.keep))
        image = decode_image(picture, at_least=wanted if self.fit != "pad" else (1, 1))
        if self.fit == "pad":
            image = self._padded(image)
        else:
            image = image.resize(
                (width, height), _FILTERS[self.interpolation], box=self._cut(image.size), reducing_gap=2.0
            )
        return np.asarray(image)

    def _cut(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """The part of a picture of `size` (width, height) that becomes the result: left, top, right, bottom."""
        (height, width), (wide, high) = self.size, size
        scaled = (round(width / self.keep), round(height / self.keep))
        if self.fit == "crop":
            if wide * scaled[1] < high * scaled[0]:
                scaled = (scaled[0], max(scaled[1], high * scaled[0] // wide))
            else:
                scaled = (max(scaled[0], wide * scaled[1] // high), scaled[1])
        left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
        across, down = wide / scaled[0], high / scaled[1]
        return left * across, top * down, min(wide, (left + width) * across), min(high, (top + height) * down)

    def _padded(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        scale = min(width / image.width, height / image.height)
        inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        sheet = Image.new("RGB", (width, height), _WHITE)
        small = image.resize(inner, _FILTERS[self.interpolation], reducing_gap=2.0)
        sheet.paste(small, ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return sheet

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Raises ConfigError when a field is missing, unknown or bad."""
        try:
            plain: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
            }
            return cls(**plain)
        except TypeError as error:
            raise ConfigError(f"the preprocessing recipe does not fit: {error}") from error
