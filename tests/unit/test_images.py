"""Every kind of picture becomes the same upright RGB; broken ones say what is wrong."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from embedkit.encoders.images import decode_image
from embedkit.encoders.preprocess import Preprocess
from embedkit.errors import BadImage


def as_bytes(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_exif_orientation_is_applied(pictures):
    upright = pictures(1, (200, 100))
    for orientation, turn in ((3, 180), (6, 90), (8, 270)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        lying = upright.rotate(turn, expand=True)
        decoded = decode_image(as_bytes(lying, "JPEG", exif=exif, quality=98))
        assert decoded.size == upright.size
        assert np.abs(np.asarray(decoded, int) - np.asarray(upright, int)).mean() < 4


def test_transparency_is_laid_on_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert decode_image(as_bytes(clear)).getpixel((0, 0)) == (255, 255, 255)
    assert decode_image(as_bytes(half)).getpixel((0, 0)) == (127, 127, 127)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([9, 9, 9] * 256)
    assert decode_image(as_bytes(palette, transparency=0)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (4, 4), 77), (77, 77, 77)),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
        (Image.new("LA", (4, 4), (10, 255)), (10, 10, 10)),
        (Image.fromarray(np.full((4, 4), 65_535, np.uint16)), (255, 255, 255)),
        (Image.fromarray(np.full((4, 4), 32_896, np.uint16)), (128, 128, 128)),
    ],
)
def test_grey_palette_and_deep_pictures_become_rgb(image, expected):
    decoded = decode_image(as_bytes(image))
    assert decoded.mode == "RGB"
    assert decoded.getpixel((1, 1)) == expected


def test_cmyk_becomes_rgb():
    red = decode_image(as_bytes(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=98))
    assert red.getpixel((9, 9))[0] > 200 > 60 > red.getpixel((9, 9))[1]


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP"):
        data = as_bytes(
            frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
        )
        assert decode_image(data).getpixel((2, 2)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am text", "known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 40, "known format|cannot be"),
        (b"\xff\xd8\xff\xee\x00\x0eAdobe\x00d\x00\x00\x00\x00\x00", "it is a JPEG whose beginning is cut short"),
        (b"\xff\xd8\xff\xdb", "it is a JPEG whose beginning is cut short"),
    ],
)
def test_what_is_no_picture_says_so(data, reason):
    with pytest.raises(BadImage, match=reason):
        decode_image(data)


def test_every_truncation_is_refused_or_decoded_but_never_crashes(pictures):
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        data = as_bytes(pictures(3), kind)
        for cut in range(1, len(data), max(1, len(data) // 40)):
            try:
                decode_image(data[:cut])
            except BadImage:
                continue


def test_a_bomb_is_refused_before_it_is_decoded():
    data = as_bytes(Image.new("1", (30_000, 30_000)))
    assert len(data) < 1_000_000
    with pytest.raises(BadImage, match="too many pixels"):
        decode_image(data)


def test_a_smaller_decoding_gives_nearly_the_same_pixels(pictures):
    data = as_bytes(pictures(5, (1600, 1200)), "JPEG", quality=95)
    fast = Preprocess()(data)
    slow = Preprocess()(Image.open(io.BytesIO(data)).convert("RGB"))
    assert fast.shape == (224, 224, 3)
    assert np.abs(fast.astype(int) - slow).mean() < 2


def test_the_three_fits(pictures):
    wide = pictures(2, (300, 100))
    for fit in ("crop", "pad", "squash"):
        assert Preprocess(size=(64, 96), fit=fit)(wide).shape == (64, 96, 3)
    padded = Preprocess(size=(64, 64), fit="pad")(wide)
    assert (padded[0] == 255).all()
    assert (Preprocess(size=(64, 64), fit="crop")(wide)[0] != 255).any()
