"""What goes out to Vearch is JSON, and nothing is lost in it: every number of a vector, every letter of the columns."""

from __future__ import annotations

import base64
import hashlib
import json

import numpy as np
import pytest

from embedkit.backends.contract import CollectionSpec, IndexSpec
from embedkit.backends.vearch.layout import layout_of
from embedkit.backends.vearch.reading import Place
from embedkit.backends.vearch.writing import documents
from embedkit.codes import signs


def place(spec):
    return Place("shop", "shop", "shop", spec, layout_of(spec), 0)


def written(spec, rows):
    made = documents(place(spec), np.arange(len(rows)), rows, ["{}"] * len(rows), "w")
    return [json.loads(one)[layout_of(spec).field] for one in made]


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_every_float_comes_back_with_the_same_bits(zero):
    bits = np.random.default_rng(0).integers(0, 2**32, 40_000, dtype=np.uint32)
    every = bits.view(np.float32)
    every = np.append(
        every[np.isfinite(every)][:31_990], np.float32([zero, 1, -1, 1 / 3, 1e-45, 3.4028235e38, 1e8, 9, 7, 5])
    )
    rows = every.reshape(-1, 32)
    assert np.array(written(CollectionSpec("shop", 32, "l2"), rows), np.float32).tobytes() == rows.tobytes()


def test_codes_go_out_as_signs_or_as_bytes():
    codes = np.random.default_rng(0).integers(0, 256, (5, 8), dtype=np.uint8)
    spec = CollectionSpec("shop", 64, "hamming", "binary")
    assert written(spec, codes) == signs(codes, 64).tolist()
    packed = written(CollectionSpec("shop", 64, "hamming", "binary", IndexSpec("ivf")), codes)
    assert packed == codes.tolist()
    assert all(isinstance(byte, int) for row in packed for byte in row)


def test_a_document_has_our_id_its_columns_as_they_are_and_a_token_for_what_each_says():
    def token(*what):
        return base64.urlsafe_b64encode(hashlib.blake2b(json.dumps(what).encode(), digest_size=9).digest()).decode()

    columns = {"title": 'Crème "x"\\\n\u2028', "price": 12, "new": True, "sizes": {"eu": 4.5}, "none": None}
    text = json.dumps(columns, ensure_ascii=False)
    (made,) = documents(
        place(CollectionSpec("shop", 2)), np.array([2**62]), np.eye(1, 2, dtype=np.float32), [text], "w7"
    )
    read = json.loads(made)
    assert read.pop("tokens") == [
        f"#{2**62}",
        "w7",
        *(token(["title"]), token(["title"], "t", columns["title"])),
        *(token(["price"]), token(["price"], "n", "12.0")),
        *(token(["new"]), token(["new"], "b", True)),
        *(token(["sizes"]), token(["sizes", "eu"]), token(["sizes", "eu"], "n", "4.5")),
    ]
    assert read == {"_id": str(2**62), "id": 2**62, "columns": text, "vector": [1, 0]}
