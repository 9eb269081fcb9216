"""The regions of R-MAC are those of the paper's section 3.2."""

from __future__ import annotations

from itertools import pairwise

import pytest

from embedkit.encoders.regions import rmac_regions


def test_a_square_map_has_one_four_and_nine_regions():
    found = list(rmac_regions(7, 7))
    sides = [side for _, _, side in found]
    assert sides == [7] + [2 * 7 // 3] * 4 + [2 * 7 // 4] * 9
    assert len(set(found)) == 14


@pytest.mark.parametrize(("height", "width"), [(7, 7), (7, 8), (8, 7), (10, 7), (12, 16), (5, 23), (3, 40), (30, 41)])
def test_every_level_reaches_all_four_edges_evenly(height, width):
    short, long = sorted((height, width))
    found = list(rmac_regions(height, width))
    first = {region for region in found if region[2] == short}
    more = len(first)  # the paper's m
    assert (more > 1) == (long > short)
    start = 0
    for level in (1, 2, 3):
        here = found[start : start + level * (level + more - 1)]
        start += len(here)
        assert {side for _, _, side in here} == {2 * short // (level + 1)}
        for axis, length in ((0, height), (1, width)):
            places = sorted({region[axis] for region in here})
            assert places[0] == 0
            assert places[-1] + here[0][2] == length or (level == 1 and length == short)
            steps = {second - one for one, second in pairwise(places)}
            assert len(steps) == 0 or max(steps) - min(steps) <= 1
    assert start == len(found)


@pytest.mark.parametrize(("short", "long"), [(7, 8), (7, 10), (12, 16), (5, 23), (3, 40), (30, 41), (20, 60)])
def test_neighbours_of_the_first_level_overlap_as_close_to_forty_percent_as_can_be(short, long):
    squares = [left for _, left, side in rmac_regions(short, long) if side == short]
    away = {count: abs(1 - (long - short) / (count - 1) / short - 0.4) for count in range(2, 100)}
    assert away[len(squares)] == min(away.values())
