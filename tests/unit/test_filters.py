"""A filter reads the same in both forms, survives a round trip, and says where it is wrong."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given

from embedkit.errors import FilterError
from embedkit.filters import And, Compare, F, In, Not, Or, as_filter, parse_filter, to_text
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


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: F("brand").isin("acme"), r"isin takes a list such as isin\(\['acme', 'zeta'\]\), not str"),
        (lambda: F("brand").isin(None), "isin takes a list.*not NoneType"),
        (lambda: F("brand").like(None), r"like takes a text such as like\('red%'\), not NoneType"),
        (lambda: F(None), "None is not a field name"),
        (lambda: F("sizes", 5), "not a field name"),
        (lambda: as_filter(And(())), "at least one part"),
        (lambda: as_filter(Not(Or(()))), "at least one part"),
        (lambda: as_filter((F("a") == 1) & "b == 2"), "one of its parts is a str"),
        (lambda: as_filter(reduce(lambda one, _: ~one, range(3_000), F("a") == 1)), "nested more than 200 deep"),
    ],
)
def test_a_filter_in_python_that_cannot_be_is_told_at_once(make, reason):
    with pytest.raises(FilterError, match=reason):
        make()


def test_a_chain_in_python_is_one_node_however_long():
    chain = as_filter(reduce(lambda one, n: one | (F("n") == n), range(1_000), F("n") == -1))
    assert chain == Or(tuple(F("n") == n for n in range(-1, 1_000)))
    assert matches(chain, {"n": 999})
    assert (F("a") == 1) & (F("b") == 2) & (F("c") == 3) == parse_filter("a == 1 and b == 2 and c == 3")


def test_what_a_text_may_nest_a_tree_may_too():
    text = reduce(lambda inner, _: f"a == 1 or b == 2 and ({inner})", range(99), "c == 3")
    assert as_filter(parse_filter(text)) == parse_filter(text)


def test_ten_times_the_keys_take_ten_times_as_long(monkeypatch):
    """Counted in characters that are looked at again and again, not in seconds."""
    looked_at = []

    class Watched(str):
        def __getitem__(self, part):
            found = super().__getitem__(part)
            looked_at.append(len(found))
            return found

    keys = [f"k{n:08}" for n in range(2_000)]
    assert parse_filter.__wrapped__(Watched(f"key in {keys}")) == In(("key",), tuple(keys))
    assert sum(looked_at) < 10 * len(str(keys))


def test_only_values_that_every_backend_holds():
    for bad in (float("nan"), 2**60, None, [1]):
        with pytest.raises(FilterError):
            F("a") == bad  # noqa: B015
    assert F("a").isin([1, "x"]) == In(("a",), (1, "x"))
    assert (F("a.b") == 1) == Compare(("a", "b"), "==", 1)
