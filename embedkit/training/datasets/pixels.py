"""The pixels of one picture of a split: read, cut to its box, and fitted to what an encoder takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from embedkit.encoders.images import decode_image
from embedkit.errors import BadImage
from embedkit.training.datasets.contract import Split
from embedkit.training.datasets.records import record_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

    from embedkit.types import ByteArray, IdArray

    Prepare: TypeAlias = Callable[[bytes | Image], ByteArray]

__all__ = ["cut_to_box", "picture_bytes", "split_pixels"]


def picture_bytes(path: str) -> bytes:
    """The file of a picture; one of many in a file becomes a file of its own. Raises BadImage."""
    try:
        return record_bytes(path) or Path(path).read_bytes()
    except OSError as error:
        raise BadImage(f"it cannot be read: {error.strerror or error}") from error


def split_pixels(split: Split, row: int, prepare: Prepare) -> ByteArray:
    """``(height, width, 3)`` uint8 of a picture, cut to its box if it has one. Raises BadImage."""
    data = picture_bytes(split.paths[row])
    if split.boxes is None or split.boxes[row, 2] <= 0:
        return prepare(data)
    return prepare(cut_to_box(decode_image(data), split.boxes[row]))


def cut_to_box(picture: Image, box: IdArray) -> Image:
    """The part of a picture in a box of left, top, width, height; the whole picture where nothing would be left."""
    left, top, width, height = (int(side) for side in box)
    edges = (max(0, left), max(0, top), min(picture.width, left + width), min(picture.height, top + height))
    return picture.crop(edges) if edges[0] < edges[2] and edges[1] < edges[3] else picture
