"""Joined, grouped and spread-out orders, held to the papers' formulas written down once more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.search.ranks import firsts_of_groups, group_of, maximal_marginal_relevance, reciprocal_ranks
from embedkit.types import Hit, Product

SLOWLY = settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
KEYS = st.lists(st.sampled_from("abcdefgh"), unique=True)


@SLOWLY
@given(st.lists(st.tuples(KEYS, st.floats(0, 10)), max_size=4))
def test_reciprocal_ranks_are_summed_over_all_rankings(parts):
    rankings, weights = [ranking for ranking, _ in parts], [weight for _, weight in parts]
    scores = reciprocal_ranks(rankings, weights)
    assert set(scores) == {key for ranking in rankings for key in ranking}
    for key, score in scores.items():
        right = [w / (60 + r.index(key) + 1) for r, w in parts if key in r]
        assert score == pytest.approx(sum(right))


def hits(values):
    return [Hit(Product(f"p{n}", None, None, {"a": {"b": value}}), -n, n, n, "v") for n, value in enumerate(values)]


VALUES = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([1.0, "1", "x", "true"]))


@SLOWLY
@given(st.lists(st.one_of(VALUES, st.lists(VALUES, max_size=2)), max_size=12))
def test_the_first_of_every_group_stays_and_products_without_a_value_all_stay(values):
    def same(one, other):
        if isinstance(one, list) or isinstance(other, list):
            return isinstance(one, list) and isinstance(other, list) and repr(one) == repr(other)
        return isinstance(one, bool) == isinstance(other, bool) and one == other

    kept = [hit.vector_id for hit in firsts_of_groups(hits(values), ("a", "b"))]
    right = [n for n, v in enumerate(values) if v is None or not any(same(v, earlier) for earlier in values[:n])]
    assert kept == right


def test_a_key_and_a_title_group_as_they_filter():
    assert len(firsts_of_groups(hits([1, 1]), ("key",))) == 2
    assert len(firsts_of_groups(hits([1, 1]), ("title",))) == 2  # no title: each stands for itself


@SLOWLY
@given(st.integers(1, 9), st.integers(1, 12), st.floats(0, 1), st.integers(0, 10_000))
def test_mmr_takes_at_each_step_what_the_formula_says(count, wanted, diversity, seed):
    random = np.random.default_rng(seed)
    relevance, vectors = random.random(count), random.standard_normal((count, 3))
    alike = vectors @ vectors.T
    order = maximal_marginal_relevance(relevance, lambda place: alike[place], wanted, diversity=diversity)
    assert len(order) == len(set(order)) == min(count, wanted)
    for step, chosen in enumerate(order):
        before = order[:step]
        gains = {
            place: (1 - diversity) * relevance[place]
            - diversity * (max(alike[place][one] for one in before) if before else 0)
            for place in range(count)
            if place not in before
        }
        assert gains[chosen] == pytest.approx(max(gains.values()))


@SLOWLY
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=9))
def test_without_diversity_the_order_is_that_of_relevance(relevance):
    order = maximal_marginal_relevance(np.array(relevance), lambda _: np.ones(len(relevance)), 99, diversity=0)
    assert order == sorted(range(len(relevance)), key=lambda place: (-relevance[place], place))


def test_long_numbers_are_groups_of_their_own():
    ids = (2**60, 2**60 + 1, 10**400, 1, 1.0, True, "1", -0.0, 0, 2.5)
    assert [group_of(one) for one in ids[:3]] == [str(one) for one in ids[:3]]
    assert len({group_of(one) for one in ids}) == 8
