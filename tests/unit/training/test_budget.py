"""How long a training goes on, and its learning rate on the way."""

from __future__ import annotations

import math

import pytest

from embedkit.training.budget import Budget, rate_at
from embedkit.training.recipe import TrainingRecipe


@pytest.mark.parametrize(
    ("settings", "budget"),
    [
        ({"epochs": 3.0}, Budget(steps=30)),
        ({"epochs": 0.25}, Budget(steps=2)),
        ({"epochs": 0.001}, Budget(steps=1)),
        ({"steps": 7}, Budget(steps=7)),
        ({"minutes": 0.5}, Budget(seconds=30.0)),
    ],
)
def test_a_budget_is_batches_or_seconds(settings, budget):
    assert Budget.of(TrainingRecipe(**settings), epoch=10) == budget


def test_progress_goes_from_0_to_1_and_not_beyond():
    steps, clock = Budget(steps=10), Budget(seconds=60.0)
    assert [steps.progress(step, 1e9) for step in (0, 5, 10, 11)] == [0, 0.5, 1, 1]
    assert [clock.progress(10**9, seconds) for seconds in (0.0, 15.0, 60.0, 61.0)] == [0, 0.25, 1, 1]


def test_the_rate_rises_in_a_straight_line_and_falls_along_half_a_cosine():
    for place in (0.0, 0.1, 0.19):
        assert rate_at(place, warmup=0.2) == pytest.approx(place / 0.2)
    for place in (0.2, 0.4, 0.7, 1.0):
        assert rate_at(place, warmup=0.2) == pytest.approx((1 + math.cos(math.pi * (place - 0.2) / 0.8)) / 2)
    assert rate_at(0.0, warmup=0.0) == 1


def test_what_comes_before_the_first_batch_takes_nothing_from_the_warm_up():
    """Class means and discriminants take a while; the rates still rise from nothing, and reach nothing at the end."""
    clock = Budget(seconds=100)
    assert clock.learning(0, 30.0, prepared=30.0) == 0
    assert clock.learning(0, 100.0, prepared=30.0) == clock.progress(0, 100.0) == 1
    assert Budget(steps=10).learning(5, 30.0, prepared=30.0) == 0.5
