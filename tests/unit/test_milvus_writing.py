"""What goes to Milvus in one message is less than a server takes, and what goes wrong on the way is told."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from embedkit.backends.contract import CollectionSpec
from embedkit.backends.milvus.errors import translated
from embedkit.backends.milvus.layout import LAYOUTS
from embedkit.backends.milvus.writing import parts_of, request_of
from embedkit.errors import BackendUnavailable

TAKEN = 64 << 20  # bytes of a message, by Milvus's default


@pytest.mark.parametrize(("dim", "rows"), [(8_192, 1_024), (32_768, 256), (128, 2_000)])
def test_a_request_of_long_vectors_fits_into_a_message(dim, rows):
    layout, spec = LAYOUTS[0], CollectionSpec("c", dim)
    texts = ['{"n":1}'] * 4_500
    parts = list(parts_of(layout.row_bytes(spec), texts))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(4_500))
    largest = max(parts, key=lambda part: part.stop - part.start)
    count = largest.stop - largest.start
    assert rows * 0.9 < count <= rows, "few, and no more than there is room for"
    request = request_of(
        "c", spec, layout, np.arange(count), np.ones((count, dim), np.float32), texts[largest], lite=False
    )
    assert request.ByteSize() < TAKEN


@pytest.mark.parametrize("letter", ["a", "ш", "鞋"])
def test_a_request_of_long_columns_fits_into_a_message(letter):
    layout, spec = LAYOUTS[0], CollectionSpec("c", 8)
    text = f'{{"words":"{letter * (26_000 // len(letter.encode()) - 20)}"}}'
    parts = list(parts_of(layout.row_bytes(spec), [text] * 1_000))
    assert sum(part.stop - part.start for part in parts) == 1_000
    count = parts[0].stop
    request = request_of(
        "c", spec, layout, np.arange(count), np.ones((count, 8), np.float32), [text] * count, lite=False
    )
    assert TAKEN / 8 < request.ByteSize() < TAKEN
    assert list(parts_of(layout.row_bytes(spec), [])) == []


def test_an_error_on_the_way_is_told_in_the_words_of_the_way():
    told = pytest.raises(BackendUnavailable, match=r"does not answer \((?!<).*(connect|refused)")
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        ask = channel.unary_unary("/milvus.proto.milvus.MilvusService/Search")
        with told, translated("milvus://127.0.0.1:1"):
            ask(b"", timeout=10)
