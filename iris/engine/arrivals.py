"""What came in of late: as much is to be expected. No torch."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import takewhile

from iris.engine.work import Work

_LATELY_S = 30.0  # in less time than that too little comes to tell
_MOST = 256  # that are remembered


class Arrivals:
    """The works that were admitted, as they came in.

    As works and not as seconds: what they take is predicted by what is known now. By what was known
    when each came, pictures of one kind would seem shorter than each other.
    """

    def __init__(self) -> None:
        self._works: deque[Work] = deque(maxlen=_MOST)

    def add(self, work: Work, now_s: float) -> None:
        self._works.append(replace(work, admitted_at_s=now_s))

    def within(self, window_s: float, now_s: float) -> tuple[list[Work], float]:
        """What came in during that many seconds until now, the latest first, and the seconds.

        They are more where too little would be seen, and fewer where more came than is remembered.
        """
        window_s = max(window_s, _LATELY_S)
        if len(self._works) == _MOST:
            window_s = min(window_s, max(now_s - self._works[0].admitted_at_s, 1.0))
        since_s = now_s - window_s
        came = takewhile(lambda work: work.admitted_at_s >= since_s, reversed(self._works))
        return list(came), window_s
