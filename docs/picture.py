"""Draws ``docs/images/demo.png``, the picture of the README, from the collection that ``embedkit demo`` made."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import embedkit

TILE, GAP, HOME = 132, 14, Path(".embedkit/demo")
QUESTIONS = (
    ("image", {"image": str(HOME / "catalog/pictures/1F34E.png")}),
    ("“a boat on the water”", {"text": "a boat on the water"}),
    ("image", {"image": str(HOME / "catalog/pictures/1F98A.png")}),
    ("“something to write with”", {"text": "something to write with"}),
)


def main() -> None:
    """Ask the demo collection and draw the answers."""
    font = ImageFont.load_default(17)
    sheet = Image.new("RGB", (7 * (TILE + GAP) + 2 * GAP, len(QUESTIONS) * (TILE + GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    with embedkit.connect(home=HOME) as kit:
        demo = kit.collection("demo")
        for line, (label, query) in enumerate(QUESTIONS):
            top = GAP + line * (TILE + GAP)
            if "image" in query:
                tile(sheet, Path(query["image"]).read_bytes(), GAP, top, outline="#2a7")
            else:
                pen.multiline_text((GAP, top + 40), label.replace(" on", "\non").replace(" to", "\nto"), "#222", font)
            for place, hit in enumerate(demo.search(**query, k=6), 1):
                tile(sheet, demo.picture(hit.product), 2 * GAP + place * (TILE + GAP), top, outline="#ccc")
    Path("docs/images").mkdir(parents=True, exist_ok=True)
    sheet.quantize(128).save("docs/images/demo.png", optimize=True)


def tile(sheet: Image.Image, data: bytes, left: int, top: int, *, outline: str) -> None:
    """Paste one picture in a frame."""
    picture = Image.open(io.BytesIO(data)).convert("RGB").resize((TILE - 10, TILE - 10))
    sheet.paste(picture, (left + 5, top + 5))
    ImageDraw.Draw(sheet).rounded_rectangle((left, top, left + TILE, top + TILE), 12, outline=outline, width=3)


if __name__ == "__main__":
    main()
