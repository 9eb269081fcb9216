"""Packed bits, held to Python's whole numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.backends.contract import CollectionSpec
from embedkit.backends.open import open_backend
from embedkit.codes import hamming, nearest_first, packed, signs

WIDTHS = st.integers(1, 20)


def some(draw_bytes, width):
    return np.frombuffer(b"".join(draw_bytes), np.uint8).reshape(len(draw_bytes), width)


def codes_of(width):
    """Few different bytes, so that equal codes and equal distances are common."""
    return st.lists(
        st.lists(st.sampled_from((0, 1, 3, 255)), min_size=width, max_size=width).map(bytes), min_size=1, max_size=12
    )


def differing(one, other):
    return (int.from_bytes(one.tobytes(), "big") ^ int.from_bytes(other.tobytes(), "big")).bit_count()


@settings(max_examples=40, deadline=None, database=None)
@given(WIDTHS.flatmap(lambda width: st.tuples(codes_of(width), codes_of(width), st.just(width))))
def test_the_oracle_gives_what_counting_bits_gives(drawn):
    queries, codes = some(drawn[0], drawn[2]), some(drawn[1], drawn[2])
    ids = np.random.default_rng(0).permutation(len(codes)) * 7
    oracle = open_backend("oracle://x")
    oracle.create(CollectionSpec("c", 8 * drawn[2], "hamming", "binary"))
    oracle.upsert("c", ids, codes)
    found = oracle.search("c", queries, 5)
    for row, query in enumerate(queries):
        right = sorted((differing(query, code), number) for code, number in zip(codes, ids.tolist(), strict=True))[:5]
        assert list(zip(found.distances[row].tolist(), found.ids[row].tolist(), strict=True)) == right
    oracle.close()


@settings(max_examples=40, deadline=None, database=None)
@given(WIDTHS.flatmap(lambda width: st.tuples(codes_of(width), st.just(width))))
def test_signs_order_as_bits_do_and_come_back(drawn):
    codes, bits = some(drawn[0], drawn[1]), 8 * drawn[1]
    values = signs(codes, bits)
    np.testing.assert_array_equal(packed(values), codes)
    np.testing.assert_array_equal((bits - values @ values.T) / 2, hamming(codes, codes))


def test_the_first_bit_is_the_most_significant():
    assert signs(np.array([[0b1000_0000]], np.uint8), 8).tolist() == [[1, -1, -1, -1, -1, -1, -1, -1]]


def test_equal_distances_go_by_id_and_what_is_missing_comes_last():
    distances = np.array([[2, np.nan, 1, 2]], np.float32)
    assert nearest_first(distances, np.array([[9, -1, 5, 4]])).tolist() == [[2, 3, 0, 1]]
