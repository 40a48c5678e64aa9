"""Who runs in the next step, and who may come in at all. No torch, no clock of its own.

Policy: pictures start in the order they were admitted, up to `max_running` at once; every round
takes each running picture one step further, so a picture of few steps leaves early whatever
runs beside it. A picture is admitted only if all the work ahead and its own fit into its deadline.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from iris.engine.cost import CostModel

# On the work ahead: what would just make its deadline is better refused at once than at the
# deadline. Not on a picture's own work, or one that just fits would be told to come back for ever.
_MARGIN = 1.1


@dataclass(slots=True)
class Work:
    """One picture as the scheduler sees it. Set by the engine; `steps_left` counts down."""

    ticket_id: str
    tokens: int  # in one forward pass: prompt + picture + references
    passes: int  # forward passes a step: 2 with guidance
    steps_left: int
    pixels: int
    image_pixels: int  # of the source images, until they are encoded; then 0
    deadline_at_s: float  # on the engine's monotonic clock


@dataclass(frozen=True, slots=True)
class Offer:
    """The answer to a picture that wants in."""

    predicted_s: float  # until it is finished
    retry_after_s: float | None = None  # set: no room now, come back then
    is_hopeless: bool = False  # too long for its deadline even on an idle engine

    @property
    def is_admitted(self) -> bool:
        return self.retry_after_s is None and not self.is_hopeless


class Scheduler:
    """Not thread-safe: the engine holds its lock around every call."""

    def __init__(self, cost: CostModel, *, max_waiting: int, max_running: int) -> None:
        self.cost = cost
        self._max_waiting = max_waiting
        self._max_running = max_running
        self._encoding: dict[str, Work] = {}  # admitted, prompt and images not encoded yet
        self._waiting: deque[Work] = deque()
        self._running: list[Work] = []
        self._promised_until_s = 0.0  # the latest time somebody was told to return at

    @property
    def num_waiting(self) -> int:
        return len(self._encoding) + len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def has_runnable(self) -> bool:
        """Whether `next_round` would return anything."""
        return bool(self._waiting or self._running)

    def offer(self, work: Work, now_s: float) -> Offer:
        """Admit the work or say when there will be room for it.

        `retry_after_s` is the time until enough of the work ahead is done: for the deadline, or
        for a place in the queue.
        """
        ahead_s = self.remaining_s()
        own_s = self._work_s(work)
        total_s = ahead_s + own_s
        left_s = work.deadline_at_s - now_s
        if own_s > left_s:
            return Offer(own_s, is_hopeless=True)
        late_s = ahead_s * _MARGIN + own_s - left_s
        if late_s > 0:
            return Offer(total_s, self._promise(late_s, own_s, left_s, now_s))
        if self.num_waiting >= self._max_waiting:
            place_s = ahead_s / len(self._everyone())
            return Offer(total_s, self._promise(place_s, own_s, left_s, now_s))
        self._encoding[work.ticket_id] = work
        return Offer(total_s)

    def _promise(self, wait_s: float, own_s: float, left_s: float, now_s: float) -> float:
        """Seconds to come back after: everyone who is turned away gets a time of their own.

        With one time for all, all would return at once, and all but one be turned away again.
        """
        latest_s = now_s + max(wait_s, left_s)  # who comes later than that finds an idle engine
        promised_s = max(now_s + wait_s, self._promised_until_s + own_s)
        self._promised_until_s = min(promised_s, latest_s)
        return self._promised_until_s - now_s

    def encoded(self, ticket_id: str) -> bool:
        """The picture can start. False if it was removed in the meantime."""
        work = self._encoding.pop(ticket_id, None)
        if work is not None:
            work.image_pixels = 0
            self._waiting.append(work)
        return work is not None

    def next_round(self) -> list[Work]:
        """The pictures to take one step further, in order."""
        while self._waiting and len(self._running) < self._max_running:
            self._running.append(self._waiting.popleft())
        return list(self._running)

    def remove(self, ticket_id: str) -> bool:
        """Take a picture out wherever it is: finished, failed or no longer wanted."""
        if self._encoding.pop(ticket_id, None) is not None:
            return True
        for queue in (self._waiting, self._running):
            for work in queue:
                if work.ticket_id == ticket_id:
                    queue.remove(work)
                    return True
        return False

    def expired(self, now_s: float) -> list[str]:
        """Tickets whose deadline has passed."""
        return [work.ticket_id for work in self._everyone() if work.deadline_at_s <= now_s]

    def remaining_s(self) -> float:
        """Engine time until everything admitted is done."""
        return sum(self._work_s(work) for work in self._everyone())

    def _everyone(self) -> list[Work]:
        return [*self._running, *self._waiting, *self._encoding.values()]

    def _work_s(self, work: Work) -> float:
        seconds = self.cost.picture_s(work.tokens, work.passes, work.steps_left, work.pixels)
        if work.image_pixels:
            seconds += self.cost.encode.predict_s(work.image_pixels)
        return seconds
