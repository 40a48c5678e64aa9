"""The scheduler under random load, in simulated time: the same class, no device."""

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iris.engine.cost import CostModel, Line
from iris.engine.scheduler import Scheduler, Work

FIXED_S, TOKEN_S, DECODE_S = 0.004, 0.0001, 0.03
DEADLINE_S = 30.0
PREVIEW, FINAL, HUGE = (200, 4), (300, 30), (900, 50)  # tokens, steps
KINDS = (PREVIEW, PREVIEW, PREVIEW, FINAL, HUGE)


def pass_s(works):
    return FIXED_S + TOKEN_S * sum(work.tokens * work.passes for work in works)


def own_s(tokens, steps):
    return steps * (FIXED_S + TOKEN_S * tokens) + DECODE_S


@dataclass
class Seen:
    """One picture's fate."""

    kind: tuple[int, int]
    asked_at_s: float
    finished_at_s: float | None = None
    steps_run: int = 0
    is_admitted: bool = False
    predicted_s: float = 0.0
    is_cancelled: bool = False


class Simulation:
    """Arrivals are (seconds after the one before, kind, seconds until it is cancelled or None)."""

    def __init__(self, arrivals, max_running=8, slowness=1.0):
        """slowness: how much longer passes take than the cost model was told."""
        cost = CostModel(
            encode=Line(0.0, 0.0), step=Line(FIXED_S, TOKEN_S), decode=Line(DECODE_S, 0.0)
        )
        self.scheduler = Scheduler(cost, max_waiting=10_000, max_running=max_running)
        self.slowness = slowness
        self.now_s = 0.0
        self.seen: list[Seen] = []
        self.expired: list[str] = []
        self.longest_pass_s = 0.0
        at_s = 0.0
        self.events = []
        for pause_s, kind, cancel_s in arrivals:
            at_s += pause_s
            number = len(self.seen)
            self.seen.append(Seen(kind, at_s))
            self.events.append((at_s, "arrive", number))
            if cancel_s is not None:
                self.events.append((at_s + cancel_s, "cancel", number))
        self.events.sort(key=lambda event: event[0], reverse=True)

    def run(self):
        while self.events or self._has_work:
            while self.events and self.events[-1][0] <= self.now_s:
                self._happen(*self.events.pop())
            if not self._has_work:
                if self.events:
                    self.now_s = max(self.now_s, self.events[-1][0])
                continue
            self._step()
        return self

    @property
    def _has_work(self):
        return self.scheduler.has_runnable or self.scheduler.has_stepped

    def _happen(self, at_s, what, number):
        one = self.seen[number]
        if what == "cancel":
            one.is_cancelled = self.scheduler.remove(str(number)) or not one.is_admitted
            return
        tokens, steps = one.kind
        work = Work(
            ticket_id=str(number),
            tokens=tokens,
            passes=1,
            steps_left=steps,
            pixels=0,
            image_pixels=0,
            admitted_at_s=self.now_s,
            deadline_at_s=self.now_s + DEADLINE_S,
        )
        one.asked_at_s = self.now_s
        offer = self.scheduler.offer(work, self.now_s)
        one.is_admitted, one.predicted_s = offer.is_admitted, offer.predicted_s
        if one.is_admitted:
            assert self.scheduler.encoded(str(number), self.now_s)

    def _step(self):
        """A pass and a decode side by side, which share the device."""
        begun_s = self.now_s
        decoded = self.scheduler.next_decode(self.now_s)
        works = self.scheduler.next_round(self.now_s)
        assert works or decoded, "work is there and nothing runs"
        assert len({work.ticket_id for work in works}) == len(works)
        if works:
            self.now_s += self.slowness * pass_s(works)
        if decoded is not None:
            self.now_s += self.slowness * DECODE_S
        self.longest_pass_s = max(self.longest_pass_s, self.now_s - begun_s)
        for work in works:
            self.seen[int(work.ticket_id)].steps_run += 1
        self.scheduler.took_a_step(works, self.now_s)
        if decoded is not None:
            self.scheduler.decoded(decoded, self.now_s)
            assert self.scheduler.remove(decoded.ticket_id)
            self.seen[int(decoded.ticket_id)].finished_at_s = self.now_s
        for ticket_id in self.scheduler.expired(self.now_s):
            self.expired.append(ticket_id)
            self.scheduler.remove(ticket_id)


arrivals = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0.0, 3.0)),
        st.sampled_from(KINDS),
        st.one_of(st.none(), st.none(), st.floats(0.0, 2.0)),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=1000, deadline=None)
@given(arrivals=arrivals, max_running=st.sampled_from([1, 3, 8]))
def test_whoever_is_admitted_is_finished_once_and_before_the_deadline(arrivals, max_running):
    """No ticket is lost, none starves, none is run too often, and something runs while it can."""
    done = Simulation(arrivals, max_running).run()
    assert not done.expired
    for one in done.seen:
        if one.is_admitted and not one.is_cancelled:
            assert one.steps_run == one.kind[1]
            assert one.finished_at_s is not None
            assert one.finished_at_s - one.asked_at_s <= DEADLINE_S
        assert one.steps_run <= one.kind[1]
        assert one.is_admitted or not one.steps_run


@settings(max_examples=300, deadline=None)
@given(arrivals=arrivals)
def test_a_machine_slower_than_predicted_still_loses_nothing(arrivals):
    done = Simulation(arrivals, slowness=1.5).run()
    for number, one in enumerate(done.seen):
        if one.is_admitted and not one.is_cancelled:
            assert (one.finished_at_s is not None) != (str(number) in done.expired)


@settings(max_examples=300, deadline=None)
@given(finals=st.integers(1, 20), preview_at_s=st.floats(0.0, 20.0))
def test_a_preview_takes_its_own_time_and_little_more_whatever_is_running(finals, preview_at_s):
    crowd = [(0.0, HUGE, None)] * finals
    done = Simulation([*crowd, (preview_at_s, PREVIEW, None)]).run()
    preview = done.seen[-1]
    assert preview.is_admitted
    waited_s = preview.finished_at_s - preview.asked_at_s
    # One pass that has begun, its own steps in passes that others may fill up, one picture that is
    # being decoded and its own, and finals that have waited so long that they are nearly as urgent.
    aged_s = 0.02 * preview_at_s
    assert waited_s <= (3 + PREVIEW[1]) * done.longest_pass_s + aged_s + 1e-9


def test_finals_are_not_starved_by_a_stream_of_previews():
    """Previews alone are nine tenths of what the machine can do."""
    every_s = own_s(*PREVIEW) / 0.9
    stream = [(every_s, PREVIEW, None)] * 600
    done = Simulation([(0.0, FINAL, None), *stream]).run()
    final = done.seen[0]
    assert final.finished_at_s is not None
    assert final.finished_at_s - final.asked_at_s < DEADLINE_S
    assert not done.expired


@pytest.mark.parametrize("load", [1.2, 3.0])
def test_under_overload_the_excess_is_refused_at_once_and_nobody_runs_out_of_time(load):
    mean_s = sum(own_s(*kind) for kind in KINDS) / len(KINDS)
    stream = [(mean_s / load, KINDS[i % len(KINDS)], None) for i in range(2000)]
    done = Simulation(stream).run()
    assert not done.expired
    admitted = [one for one in done.seen if one.is_admitted]
    served_s = sum(own_s(*one.kind) for one in admitted)
    assert len(admitted) < len(done.seen)
    assert served_s >= 0.95 * done.now_s  # passes that are shared cost less than pictures alone


@pytest.mark.parametrize("slowness", [1.3, 2.0])
def test_what_work_takes_all_told_is_learnt_and_then_nobody_is_late(slowness):
    """Under overload, on a machine whose parts all take longer than they were measured to."""
    mean_s = sum(own_s(*kind) for kind in KINDS) / len(KINDS)
    stream = [(mean_s / 1.2, KINDS[i % len(KINDS)], None) for i in range(2000)]
    done = Simulation(stream, slowness=slowness).run()
    learnt_at_s = 60.0
    late = [int(ticket) for ticket in done.expired]
    assert not [number for number in late if done.seen[number].asked_at_s > learnt_at_s]
    assert len(late) <= 20


def test_what_is_promised_under_load_is_what_is_seen():
    """At four fifths of what the machine can do, at random: the median is a tenth off at most."""
    mean_s = sum(own_s(*kind) for kind in KINDS) / len(KINDS)
    rng = random.Random(4)
    stream = [(rng.expovariate(0.8 / mean_s), rng.choice(KINDS), None) for _ in range(3000)]
    done = Simulation(stream).run()
    ratios = sorted(
        (one.finished_at_s - one.asked_at_s) / one.predicted_s
        for one in done.seen
        if one.is_admitted
    )
    assert 0.8 < ratios[len(ratios) // 2] < 1.1
    assert ratios[int(0.9 * len(ratios))] < 2.0
