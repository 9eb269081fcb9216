"""What goes to Milvus in one message is less than a server takes, however long vectors and columns are."""

from __future__ import annotations

import numpy as np
import pytest

from embedkit.backends.contract import CollectionSpec
from embedkit.backends.milvus.layout import LAYOUTS
from embedkit.backends.milvus.writing import parts_of, request_of

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
    request = request_of("c", spec, layout, np.arange(count), np.ones((count, dim), np.float32), texts[largest])
    assert request.ByteSize() < TAKEN


@pytest.mark.parametrize("letter", ["a", "ш", "鞋"])
def test_a_request_of_long_columns_fits_into_a_message(letter):
    layout, spec = LAYOUTS[0], CollectionSpec("c", 8)
    text = f'{{"words":"{letter * (26_000 // len(letter.encode()) - 20)}"}}'
    parts = list(parts_of(layout.row_bytes(spec), [text] * 1_000))
    assert sum(part.stop - part.start for part in parts) == 1_000
    count = parts[0].stop
    request = request_of("c", spec, layout, np.arange(count), np.ones((count, 8), np.float32), [text] * count)
    assert TAKEN / 8 < request.ByteSize() < TAKEN
    assert list(parts_of(layout.row_bytes(spec), [])) == []
