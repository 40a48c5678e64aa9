"""Whether figures rise from one setting to the next."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

# Two means this close are equal: a rounding of pixels, no change of mind.
_EQUAL = 0.002


def rising(values: Sequence[float]) -> bool:
    """Whether no value is below the one before it."""
    return all(after > before - _EQUAL for before, after in pairwise(values))


def share_rising(rows: Sequence[Sequence[float]]) -> float:
    """Share of the pictures whose values rise; rows: one per setting, with a value of each."""
    columns = list(zip(*rows, strict=True))
    return round(sum(map(rising, columns)) / len(columns), 4)
