"""The pictures of a split made small: one by one, and many on a few sheets that a page carries along."""

from __future__ import annotations

import base64
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, features

from embedkit.encoders.images import decode_image
from embedkit.errors import BadImage
from embedkit.training.datasets.contract import Split
from embedkit.training.datasets.pixels import cut_to_box, picture_bytes

if TYPE_CHECKING:
    from embedkit.types import IdArray

__all__ = ["Sheets", "class_names", "sheets_of", "small"]

_SHEET = 2_048  # pixels of a sheet's side at most, which any graphics card takes
_SIDES = ((1_500, 96), (4_000, 64))  # up to so many pictures, pixels of each: a page stays below 8 MB
_SIDE = 48
_UNREAD = (140, 140, 140)


@dataclass(frozen=True, slots=True)
class Sheets:
    """Pictures in cells of `side` pixels, `columns` × `columns` of them on each sheet, row by row.

    A picture is at the top left of its cell and has its `sizes` entry, (width, height). `uris`: the sheets, ``data:``.
    """

    side: int
    columns: int
    sizes: tuple[tuple[int, int], ...]
    uris: tuple[str, ...]


def small(split: Split, row: int, side: int) -> Image.Image:
    """A picture, cut to its box, that fits into a square; enlarged if it is smaller. Grey if it cannot be read."""
    boxed = split.boxes is not None and split.boxes[row, 2] > 0
    try:
        picture = decode_image(picture_bytes(split.paths[row]), at_least=None if boxed else (2 * side, 2 * side))
    except (OSError, BadImage):
        return Image.new("RGB", (side, side), _UNREAD)
    if split.boxes is not None:
        picture = cut_to_box(picture, split.boxes[row])
    scale = side / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def class_names(split: Split, labels: IdArray) -> list[str]:
    """The names of some classes; the number where a split has no name."""
    names = split.names or ()
    return [names[label] if 0 <= label < len(names) else str(label) for label in labels]


def sheets_of(split: Split, rows: IdArray) -> Sheets:
    """Some pictures of a split on sheets, as WebP, or JPEG where Pillow was built without."""
    side = next((pixels for count, pixels in _SIDES if len(rows) <= count), _SIDE)
    columns = _SHEET // side
    cells = columns * columns
    sizes: list[tuple[int, int]] = []
    uris: list[str] = []
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="embedkit-decode") as pool:
        for start in range(0, len(rows), cells):
            part = rows[start : start + cells]
            width, height = min(len(part), columns), -(-len(part) // columns)
            sheet = Image.new("RGB", (width * side, height * side), "white")
            for place, picture in enumerate(pool.map(lambda row: small(split, int(row), side), part)):
                sheet.paste(picture, (place % columns * side, place // columns * side))
                sizes.append(picture.size)
            uris.append(_uri(sheet))
    return Sheets(side, columns, tuple(sizes), tuple(uris))


def _uri(sheet: Image.Image) -> str:
    kind = "webp" if features.check("webp") else "jpeg"
    out = io.BytesIO()
    sheet.save(out, kind, quality=80)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
