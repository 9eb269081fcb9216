"""The square regions of R-MAC (Tolias, Sicre & Jégou 2016, arXiv:1511.05879, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["rmac_regions"]

_OVERLAP = 0.4  # neighbouring regions share about 40 % of their area


def rmac_regions(height: int, width: int, levels: int = 3) -> Iterator[tuple[int, int, int]]:
    """(top, left, side) of every region of a feature map, from coarse to fine.

    Level `l` has squares of side ``2 min(height, width) / (l + 1)``, l along the shorter side;
    along the longer side as many more as bring neighbours closest to 40 % overlap.

    >>> list(rmac_regions(4, 4, levels=2))
    [(0, 0, 4), (0, 0, 2), (0, 2, 2), (2, 0, 2), (2, 2, 2)]
    """
    short, long = sorted((height, width))
    extra = min(range(6), key=lambda n: abs(_shared(short, long, n) - _OVERLAP)) if long > short else 0
    for level in range(1, levels + 1):
        side = max(1, 2 * short // (level + 1))
        down = level + (extra if height > width else 0)
        across = level + (extra if width > height else 0)
        for top in _starts(height, side, down):
            for left in _starts(width, side, across):
                yield top, left, side


def _shared(short: int, long: int, extra: int) -> float:
    return 1 - (long - short) / extra / short if extra else 0.0


def _starts(length: int, side: int, count: int) -> list[int]:
    if count == 1:
        return [0]
    step = (length - side) / (count - 1)
    return [int(step * index) for index in range(count)]
