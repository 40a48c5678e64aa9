"""An engine in simulated time: the same scheduler and cost model, no device."""

import random
from dataclasses import dataclass, field

from iris.engine.cost import CostModel, Line
from iris.engine.scheduler import Scheduler, Stage
from iris.engine.work import Work

FIXED_S, TOKEN_S, DECODE_S = 0.004, 0.00004, 0.0003  # of a pass; of a token in a pass, and decoded
PIECES = 10  # that a decoding has, all of one length
DEADLINE_S = 30.0
Kind = tuple[int, int]  # tokens, steps
PREVIEW, FINAL, HUGE = (600, 4), (900, 30), (1600, 50)
KINDS = (PREVIEW, PREVIEW, PREVIEW, FINAL, HUGE)
# What two threads get done side by side, over one alone: from worse than taking turns to better.
TOGETHER = (0.8, 1.0, 1.4)
# Small and large of each kind as bench/mix.py draws them: tokens, steps.
MIX = ((320, 4), (464, 4), (640, 4), (640, 25), (964, 25), (700, 4), (1100, 4))
WEIGHTS = (0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1)
PREVIEWS, FINALS = MIX[:3], MIX[3:5]


def pass_s(works):
    return FIXED_S + TOKEN_S * sum(work.tokens * work.passes for work in works)


def own_s(tokens, steps):
    """Seconds that a picture takes alone."""
    return steps * (FIXED_S + TOKEN_S * tokens) + DECODE_S * tokens


def mean_s(kinds=KINDS):
    return sum(own_s(*kind) for kind in kinds) / len(kinds)


def random_mix(load, seconds, seed=1):
    rng = random.Random(seed)
    each_s = sum(own_s(*kind) * weight for kind, weight in zip(MIX, WEIGHTS, strict=True))
    stream = []
    while sum(pause_s for pause_s, _, _ in stream) < seconds:
        stream.append((rng.expovariate(load / each_s), rng.choices(MIX, WEIGHTS)[0], None))
    return stream


def p95(values):
    return sorted(values)[int(0.95 * len(values))]


@dataclass
class Seen:
    """One picture's fate."""

    kind: Kind
    asked_at_s: float
    finished_at_s: float | None = None
    steps_run: int = 0
    is_admitted: bool = False
    predicted_s: float = 0.0
    is_cancelled: bool = False
    retry_after_s: float | None = None  # as it was told the first time
    is_return: bool = False

    @property
    def took_s(self):
        return self.finished_at_s - self.asked_at_s


@dataclass
class Job:
    """What one of the two threads is at."""

    works: list[Work]
    left_s: float  # alone on the machine
    share_s: float = 0.0  # of the time that went by, as the engine's activity measures it


@dataclass
class Simulation:
    """Arrivals are (seconds after the one before, kind, seconds until it is cancelled or None).

    Passes and decodings go on side by side where the scheduler lets them.
    """

    arrivals: list[tuple[float, Kind, float | None]]
    max_running: int = 8
    slowness: float = 1.0  # how much longer everything takes than the cost model was told
    together: float = 1.0  # work got done by two threads side by side, over one alone
    shares_cores: bool = True
    deadlines_s: tuple[float, ...] = (DEADLINE_S,)  # go round among those who come
    returns: bool = False  # who is refused comes back once, when told to
    scheduler_of: type[Scheduler] = Scheduler
    now_s: float = 0.0
    longest_s: float = 0.0  # of passes and pieces
    busy_s: float = 0.0
    seen: list[Seen] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)

    def __post_init__(self):
        cost = CostModel(
            encode=Line(0.0, 0.0), step=Line(FIXED_S, TOKEN_S), decode=Line(0.0, DECODE_S)
        )
        cost.decode_left_after = [1 - (i + 1) / PIECES for i in range(PIECES - 1)]
        self.scheduler = self.scheduler_of(
            cost,
            max_waiting=10_000,
            max_running=self.max_running,
            stages_share_cores=self.shares_cores,
        )
        self.jobs: dict[Stage, Job] = {}
        self.decoded: dict[str, tuple[int, float]] = {}  # pieces, and what they took
        self.events = []  # the next one last
        at_s = 0.0
        for number, (pause_s, kind, cancel_s) in enumerate(self.arrivals):
            at_s += pause_s
            self.seen.append(Seen(kind, at_s))
            self.events.append((at_s, "arrive", number))
            if cancel_s is not None:
                self.events.append((at_s + cancel_s, "cancel", number))
        self._sort()

    def _sort(self):
        self.events.sort(key=lambda event: event[0], reverse=True)

    def run(self):
        while True:
            while self.events and self.events[-1][0] <= self.now_s:
                self._happen(*self.events.pop())
            self._begin()
            if not self.jobs and not self.events:
                assert not self.scheduler.remaining_s(), "work is there and nothing runs"
                return self
            self._pass_time()

    def _begin(self):
        for stage in Stage:
            if stage in self.jobs or not self.scheduler.may_run(stage, self.now_s):
                continue
            if stage is Stage.STEP:
                works = self.scheduler.next_round(self.now_s)
                assert len({work.ticket_id for work in works}) == len(works)
                seconds = pass_s(works)
            else:
                works = [self.scheduler.next_decode(self.now_s)]
                seconds = DECODE_S * works[0].tokens / PIECES
            self.jobs[stage] = Job(works, self.slowness * seconds)
            self.longest_s = max(self.longest_s, self.slowness * seconds)
        runs = self.scheduler.has_runnable or self.scheduler.has_stepped
        assert self.jobs or not runs, "work is there and nothing runs"

    def _pass_time(self):
        """Until the next thing happens: something is done, or somebody comes or goes."""
        num_busy = len(self.jobs)
        rate = self.together / 2 if num_busy == 2 else 1.0
        ends = [self.now_s + job.left_s / rate for job in self.jobs.values()]
        if self.events:
            ends.append(self.events[-1][0])
        passed_s = max(min(ends) - self.now_s, 0.0)
        self.now_s += passed_s
        self.busy_s += passed_s if self.jobs else 0.0
        for job in self.jobs.values():
            job.left_s -= passed_s * rate
            job.share_s += passed_s / num_busy
        for stage, job in list(self.jobs.items()):
            if job.left_s <= 1e-9:
                del self.jobs[stage]
                self._done(stage, job)
                self._expire()

    def _done(self, stage, job):
        cost = self.scheduler.cost
        if stage is Stage.STEP:
            for work in job.works:
                self.seen[int(work.ticket_id)].steps_run += 1
            cost.step.observe(sum(work.tokens * work.passes for work in job.works), job.share_s)
            self.scheduler.took_a_step(job.works, self.now_s)
            return
        (work,) = job.works
        pieces, seconds = self.decoded.get(work.ticket_id, (0, 0.0))
        pieces, seconds = pieces + 1, seconds + job.share_s
        self.decoded[work.ticket_id] = pieces, seconds
        self.scheduler.decoded_a_piece(work, pieces, self.now_s)
        if pieces == PIECES:
            cost.decode.observe(work.pixels, seconds)
            if self.scheduler.remove(work.ticket_id):
                self.seen[int(work.ticket_id)].finished_at_s = self.now_s

    def _expire(self):
        for ticket_id in self.scheduler.expired(self.now_s):
            self.expired.append(ticket_id)
            self.scheduler.remove(ticket_id)

    def _happen(self, at_s, what, number):
        one = self.seen[number]
        if what == "cancel":
            was_there = self.scheduler.remove(str(number))
            one.is_cancelled = was_there or not one.is_admitted
            return
        tokens, steps = one.kind
        work = Work(
            ticket_id=str(number),
            tokens=tokens,
            passes=1,
            steps_left=steps,
            pixels=tokens,
            image_pixels=0,
            admitted_at_s=self.now_s,
            deadline_at_s=self.now_s + self.deadline_s(number),
        )
        one.asked_at_s = self.now_s
        offer = self.scheduler.offer(work, self.now_s)
        one.is_admitted, one.predicted_s = offer.is_admitted, offer.predicted_s
        if one.is_admitted:
            assert self.scheduler.encoded(str(number), self.now_s)
        elif not one.is_return:
            one.retry_after_s = offer.retry_after_s
            if self.returns:
                one.is_return = True
                self.events.append((self.now_s + offer.retry_after_s, "arrive", number))
                self._sort()

    def deadline_s(self, number):
        return self.deadlines_s[number % len(self.deadlines_s)]

    # -- what came of it --------------------------------------------------------------------

    @property
    def delivered(self):
        return [one for one in self.seen if one.finished_at_s is not None]

    def promise_ratios(self):
        """Time taken over time promised, sorted."""
        return sorted(one.took_s / one.predicted_s for one in self.delivered)
