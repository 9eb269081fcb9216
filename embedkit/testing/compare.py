"""Two answers to one query, compared as far as floating point allows."""

from __future__ import annotations

import numpy as np

from embedkit.backends.contract import SearchResult

__all__ = ["assert_same_answer"]


def assert_same_answer(found: SearchResult, exact: SearchResult, *, tolerance: float = 1e-4) -> None:
    """Scores agree rank by rank; ids agree except among rows whose scores tie within `tolerance`.

    Raises AssertionError that shows the first query and rank that differ.
    """
    assert found.ids.shape == exact.ids.shape, f"shape {found.ids.shape}, exactly {exact.ids.shape}"
    for query in range(len(exact.ids)):
        there = exact.ids[query] >= 0
        assert (there == (found.ids[query] >= 0)).all(), (
            f"query {query}: {found.ids[query]}, exactly {exact.ids[query]}"
        )
        mine, right = found.scores[query][there], exact.scores[query][there]
        np.testing.assert_allclose(mine, right, rtol=tolerance, atol=tolerance, err_msg=f"scores of query {query}")
        _same_ids(found.ids[query][there], exact.ids[query][there], right, tolerance, query)


def _same_ids(mine: np.ndarray, right: np.ndarray, scores: np.ndarray, tolerance: float, query: int) -> None:
    assert len(set(mine.tolist())) == len(mine), f"query {query} gives an id twice: {mine}"
    if not len(scores):
        return
    margin = 2 * tolerance * max(1.0, float(np.abs(scores).max()))
    clear = scores > scores[-1] + margin  # a tie at the last rank may be cut anywhere
    for rank in np.flatnonzero(clear):
        assert right[rank] in mine, f"query {query}: id {right[rank]} of rank {rank} is missing from {mine}"
