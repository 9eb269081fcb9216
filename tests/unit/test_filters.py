"""A filter reads the same in both forms, survives a round trip, and says where it is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given

from embedkit.errors import FilterError
from embedkit.filters import And, Compare, F, In, Not, parse_filter, to_text
from embedkit.matching import matches
from embedkit.testing.strategies import attributes, filters


def test_text_and_python_form_give_the_same_tree():
    text = parse_filter("price < 80 and brand in ['acme'] and not (sizes.eu is null)")
    python = And((F("price") < 80, F("brand").isin(["acme"]), Not(F("sizes", "eu").is_null())))
    assert text == python


@given(where=filters(), row=attributes())
def test_writing_and_reading_keeps_the_meaning(where, row):
    assert matches(parse_filter(to_text(where)), row) == matches(where, row)


@given(where=filters(), row=attributes())
def test_not_is_the_plain_complement(where, row):
    assert matches(Not(where), row) != matches(where, row)


@pytest.mark.parametrize(
    ("where", "row", "admitted"),
    [
        ("price < 80", {}, False),
        ("price < 80", {"price": "12"}, False),
        ("price != 12", {}, False),
        ("price != 12", {"price": "12"}, True),
        ("flag == 1", {"flag": True}, False),
        ("flag == true", {"flag": True}, True),
        ("name like 'a\\%%'", {"name": "a% off"}, True),
        ("name like 'a\\%%'", {"name": "ab"}, False),
        ("sizes.eu is null", {"sizes": 3}, True),
    ],
)
def test_the_written_rules(where, row, admitted):
    assert matches(parse_filter(where), row) is admitted


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("price <", 8, "expected a value"),
        ("price < 'x", 9, "no closing quote"),
        ("price << 3", 8, "expected a value"),
        ("(price < 3", 11, "expected ')'"),
        ("price == null", 10, "is null"),
        ("flag < true", 8, "no order"),
        ("", 1, "empty"),
        ("a == 1 b == 2", 8, "expected 'and'"),
        ("brand == acme", 10, "put the text acme in quotes"),
        ("(" * 200 + "a == 1" + ")" * 200, 101, "nested more than"),
    ],
)
def test_a_bad_filter_says_where_and_why(text, column, reason):
    with pytest.raises(FilterError) as caught:
        parse_filter(text)
    assert caught.value.column == column
    assert reason in caught.value.reason


def test_python_and_is_refused_in_words():
    with pytest.raises(TypeError, match=r"& \| ~"):
        bool(F("a") == 1)


def test_only_values_that_every_backend_holds():
    for bad in (float("nan"), 2**60, None, [1]):
        with pytest.raises(FilterError):
            F("a") == bad  # noqa: B015
    assert F("a").isin([1, "x"]) == In(("a",), (1, "x"))
    assert (F("a.b") == 1) == Compare(("a", "b"), "==", 1)
