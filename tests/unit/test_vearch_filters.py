"""What Vearch is asked for a filter admits every row that the filter admits, and no other where it says so."""

from __future__ import annotations

from hypothesis import given, settings

from embedkit.backends.vearch.filters import PARTIAL, push, tokens
from embedkit.filters import F, parse_filter
from embedkit.matching import matches
from embedkit.testing.strategies import attributes, filters


def admits(pushed, row):
    """What a partition server does with the conditions."""
    for condition in pushed.conditions():
        shared = set(condition.value) & set(row)
        if bool(shared) != (condition.operator == "IN"):
            return False
    return not pushed.nothing


@settings(max_examples=100, deadline=None, database=None)
@given(where=filters(), columns=attributes())
def test_no_row_that_passes_is_left_out(where, columns):
    pushed = push(where)
    if matches(where, columns):
        assert admits(pushed, tokens(columns, ["#1"]))
        assert admits(pushed, ["#1", PARTIAL]), "nor one whose tokens do not fit"
    elif pushed.exact:
        assert not admits(pushed, tokens(columns, ["#1"]))


def test_what_conditions_joined_by_and_can_say_is_exact():
    for where in (
        "brand == 'acme' and not color == 'red'",
        "a in [1, 2] or b == true",
        "a is null",
        "a != 3",
        "not a in [1]",
    ):
        assert push(parse_filter(where)).exact, where
    for where in ("price < 80", "title like 'a%'", "not price < 80", "(a == 1 and b == 2) or c == 3"):
        assert not push(parse_filter(where)).exact, where


def test_a_number_has_one_token_however_it_is_written():
    assert tokens({"a": 12}, []) == tokens({"a": 12.0}, [])
    assert tokens({"a": 0.0}, []) == tokens({"a": -0.0}, [])
    assert len({tokens({"a": value}, [])[1] for value in (1, True, "1", 2**53, 2**53 + 1, 10**400)}) == 6


def test_a_row_with_too_many_attributes_is_marked_and_still_filtered():
    columns = {f"attribute {number}": number for number in range(100)}
    assert tokens(columns, ["#1"]) == ["#1", PARTIAL]
    assert sum(len(token) + 1 for token in tokens({f"a{n}": n for n in range(38)}, ["#1"])) <= 1_024
    assert admits(push(F("attribute 7") == 7), ["#1", PARTIAL])
