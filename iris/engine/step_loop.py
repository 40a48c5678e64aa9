"""The thread that steps: every pass takes the scheduler's choice of pictures one step further."""

from __future__ import annotations

import time
from collections.abc import Sequence

from iris.engine import metrics
from iris.engine.cache import Cache
from iris.engine.denoiser import Denoiser, Row
from iris.engine.loop import Loop
from iris.engine.memory import is_out_of_memory, make_room, with_room
from iris.engine.register import Register
from iris.engine.scheduler import Stage
from iris.engine.stopwatch import Lap, Stopwatch
from iris.engine.work import Work

Going = tuple[Work, Row]  # a picture that is being stepped


class StepLoop(Loop):
    """Steps whatever is runnable until it is stopped."""

    def __init__(
        self,
        register: Register,
        denoiser: Denoiser,
        stopwatch: Stopwatch,
        cache: Cache,
    ) -> None:
        """cache: emptied where the device's memory does not suffice."""
        super().__init__("iris-step", register)
        self._denoiser = denoiser
        self._stopwatch = stopwatch
        self._cache = cache

    def _turn(self) -> None:
        going = self._next_round()
        if going:
            self._step(going)

    def _next_round(self) -> list[Going]:
        """Who takes the next step; empty where there is nobody for a while."""
        register = self._register
        going: list[Going] = []
        with register.changed:
            register.changed.wait_for(
                lambda: self._is_stopped or self._may_run(Stage.STEP), timeout=1.0
            )
            now = time.monotonic()
            register.let_go(now)
            if self._is_stopped or not self._may_run(Stage.STEP):
                return going
            for work in self._scheduler.next_round(now):
                entry = register.get(work.ticket_id)
                if entry is None or entry.row is None:
                    continue
                if entry.started_at_s is None:
                    entry.started_at_s = now
                    metrics.QUEUED.observe(now - entry.admitted_at_s)
                going.append((work, entry.row))
            register.notify()
        return going

    def _step(self, going: Sequence[Going]) -> None:
        rows = [row for _, row in going]
        tokens = sum(work.tokens * work.passes for work, _ in going)

        def step() -> None:
            if len(rows) == 1:
                with_room(lambda: self._denoiser.step(rows), self._cache)
            else:
                self._denoiser.step(rows)

        try:
            with metrics.timed("step"):
                laps = self._stopwatch.time(step, tokens)
        except Exception as error:
            if len(going) == 1:
                self._register.fail(going[0][0].ticket_id, error)
                return
            if is_out_of_memory(error):
                make_room(self._cache)
        else:
            self._count(going, laps)
            return
        for one in going:  # find the one that fails; together they may have been too much
            self._step([one])

    def _count(self, going: Sequence[Going], laps: Sequence[Lap]) -> None:
        metrics.STEPS.inc(len(going))
        with self._register.changed:
            for lap in laps:
                self._scheduler.cost.step.observe(lap.tokens, lap.seconds)
            self._scheduler.took_a_step([work for work, _ in going], time.monotonic())
            self._register.notify()
