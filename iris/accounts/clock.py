"""The time of day, for limits and the journal."""

from __future__ import annotations

import time
from datetime import UTC, datetime

DAY_MS = 86_400_000

# Goes on while the host sleeps, where the system has such a clock.
_RUNNING = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """The wall clock as it was at the start, and from then on as long as time really passed.

    Somebody who sets the host's clock an hour on or back, while this runs, moves no window, no day
    and no age of anything.
    """

    def __init__(self) -> None:
        self._offset_s = time.time() - time.clock_gettime(_RUNNING)

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return int((self._offset_s + time.clock_gettime(_RUNNING)) * 1000)


def day_of(at_ms: int) -> int:
    """The UTC day, counted from 1970-01-01."""
    return at_ms // DAY_MS


def month_of(at_ms: int) -> int:
    """The UTC month, counted from January of the year 0."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.year * 12 + at.month - 1


def seconds_to_next_day(at_ms: int) -> float:
    return 86_400 - at_ms % DAY_MS / 1000
