"""Binary codes: how many bits they may have, and how many of them differ for more than rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import ConfigError

if TYPE_CHECKING:
    from embedkit.types import FloatArray

__all__ = ["MOST_BITS", "check_bits", "clear_flips"]

LEAST_BITS, MOST_BITS = 16, 512
_SURE = 0.02  # of the root mean square of a row: nearer to 0 two runtimes may disagree on the side


def check_bits(bits: int) -> int:
    """The same number. Raises ConfigError for one that no code may have.

    >>> check_bits(64)
    64
    """
    if not LEAST_BITS <= bits <= MOST_BITS or bits % 8:
        raise ConfigError(f"bits = {bits} is not a multiple of 8 from {LEAST_BITS} to {MOST_BITS}")
    return bits


def clear_flips(numbers: FloatArray, expected: FloatArray) -> int:
    """How many bits differ, not counting those whose expected number is so near to 0 that rounding decides."""
    spread = np.sqrt(np.square(expected).mean(axis=1, keepdims=True))
    differ = (numbers > 0) != (expected > 0)
    return int(np.count_nonzero(differ & (np.abs(expected) > _SURE * spread)))
