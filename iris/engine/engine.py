"""The engine: admits pictures, lets them be made side by side, hands them out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from iris.engine import metrics
from iris.engine.activity import Activity
from iris.engine.cache import Cache
from iris.engine.calibration import measure
from iris.engine.conditioning import Conditioner
from iris.engine.cost import CostModel
from iris.engine.decode_loop import DecodeLoop
from iris.engine.denoiser import Denoiser
from iris.engine.encode_loop import EncodeLoop
from iris.engine.loader import Components
from iris.engine.lora import Styles
from iris.engine.register import Register
from iris.engine.scheduler import Scheduler
from iris.engine.step_loop import StepLoop
from iris.engine.stopwatch import choose
from iris.engine.ticket import is_unchanged, unchanged, work_of
from iris.engine.watchdog import Watchdog
from iris.jobs import (
    Admission,
    EditJob,
    EngineHealth,
    Failure,
    Job,
    Outcome,
    Quote,
    Refusal,
    Ticket,
)


class Engine:
    """One device and one copy of the weights.

    Prompts are encoded on the threads that admit them. Images are encoded on a thread of their
    own, pictures stepped together on another, and decoded on a third. `admit`, `collect`,
    `cancel`, `drain` and `health` may be called from any thread.
    """

    def __init__(
        self,
        components: Components,
        styles: Styles,
        *,
        max_waiting: int,
        max_running: int,
        cache_bytes: int,
        stall_s: float,
        compiled: bool = False,
        on_hang: Callable[[], None] = lambda: None,
    ) -> None:
        """cache_bytes: for prompts and images that were encoded before.

        compiled: `start` compiles what lies between the matrix products; it takes a minute or two.
        stall_s: a single step, encoding or decoding that takes longer means the device hangs.
        Then, and when it is broken, everybody who waits is told so, `health` is never alive again,
        and `on_hang` is called.
        """
        self._model = components
        self._styles = styles
        self._register = Register(
            Scheduler(
                CostModel.unmeasured(),
                max_waiting=max_waiting,
                max_running=max_running,
                stages_share_cores=components.device.type == "cpu",
            )
        )
        self._denoiser = Denoiser(components, styles, compiled=compiled)
        cache = Cache(cache_bytes, styles.let_go)
        self._activity = Activity()
        self._conditioner = Conditioner(
            components, self._denoiser, cache, self._activity, compiled=compiled
        )
        stopwatch = choose(components.device, self._activity)
        self._encodes = EncodeLoop(self._register, self._conditioner)
        self._steps = StepLoop(self._register, self._denoiser, stopwatch, cache)
        self._decodes = DecodeLoop(self._register, self._denoiser, self._activity, cache)
        self._loops = (self._encodes, self._steps, self._decodes)
        self._watchdog = Watchdog(self._activity, stall_s, self._give_up, lambda: self._is_lost)
        self._on_hang = on_hang
        self._cache = cache
        self._is_ready = self._is_draining = self._is_hung = False

    # -- life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Compile and measure on small pictures, then take work."""
        self._conditioner.warm()
        self._denoiser.warm()
        measure(self._register.scheduler.cost, self._conditioner, self._denoiser)
        self._cache.clear()
        for loop in self._loops:
            loop.start()
        self._watchdog.start()
        self._is_ready = True
        metrics.READY.set(1)

    def drain(self, timeout_s: float) -> bool:
        """Refuse new pictures, finish the admitted ones. True if all were fetched in time."""
        with self._register.changed:
            self._is_draining = True
            metrics.READY.set(0)
            return self._register.changed.wait_for(lambda: not len(self._register), timeout_s)

    def close(self) -> None:
        """Stop the threads; pictures still in the making fail as unavailable."""
        with self._register.changed:
            self._is_draining = True
            metrics.READY.set(0)
        self._watchdog.stop()
        self._register.fail_all(
            Failure("backend_unavailable", "The service is stopping. Try again in a while.")
        )
        for loop in self._loops:  # each ends its turn first, which may take a while
            loop.stop()

    def health(self) -> EngineHealth:
        """What is true of the threads right now."""
        with self._register.changed:
            scheduler = self._register.scheduler
            waiting, running = scheduler.num_waiting, scheduler.num_running
        started = self._is_ready
        hangs = self._is_hung or self._watchdog.is_stalled
        alive = not started or (self._is_running and not hangs)
        if not alive:
            detail = "The device is lost." if hangs else "A thread of the engine has ended."
        elif self._is_draining:
            detail = "The engine is finishing its pictures and takes no new ones."
        else:
            detail = "The engine takes work." if started else "The engine is starting."
        ready = started and alive and not self._is_draining
        return EngineHealth(ready, alive, waiting, running, detail)

    @property
    def _is_running(self) -> bool:
        return all(loop.is_alive for loop in self._loops)

    @property
    def _is_lost(self) -> bool:
        """Whether only another process can go on: nothing succeeds, or a thread has ended."""
        return self._register.faults.is_broken or not self._is_running

    @property
    def _takes_work(self) -> bool:
        return self._is_ready and self._is_running and not self._is_draining

    def _give_up(self) -> None:
        """Nothing comes back from a device that is lost: tell everybody, then whoever owns us."""
        if self._watchdog.is_stalled:
            failure = Failure(
                "backend_timeout", "The device does not answer any more. Try again in a while."
            )
        else:
            failure = Failure("backend_unavailable", "The engine is broken. Try again in a while.")
        with self._register.changed:
            self._is_hung = self._is_draining = True
            metrics.READY.set(0)
            self._register.fail_all(failure)
        self._on_hang()

    # -- styles -----------------------------------------------------------------------------

    def serve_styles(self, folders: Mapping[str, Path]) -> None:
        """From now on these names mean these folders; what runs keeps the version it has.

        Raises:
            StoreError: one does not fit the base, and nothing has changed.
        """
        self._styles.serve(folders)

    # -- tickets ----------------------------------------------------------------------------

    def admit(self, jobs: Sequence[Job]) -> list[Admission]:
        """Answer each job with a ticket or a refusal; encode the admitted ones' prompts together.

        They go through the text encoder several at a time. A job whose encoding fails fails
        alone, at `collect`.
        """
        answers: list[Admission] = []
        tickets: list[str] = []  # to be encoded
        for job in jobs:
            answer = self._offer(job)
            answers.append(answer)
            if isinstance(answer, Refusal):
                metrics.REFUSALS.labels(answer.code).inc()
            elif isinstance(job, EditJob) and is_unchanged(job):
                self._register.finish(answer.ticket_id, unchanged(job))
            else:
                tickets.append(answer.ticket_id)
        if tickets:
            method = "edit" if isinstance(jobs[0], EditJob) else "generate"
            metrics.ADMITTED.labels(method).observe(len(tickets))
            self._encode(tickets)
        for answer in answers:
            if isinstance(answer, Ticket):
                self._register.hand_out(answer.ticket_id)
        return answers

    def quote(self, job: Job) -> Quote | None:
        """What would be promised for the job now; None where no pictures are taken.

        Nothing but the sizes of its images is looked at.
        """
        now = time.monotonic()
        work = work_of(job, "", self._model, now)
        with self._register.changed:
            if not self._takes_work:
                return None
            scheduler = self._register.scheduler
            return Quote(scheduler.predict_s(work, now), scheduler.own_s(work))

    def collect(self, ticket_id: str) -> Future[Outcome]:
        """The ticket's outcome, now or later. An unknown ticket is a failure, not an exception."""
        entry = self._register.get(ticket_id)
        if entry is not None:
            entry.is_awaited = True
            return entry.outcome
        unknown: Future[Outcome] = Future()
        unknown.set_result(Failure("backend_unavailable", "The engine does not know this ticket."))
        return unknown

    def cancel(self, ticket_id: str) -> None:
        """Nobody wants this ticket any more: its picture leaves before the next step.

        Also how a delivered picture is let go of. Unknown tickets are fine.
        """
        self._register.cancel(ticket_id)

    def _offer(self, job: Job) -> Admission:
        now = time.monotonic()
        work = work_of(job, uuid.uuid4().hex, self._model, now)
        with self._register.changed:  # nobody comes in once the engine drains
            if not self._takes_work:
                return Refusal("backend_unavailable", "The engine takes no new pictures now.")
            if job.lora is not None and job.lora not in self._styles.names:
                return Refusal("backend_unavailable", f"Style {job.lora!r} is not loaded here.")
            offer = self._register.offer(work, job, now)
        if offer.is_hopeless:
            return Refusal(
                "backend_timeout",
                f"This picture would take about {offer.predicted_s:.0f} s here, more than the "
                f"{job.deadline_s:.0f} s allowed. Ask for fewer steps or a smaller size.",
            )
        if not offer.is_admitted:
            return Refusal(
                "backend_busy",
                "More pictures are waiting than can be finished in time. Try again later.",
                offer.retry_after_s,
            )
        return Ticket(work.ticket_id, offer.predicted_s)

    def _encode(self, ticket_ids: list[str]) -> None:
        """Encode prompts together; a job that fails, fails alone.

        Images are left to a thread of their own, so that nobody waits for those of others.
        """
        register = self._register
        # A ticket may be gone already, with a client that left at once.
        present = [(t, entry.job) for t in ticket_ids if (entry := register.get(t)) is not None]
        prompts = self._conditioner.prompts([job for _, job in present])
        for (ticket_id, job), prompt in zip(present, prompts, strict=True):
            if isinstance(prompt, Exception):
                register.fail(ticket_id, prompt)
            elif isinstance(job, EditJob):
                register.embedded(ticket_id, prompt)
            else:
                register.encoded(ticket_id, self._conditioner.row(job, prompt))
