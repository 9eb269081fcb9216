"""The square regions of R-MAC (Tolias, Sicre & Jégou 2016, arXiv:1511.05879, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["rmac_regions"]

_OVERLAP = 0.4  # neighbouring regions share about 40 % of their area


def rmac_regions(height: int, width: int, levels: int = 3) -> Iterator[tuple[int, int, int]]:
    """(top, left, side) of every region of a feature map, from coarse to fine.

    Level l has ``l (l + m - 1)`` squares of side ``2 min(height, width) / (l + 1)``: l along the shorter side,
    and along the longer one m - 1 more, where m is the number of squares that brings neighbours of the first
    level closest to 40 % overlap (1 for a square map).

    >>> list(rmac_regions(4, 4, levels=2))
    [(0, 0, 4), (0, 0, 2), (0, 2, 2), (2, 0, 2), (2, 2, 2)]
    """
    short, long = sorted((height, width))
    extra = min(range(1, long), key=lambda n: abs(_shared(short, long, n) - _OVERLAP)) if long > short else 0
    for level in range(1, levels + 1):
        side = max(1, 2 * short // (level + 1))
        down = level + (extra if height > width else 0)
        across = level + (extra if width > height else 0)
        for top in _starts(height, side, down):
            for left in _starts(width, side, across):
                yield top, left, side


def _shared(short: int, long: int, extra: int) -> float:
    """The share of its area that a square has in common with the next, when `extra` follow the first."""
    return 1 - (long - short) / extra / short


def _starts(length: int, side: int, count: int) -> list[int]:
    """`count` places from one end to the other, evenly."""
    return [(length - side) * index // max(1, count - 1) for index in range(count)]
