"""A page of answers with their pictures inside, to be opened in any browser."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from embedkit.errors import ConfigError, EmbedkitError
from embedkit_cli.render import short

if TYPE_CHECKING:
    from embedkit import Hit, Product

__all__ = ["Answer", "write"]

_SIDE = 160  # pixels of a thumbnail
_TITLE = 80  # characters of a title under it; a tooltip has all of them


@dataclass(frozen=True)
class Answer:
    """`picture`: path or URL that was asked with, None for words."""

    question: str
    picture: str | None
    hits: Sequence[Hit]


def write(path: Path, answers: Sequence[Answer], read: Callable[[Product], bytes | None], *, note: str = "") -> None:
    """Write the page. `read` gives the bytes of a product's picture. Raises ConfigError if it cannot be written."""
    template = Template(files("embedkit_cli").joinpath("templates/sheet.html").read_text(encoding="utf-8"))
    made: dict[str, str] = {}  # a product may be in many answers

    def picture(product: Product) -> str:
        if product.key not in made:
            made[product.key] = _picture(read, product)
        return made[product.key]

    body = "\n".join(_answer(answer, picture) for answer in answers)
    page = template.substitute(body=body, note=html.escape(note))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The page {str(path)!r} cannot be written: {error.strerror or error}") from error


def _answer(answer: Answer, picture: Callable[[Product], str]) -> str:
    tiles = "".join(_tile(hit, picture(hit.product)) for hit in answer.hits)
    asked = ""
    if answer.picture is not None and "://" not in answer.picture:
        shown = _image(_thumbnail(Path(answer.picture).read_bytes()))
        asked = f'<figure class="asked">{shown}<figcaption>asked</figcaption></figure>'
    return (
        f"<section><h2>{html.escape(answer.question)}</h2><div>{asked}{tiles or '<p>nothing found</p>'}</div></section>"
    )


def _tile(hit: Hit, picture: str) -> str:
    title = hit.product.title or hit.product.key
    shown = html.escape(short(title, _TITLE))
    return (
        f'<figure>{picture}<figcaption><b title="{html.escape(title)}">{shown}</b>'
        f'<span title="{html.escape(hit.product.key)}">{hit.score:.3f}</span></figcaption></figure>'
    )


def _picture(read: Callable[[Product], bytes | None], product: Product) -> str:
    try:
        data = read(product)
    except EmbedkitError:
        data = None
    return _image(_thumbnail(data)) if data else '<div class="none">no picture</div>'


def _image(data: bytes) -> str:
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(data).decode()}">' if data else ""


def _thumbnail(data: bytes) -> bytes:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            small = image.convert("RGBA")
            small.thumbnail((_SIDE, _SIDE))
            out = io.BytesIO()
            small.save(out, "PNG")
            return out.getvalue()
    except (OSError, ValueError, SyntaxError):
        return b""
