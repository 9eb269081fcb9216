"""From the bytes of any picture to RGB, the same way in training and in serving.

EXIF orientation is applied; transparency is laid on white; palettes, grey, 16-bit and CMYK
become 8-bit RGB; of an animation the first frame counts.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from embedkit.errors import BadImage

if TYPE_CHECKING:
    from embedkit.types import ByteArray

__all__ = ["decode_image"]

_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    ZeroDivisionError, MemoryError, NotImplementedError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip  # what Pillow's readers raise on broken files
_JPEG = b"\xff\xd8\xff"  # whatever segment follows
_ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_ORIENTATION = 0x0112


def decode_image(picture: bytes | Image.Image, *, at_least: tuple[int, int] | None = None) -> Image.Image:
    """An RGB picture, upright. Raises BadImage saying what is wrong.

    `at_least`: a (height, width) that the result need not exceed; a JPEG is then decoded at 1/2, 1/4 or
    1/8 of its size when that is still as large, which is several times faster.
    """
    if isinstance(picture, Image.Image):
        return _guarded(picture, None)
    if not picture:
        raise BadImage("the file is empty")
    try:
        image = Image.open(io.BytesIO(picture))
    except UnidentifiedImageError:
        if picture.startswith(_JPEG):
            raise BadImage("it is a JPEG whose beginning is cut short or broken") from None
        raise BadImage(f"it is not a picture of a known format ({_start_of(picture)})") from None
    except Image.DecompressionBombError as error:
        raise BadImage(f"it has too many pixels to be decoded safely: {error}") from error
    except _BROKEN as error:
        raise BadImage(f"it cannot be opened: {error}") from error
    with image:
        return _guarded(image, at_least)


def _start_of(data: bytes) -> str:
    head = data[:256].lstrip().lower()
    if head.startswith(b"<svg") or b"<svg" in head:
        return "it is an SVG drawing; turn it into PNG first"
    if head.startswith((b"<!doctype html", b"<html")):
        return "it is a web page"
    return f"it starts with {data[:12]!r}"


def _guarded(image: Image.Image, at_least: tuple[int, int] | None) -> Image.Image:
    try:
        return _upright_rgb(image, at_least)
    except Image.DecompressionBombError as error:
        raise BadImage(f"it has too many pixels to be decoded safely: {error}") from error
    except _BROKEN as error:
        raise BadImage(f"it cannot be decoded: {error}") from error


def _upright_rgb(image: Image.Image, at_least: tuple[int, int] | None) -> Image.Image:
    turned = _orientation(image) in _ROTATED
    if at_least and image.format in ("JPEG", "MPO"):
        height, width = at_least
        image.draft("RGB", (height, width) if turned else (width, height))
    image.load()
    upright = ImageOps.exif_transpose(image) if _orientation(image) != 1 else image
    return _rgb(upright)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _BROKEN:  # a broken EXIF block is no reason to refuse the pixels
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bit(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Deep grey pictures. Integers over 255 are 16-bit; floats up to 1 are fractions."""
    values = np.asarray(image)
    if values.dtype.kind == "f":
        finite = np.nan_to_num(values)
        scaled = finite * 255.0 if finite.max(initial=0) <= 1.0 else finite
    else:
        deep = image.mode.startswith("I;16") or values.max(initial=0) > 255
        scaled = values / 257.0 if deep else values
    return Image.fromarray(cast("ByteArray", np.clip(np.rint(scaled), 0, 255).astype(np.uint8)))
