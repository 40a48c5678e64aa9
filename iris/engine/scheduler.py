"""Who runs in the next step, and who may come in at all. No torch, no clock of its own.

The policy:

- A pass takes as many pictures as make its fixed cost small, and no more, so that it stays short:
  a picture that comes in waits for at most one pass.
- The picture with the least work left goes first, so that a preview never waits behind a final:
  into a pass as well as to be decoded. Where the stages share cores, much longer pictures
  are not worked on beside it at all.
  Each second of waiting counts as a fiftieth of a second less work, so that a final gets on too.
- Where a deadline leaves no more room for anything else, only those due by then are run.
- A picture is admitted if everybody's deadline can still be kept, its own too, and leaves free some
  room for others to come. Who is turned away is told when it will be admitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from iris.engine.arrivals import Arrivals
from iris.engine.cost import CostModel
from iris.engine.places import Places
from iris.engine.work import Work

# On the work ahead: what would just make its deadline is better refused at once than at the
# deadline. Not on a picture's own work, or one that just fits would be told to come back for ever.
_MARGIN = 1.2
_BESIDE = 2.0  # times as long as the most urgent picture is, at most, what runs beside it
_SLACK = 0.05  # share of the time a picture is allowed that is not left to the last moment
_AGEING = 0.02  # seconds of work that a second of waiting is worth
_OVERHEAD = 0.1  # of a pass, at most, is what it costs whatever is in it
# Times a picture's own work, kept free for shorter ones; at most half of what its deadline leaves.
_RESERVE = 2.0
_TRIED_AGAIN_S = 30.0  # after which a machine that was slow is tried again
_CLEARLY = 0.25  # of its work: what is shorter by that always goes before; others have aged
_ALIKE = 0.5  # of what is as long counts where it is asked whether there is room
_MOST_SHORTER = 0.8  # share of the time that what is yet to come and shorter may be thought to take
_MOST_OTHERS = 0.87  # the same of all that is yet to come


def _unlike(own_s: float, other_s: float) -> float:
    """1: the other is clearly shorter, -1: clearly longer, 0: as long."""
    return min(max((own_s - other_s) / max(_CLEARLY * own_s, 1e-9), -1.0), 1.0)


class Stage(Enum):
    """What the device can be used for once a picture is encoded."""

    STEP = "step"
    DECODE = "decode"


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

    def __init__(
        self,
        cost: CostModel,
        *,
        max_waiting: int,
        max_running: int,
        stages_share_cores: bool = False,
    ) -> None:
        """max_waiting: pictures admitted and not begun; max_running: pictures in one pass.

        stages_share_cores: what decodes slows down what steps, and the other way round.
        """
        self.cost = cost
        self._max_waiting = max_waiting
        self._max_running = max_running
        self._stages_share_cores = stages_share_cores
        self._encoding: dict[str, Work] = {}  # admitted, prompt and images not encoded yet
        self._ready: dict[str, Work] = {}
        self._stepped: dict[str, Work] = {}  # all steps taken, to be decoded
        self._arrivals = Arrivals()
        self._places = Places()
        self._promised_until_s = 0.0  # the latest time somebody was told to return at
        self._tried_at_s = float("-inf")  # the last time when somebody was let in to try

    @property
    def num_waiting(self) -> int:
        return len(self._everyone()) - self.num_running

    @property
    def num_running(self) -> int:
        return sum(work.has_begun for work in self._everyone())

    @property
    def has_runnable(self) -> bool:
        """Whether `next_round` would return anything."""
        return bool(self._ready)

    @property
    def has_stepped(self) -> bool:
        """Whether `next_decode` would return anything."""
        return bool(self._stepped)

    # -- who runs ---------------------------------------------------------------------------

    def next_round(self, now_s: float) -> list[Work]:
        """The pictures to take one step further, together, the most urgent first."""
        budget = self._budget()
        chosen: list[Work] = []
        tokens = 0
        for work in self._by_urgency(self._ready.values(), now_s):
            if len(chosen) == self._max_running:
                break
            own = work.tokens * work.passes
            if not chosen or tokens + own <= budget:
                chosen.append(work)
                tokens += own
                work.has_begun = True
        return chosen

    def next_decode(self, now_s: float) -> Work | None:
        """The picture to decode next, or a piece of it; it stays until it is removed."""
        return next(iter(self._by_urgency(self._stepped.values(), now_s)), None)

    def next_encode(self, may_be: Callable[[str], bool], now_s: float) -> Work | None:
        """The picture to encode the images of next, among those whose tickets may be."""
        works = [work for work in self._encoding.values() if may_be(work.ticket_id)]
        return next(iter(self._by_urgency(works, now_s)), None)

    def may_run(self, stage: Stage, now_s: float) -> bool:
        """Whether the stage has something to do that may be done now, beside the other."""
        works = self._stepped if stage is Stage.DECODE else self._ready
        if not works:
            return False
        own, *_ = self._by_urgency(works.values(), now_s)
        first, *_ = self._by_urgency([*self._stepped.values(), *self._ready.values()], now_s)
        if first.deadline_at_s <= self._tight_deadline_s(now_s) < own.deadline_at_s:
            return False
        return not self._stages_share_cores or own.total_s <= _BESIDE * first.total_s

    def _rank(self, work: Work, now_s: float) -> float:
        return self.own_s(work) - _AGEING * (now_s - work.admitted_at_s)

    def _by_urgency(self, works: Iterable[Work], now_s: float) -> list[Work]:
        """The works in the order in which they are to go on.

        Where a deadline leaves no room for others, only those who are due by it, if there are any.
        """
        works = sorted(works, key=lambda work: self._rank(work, now_s))
        due_s = self._tight_deadline_s(now_s)
        return [work for work in works if work.deadline_at_s <= due_s] or works

    def _tight_deadline_s(self, now_s: float) -> float:
        """The first deadline that leaves no room for anything but what is due by it."""
        ahead_s = 0.0
        for work in self._by_deadline():
            ahead_s += self.own_s(work)
            slack_s = _SLACK * (work.deadline_at_s - work.admitted_at_s)
            if now_s + ahead_s * _MARGIN + slack_s > work.deadline_at_s:
                return work.deadline_at_s
        return float("inf")

    def _budget(self) -> float:
        """The tokens from which on a pass of them costs little more than the tokens."""
        line = self.cost.step
        if line.per_unit_s <= 0:
            return float("inf")
        return line.fixed_s / line.per_unit_s * (1 / _OVERHEAD - 1)

    # -- who may come in --------------------------------------------------------------------

    def predict_s(self, work: Work, now_s: float) -> float:
        """Seconds until the picture would be finished if it came in now.

        What is shorter goes first, also what is yet to come: as much of it as came of late.
        """
        own_s = self.own_s(work)
        alone_s = own_s + self._before_s(work, now_s)
        came, window_s = self._arrivals.within(alone_s, now_s)
        shorter = (max(_unlike(own_s, other_s), 0.0) * other_s for other_s in map(self.own_s, came))
        share = sum(shorter) / window_s
        return alone_s / (1.0 - min(share, _MOST_SHORTER))

    def _finished_s(self, work: Work, left_s: float, now_s: float) -> float:
        """Seconds until it would be finished at the latest, if as much goes on to come as came.

        Nothing that is longer goes before it, until it is due, and then it does. Who was turned
        away and is to come back by then goes before, too.
        """
        own_s = self.own_s(work)
        came, window_s = self._arrivals.within(left_s, now_s)
        others = (
            (_ALIKE + (1.0 - _ALIKE) * abs(_unlike(own_s, other_s))) * other_s
            for other_s in map(self.own_s, came)
        )
        times = 1.0 / (1.0 - min(sum(others) / window_s, _MOST_OTHERS))
        before_s = _MARGIN * self._before_s(work, now_s)
        kept_s = self._places.expected_s(own_s, now_s + own_s + times * before_s)
        return own_s + times * (before_s + kept_s)

    def offer(self, work: Work, now_s: float) -> Offer:
        """Admit the work or say when there will be room for it.

        `retry_after_s` is the time until enough of the work ahead is done: for the deadlines, or
        for a place in the queue.
        """
        own_s = self.own_s(work)
        left_s = work.deadline_at_s - now_s
        seems_too_long = own_s > left_s
        if seems_too_long and not self._is_to_be_tried(work, left_s, now_s):
            return Offer(own_s, is_hopeless=True)
        predicted_s = self.predict_s(work, now_s)
        likeness = work.owner, work.tokens, work.passes, work.steps_left, work.pixels
        place = self._places.take(likeness, now_s)
        late_s = 0.0 if seems_too_long else self._late_s(work, now_s)
        if self._everyone():
            # for who comes back the margin was on the time to do so
            finished_s = self._finished_s(work, left_s, now_s) if place is None else predicted_s
            late_s = max(late_s, finished_s - left_s)
        if late_s > 0:
            retry_after_s = self._promise(late_s, own_s, left_s, now_s)
            self._places.keep(likeness, now_s + retry_after_s, own_s)
            return Offer(predicted_s, retry_after_s)
        if self.num_waiting >= self._max_waiting:
            place_s = self.remaining_s() / len(self._everyone())
            return Offer(predicted_s, self._promise(place_s, own_s, left_s, now_s))
        self.cost.pace.begin(now_s)
        work.total_s = own_s
        self._encoding[work.ticket_id] = work
        self._arrivals.add(work, now_s)
        return Offer(min(predicted_s, left_s))  # by its deadline it is its turn

    def _is_to_be_tried(self, work: Work, left_s: float, now_s: float) -> bool:
        """Whether a picture that seems to be too long is let in to see how long it takes now.

        It would be in time if nothing had ever been slower than at the start. Nothing else is
        under way that could tell, and if nobody were let in, nobody ever would.
        """
        if self._everyone() or now_s < self._tried_at_s + _TRIED_AGAIN_S:
            return False
        if self._own_s(work, self.cost.as_calibrated()) > left_s:
            return False
        self._tried_at_s = now_s
        return True

    def _before_s(self, work: Work, now_s: float) -> float:
        """The work that would be done before this picture: all that is more urgent, and what goes
        along in its passes."""
        rank_s = self._rank(work, now_s)
        ahead_s = others_s = 0.0
        for other in self._everyone():
            if self._rank(other, now_s) <= rank_s:
                ahead_s += self.own_s(other)
            elif other.ticket_id not in self._stepped:
                others_s += self.own_s(other)
        return ahead_s + min(self._along_s(work), others_s)

    def _along_s(self, work: Work) -> float:
        """What others may add to the picture's passes."""
        room = self._budget() - work.tokens * work.passes
        token_s = self.cost.step.per_unit_s * self.cost.step.drift * self.cost.pace.value
        return work.steps_left * room * token_s if room > 0 and token_s > 0 else 0.0

    def _late_s(self, work: Work, now_s: float) -> float:
        """By how much the worst deadline would be missed if this picture came in; below 0: none.

        Run in the order of their deadlines, pictures keep them all if that can be done at all.
        """
        own_s = self.own_s(work)
        left_s = work.deadline_at_s - now_s
        ahead_s = sum(
            self.own_s(other)
            for other in self._everyone()
            if other.deadline_at_s <= work.deadline_at_s
        )
        reserve_s = min(_RESERVE * own_s, (left_s - own_s) / 2) if ahead_s else 0.0
        late_s = ahead_s * _MARGIN + own_s + reserve_s - left_s
        for other in self._by_deadline():
            if other.deadline_at_s > work.deadline_at_s:
                ahead_s += self.own_s(other)
                late_s = max(late_s, ahead_s * _MARGIN + own_s - (other.deadline_at_s - now_s))
        return late_s

    def _promise(self, wait_s: float, own_s: float, left_s: float, now_s: float) -> float:
        """Seconds to come back after: everyone who is turned away gets a time of their own.

        With one time for all, all would return at once, and all but one be turned away again.
        """
        latest_s = now_s + max(wait_s, left_s)  # who comes later than that finds an idle engine
        promised_s = max(now_s + wait_s, self._promised_until_s + own_s)
        self._promised_until_s = min(promised_s, latest_s)
        return self._promised_until_s - now_s

    # -- tickets ----------------------------------------------------------------------------

    def encoded(self, ticket_id: str, now_s: float) -> bool:
        """The picture can start. False if it was removed in the meantime."""
        work = self._encoding.pop(ticket_id, None)
        if work is not None:
            if work.image_pixels is not None:
                self.cost.pace.work(self.cost.encode.predict_s(work.image_pixels), now_s)
            work.image_pixels = None
            self._ready[ticket_id] = work
        return work is not None

    def took_a_step(self, works: Sequence[Work], now_s: float) -> None:
        """These have taken a step in one pass; who has no more to take is to be decoded."""
        step = self.cost.step
        self.cost.pace.work(sum(w.passes * step.predict_s(w.tokens) for w in works), now_s)
        for work in works:
            work.steps_left -= 1
            if work.steps_left == 0 and self._ready.pop(work.ticket_id, None) is not None:
                self._stepped[work.ticket_id] = work

    def decoded_a_piece(self, work: Work, pieces: int, now_s: float) -> None:
        """So many pieces of the picture's decoding are done; it stays until it is removed."""
        left = self.cost.decode_left(pieces)
        share = max(work.decode_left - left, 0.0)  # it may have had to begin anew
        self.cost.pace.work(share * self.cost.decode.predict_s(work.pixels), now_s)
        work.decode_left = left

    def remove(self, ticket_id: str) -> bool:
        """Take a picture out wherever it is: finished, failed or no longer wanted."""
        places = (self._encoding, self._ready, self._stepped)
        was_there = any(place.pop(ticket_id, None) is not None for place in places)
        if not any(places):
            self.cost.pace.end()
        return was_there

    def expired(self, now_s: float) -> list[str]:
        """Tickets whose deadline has passed."""
        return [work.ticket_id for work in self._everyone() if work.deadline_at_s <= now_s]

    def remaining_s(self) -> float:
        """Engine time until everything admitted is done."""
        return sum(self.own_s(work) for work in self._everyone())

    def _everyone(self) -> list[Work]:
        return [*self._stepped.values(), *self._ready.values(), *self._encoding.values()]

    def _by_deadline(self) -> list[Work]:
        return sorted(self._everyone(), key=lambda work: work.deadline_at_s)

    def own_s(self, work: Work) -> float:
        """Seconds of work that is left of the picture itself."""
        return self._own_s(work, self.cost)

    @staticmethod
    def _own_s(work: Work, cost: CostModel) -> float:
        return cost.picture_s(
            work.tokens,
            work.passes,
            work.steps_left,
            work.pixels,
            work.image_pixels,
            work.decode_left,
        )
