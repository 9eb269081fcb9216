"""Searching by a drawing: strokes in, coloured things out."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw

from tests.cli.test_commands import last, run

__all__ = ["run"]

SIDE = 96
COLOURS = ("crimson", "gold", "seagreen", "steelblue", "orchid", "sienna")
CAT = {
    "line": [(20, 44), (22, 12), (40, 28), (56, 28), (74, 12), (76, 44), (72, 66), (48, 80), (24, 66), (20, 44)],
    "eyes": [(34, 46), (62, 46)],
    "whiskers": [[(10, 56), (34, 58)], [(10, 66), (34, 62)], [(86, 56), (62, 58)], [(86, 66), (62, 62)]],
}
STAR = [(48, 8), (58, 36), (88, 36), (64, 54), (73, 84), (48, 66), (23, 84), (32, 54), (8, 36), (38, 36), (48, 8)]
SHAPES = {
    "house": [(16, 88), (16, 44), (48, 12), (80, 44), (80, 88), (16, 88)],
    "kite": [(48, 6), (78, 40), (48, 90), (18, 40), (48, 6)],
    "boat": [(8, 58), (88, 58), (72, 84), (24, 84), (8, 58)],
    "tree": [(48, 6), (80, 64), (56, 64), (56, 88), (40, 88), (40, 64), (16, 64), (48, 6)],
    "star": STAR,
    "cat": CAT["line"],
}


def strokes(name, *, width=3, mode="RGB", shift=0):
    """An outline as a hand draws it: black on white, or on nothing."""
    sheet = Image.new(mode, (SIDE, SIDE), "white" if mode == "RGB" else (0, 0, 0, 0))
    pen = ImageDraw.Draw(sheet)
    moved = [(x + shift, y + shift) for x, y in SHAPES[name]]
    pen.line(moved, fill="black", width=width, joint="curve")
    if name == "cat":
        for x, y in CAT["eyes"]:
            pen.ellipse((x - 4 + shift, y - 4 + shift, x + 4 + shift, y + 4 + shift), outline="black", width=width)
        for whisker in CAT["whiskers"]:
            pen.line(whisker, fill="black", width=width - 1)
    return sheet


def coloured(name, colour):
    sheet = strokes(name)
    ImageDraw.Draw(sheet).polygon(SHAPES[name], fill=colour, outline="black", width=2)
    return sheet


@pytest.fixture
def shop(tmp_path):
    """Six things in a folder of pictures, and a table with outlines of them beside the pictures."""
    rows = []
    for place, (name, colour) in enumerate(zip(SHAPES, COLOURS, strict=True)):
        for domain, drawing in (("picture", coloured(name, colour)), ("sketch", strokes(name))):
            (tmp_path / domain).mkdir(exist_ok=True)
            drawing.save(tmp_path / domain / f"{name}.png")
            rows.append(f"{domain}/{name}.png,{name},{'train' if place < 4 else 'test'},{domain}")
    (tmp_path / "drawn.csv").write_text("path,label,split,domain\n" + "\n".join(rows) + "\n")
    return tmp_path


def test_an_encoder_that_was_trained_with_sketches_finds_pictures_by_a_drawing(run, shop):
    small = ["--encoder", "effnet-lite0(size=64)", "--dim", "16", "--batch", "8", "--steps", "6", "--no-plots"]
    learned = ["--data", "drawn.csv", "--loss", "nt-xent", "--set", "sampler=domains"]
    done = run("train", *learned, "--out", "run", *small, "--json")
    assert last(done)["primary"] == "recall@1"
    run("ingest", "picture", "-c", "things", "--encoder", "image=run")
    strokes("cat", mode="RGBA", width=4, shift=2).save(shop / "cat.png")
    found = run("search", "-c", "things", "--sketch", "cat.png", "-k", "6", "--json")
    hits = last(found)["hits"]
    assert sorted(hit["key"] for hit in hits) == sorted(f"{name}.png" for name in SHAPES)
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert "sketch" not in found.stderr


def test_another_encoder_answers_too_and_says_what_would_be_better(run, shop):
    run("ingest", "picture", "-c", "things", "--encoder", "image=effnet-lite0")
    strokes("star").save(shop / "star.png")
    found = run("search", "-c", "things", "-s", "star.png", "-k", "2", "--json")
    assert len(last(found)["hits"]) == 2
    (warning,) = found.stderr.splitlines()
    assert "'effnet-lite0' was not trained for sketches" in warning
    assert "openmoji-sketch" in warning


def test_on_white_or_on_nothing_it_is_the_same_drawing_and_it_weighs_as_it_is_told(products, shop, caplog):
    products.ingest(shop / "picture", encoder={"image": "effnet-lite0"})
    bare = strokes("tree", mode="RGBA")
    alone = products.search(sketch=bare)
    assert alone == products.search(sketch=strokes("tree"))
    boat = shop / "picture" / "boat.png"
    assert products.search(sketch=bare, image=boat, weights={"sketch": 0})[0].key == "boat.png"
    weighed = products.search(sketch=bare, image=boat, weights={"image": 0})
    assert [hit.key for hit in weighed] == [hit.key for hit in alone]
    assert sum("not trained for sketches" in message for message in caplog.messages) == 1, "said once, not each time"
