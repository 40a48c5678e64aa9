"""The engine: admit pictures, step them in one thread, hand them out, let go of them."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future

import torch

from iris.engine import metrics
from iris.engine.calibration import measure
from iris.engine.conditioning import Conditioner
from iris.engine.cost import CostModel
from iris.engine.denoiser import Denoiser, Row, to_pixels
from iris.engine.loader import Components
from iris.engine.lora import Styles
from iris.engine.scheduler import Scheduler, Work
from iris.engine.ticket import Entry, is_unchanged, unchanged, work_of
from iris.jobs import (
    Admission,
    EditJob,
    EngineHealth,
    Failure,
    Job,
    Outcome,
    Picture,
    Refusal,
    Ticket,
)

_log = logging.getLogger("iris.engine")

# A ticket that nobody collects is dropped after this: its front is gone, or gave up waiting for it.
_UNCOLLECTED_S = 10.0

Going = tuple[Work, Entry, Row]  # a picture that is being stepped


class Engine:
    """One device, one copy of the weights, one thread that steps.

    `admit`, `collect`, `cancel`, `drain` and `health` may be called from any thread.
    """

    def __init__(
        self,
        components: Components,
        styles: Styles,
        *,
        max_waiting: int,
        max_running: int,
        stall_s: float,
    ) -> None:
        """stall_s: a step that takes longer means the device hangs; `health` then says so."""
        self._model = components
        self._denoiser = Denoiser(components, styles)
        self._conditioner = Conditioner(components, self._denoiser)
        self._styles = styles.names
        self._scheduler = Scheduler(
            CostModel.unmeasured(), max_waiting=max_waiting, max_running=max_running
        )
        self._stall_s = stall_s
        self._entries: dict[str, Entry] = {}
        self._changed = threading.Condition()  # guards scheduler, entries and the flags below
        self._is_ready = False
        self._is_draining = False
        self._is_closed = False
        self._busy_since_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="iris-step", daemon=True)

    # -- life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Measure the machine on two small pictures, then take work."""
        measure(self._scheduler.cost, self._conditioner, self._denoiser)
        self._thread.start()
        self._is_ready = True

    def drain(self, timeout_s: float) -> bool:
        """Refuse new pictures, finish the admitted ones. True if all were finished in time."""
        with self._changed:
            self._is_draining = True
            return self._changed.wait_for(lambda: not self._num_open(), timeout_s)

    def close(self) -> None:
        """Stop the step thread; pictures still in the making fail as unavailable."""
        with self._changed:
            self._is_closed = self._is_draining = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._fail_all(Failure("backend_unavailable", "The engine is stopping."))

    def health(self) -> EngineHealth:
        """What is true of the step thread right now."""
        with self._changed:
            busy_since = self._busy_since_s
            waiting, running = self._scheduler.num_waiting, self._scheduler.num_running
        started = self._is_ready
        stalled = busy_since is not None and time.monotonic() - busy_since > self._stall_s
        alive = not started or (self._thread.is_alive() and not stalled)
        if not alive:
            detail = "The step thread hangs." if stalled else "The step thread has ended."
        elif self._is_draining:
            detail = "The engine is finishing its pictures and takes no new ones."
        else:
            detail = "The engine takes work." if started else "The engine is starting."
        ready = started and alive and not self._is_draining
        return EngineHealth(ready, alive, waiting, running, detail)

    # -- tickets ----------------------------------------------------------------------------

    def admit(self, jobs: Sequence[Job]) -> list[Admission]:
        """Answer each job with a ticket or a refusal; encode the admitted ones together.

        Their prompts go through the text encoder in one forward pass. A job whose encoding fails
        fails alone, at `collect`.
        """
        answers: list[Admission] = []
        tickets: list[str] = []  # to be encoded
        for job in jobs:
            answer = self._offer(job)
            answers.append(answer)
            if isinstance(answer, Refusal):
                metrics.REFUSALS.labels(answer.code).inc()
            elif isinstance(job, EditJob) and is_unchanged(job):
                with self._changed:
                    self._finish(answer.ticket_id, unchanged(job))
            else:
                tickets.append(answer.ticket_id)
        if tickets:
            method = "edit" if isinstance(jobs[0], EditJob) else "generate"
            metrics.ADMITTED.labels(method).observe(len(tickets))
            self._encode(tickets)
        with self._changed:
            now = time.monotonic()
            for answer in answers:
                if isinstance(answer, Ticket) and answer.ticket_id in self._entries:
                    self._entries[answer.ticket_id].handed_out_at_s = now
        return answers

    def collect(self, ticket_id: str) -> Future[Outcome]:
        """The ticket's outcome, now or later. An unknown ticket is a failure, not an exception."""
        with self._changed:
            entry = self._entries.get(ticket_id)
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
        with self._changed:
            entry = self._entries.pop(ticket_id, None)
            if entry is not None and not entry.outcome.done():
                self._scheduler.remove(ticket_id)
                metrics.PICTURES.labels(entry.kind, "cancelled").inc()
                entry.outcome.set_result(Failure("backend_error", "The picture was cancelled."))
            self._gauge()
            self._changed.notify_all()

    # -- admission --------------------------------------------------------------------------

    def _offer(self, job: Job) -> Admission:
        now = time.monotonic()
        ticket_id = uuid.uuid4().hex
        work = work_of(job, ticket_id, self._model, now)
        with self._changed:
            if self._is_draining or not self._is_ready or not self._thread.is_alive():
                return Refusal("backend_unavailable", "The engine takes no new pictures now.")
            if job.lora is not None and job.lora not in self._styles:
                return Refusal("backend_unavailable", f"Style {job.lora!r} is not loaded here.")
            offer = self._scheduler.offer(work, now)
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
            self._entries[ticket_id] = Entry(job, now)
            self._gauge()
        return Ticket(ticket_id, offer.predicted_s)

    def _encode(self, ticket_ids: list[str]) -> None:
        """Condition the tickets together and let them run; a job that fails, fails alone."""
        with self._changed:
            # A ticket may be gone already, with a client that left at once.
            present = [t for t in ticket_ids if t in self._entries]
            jobs = [self._entries[t].job for t in present]
        for ticket_id, row in zip(present, self._conditioner.rows(jobs), strict=True):
            if isinstance(row, Exception):
                self._fail(ticket_id, row)
                continue
            with self._changed:
                entry = self._entries.get(ticket_id)
                if entry is not None and self._scheduler.encoded(ticket_id):
                    entry.row = row
                self._gauge()
                self._changed.notify_all()

    # -- the step loop ----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_closed:
                self._advance(self._next_round())
        except Exception as error:
            # A bug of ours, not of one picture: nobody may wait for a thread that is gone.
            _log.critical("the step thread ended", exc_info=_without_text(error))
            self._fail_all(Failure("backend_error", "The picture could not be made."))

    def _next_round(self) -> list[Work]:
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_closed or self._scheduler.has_runnable, timeout=1.0
            )
            now = time.monotonic()
            self._let_go(now)
            todo = self._scheduler.next_round(now)
            self._gauge()
        return todo

    def _advance(self, round_: Sequence[Work]) -> None:
        """Take pictures one step further together; deliver those for which it was the last."""
        going: list[Going] = []
        with self._changed:
            self._busy_since_s = now = time.monotonic()
            for work in round_:
                entry = self._entries.get(work.ticket_id)
                if entry is None or entry.row is None:  # cancelled since the round began
                    continue
                if entry.started_at_s is None:
                    entry.started_at_s = now
                    metrics.QUEUED.observe(now - entry.admitted_at_s)
                going.append((work, entry, entry.row))
        try:
            self._step([one for one in going if one[0].steps_left > 0])
            for work, entry, row in going:
                if work.steps_left == 0 and not entry.outcome.done():  # nobody may want it by now
                    self._deliver(work, entry, row)
        finally:
            with self._changed:
                self._busy_since_s = None

    def _step(self, going: Sequence[Going]) -> None:
        if not going:
            return
        begun = time.monotonic()
        try:
            with metrics.timed("step"):
                self._denoiser.step([row for _, _, row in going])
        except Exception as error:
            if len(going) == 1:
                self._fail(going[0][0].ticket_id, error)
                return
            for one in going:  # find the one that fails; together they may have been too much
                self._step([one])
            return
        seconds = time.monotonic() - begun
        metrics.STEPS.inc(len(going))
        with self._changed:
            tokens = sum(work.tokens * work.passes for work, _, _ in going)
            self._scheduler.cost.step.observe(tokens, seconds)
            for work, _, _ in going:
                work.steps_left -= 1

    def _deliver(self, work: Work, entry: Entry, row: Row) -> None:
        begun = time.monotonic()
        with self._changed:
            self._busy_since_s = begun
        try:
            with metrics.timed("decode"):
                pixels = to_pixels(self._denoiser.decode(row))
        except Exception as error:
            self._fail(work.ticket_id, error)
            return
        now = time.monotonic()
        started = begun if entry.started_at_s is None else entry.started_at_s
        picture = Picture(
            pixels=pixels,
            seed=entry.job.seed,
            usage=row.usage,
            queue_s=started - entry.admitted_at_s,
            inference_s=now - started,
        )
        with self._changed:
            self._scheduler.cost.decode.observe(work.pixels, now - begun)
            self._finish(work.ticket_id, picture)

    def _fail(self, ticket_id: str, error: Exception) -> None:
        # The exception's text stays out of log and answer: it may quote a prompt.
        _log.error("picture failed: %s", type(error).__name__, exc_info=_without_text(error))
        if isinstance(error, torch.OutOfMemoryError):
            failure = Failure("backend_unavailable", "The device ran out of memory.")
        else:
            failure = Failure("backend_error", "The picture could not be made.")
        with self._changed:
            self._finish(ticket_id, failure)

    def _fail_all(self, failure: Failure) -> None:
        with self._changed:
            for ticket_id in list(self._entries):
                self._finish(ticket_id, failure)

    def _finish(self, ticket_id: str, outcome: Outcome) -> None:
        """Hand out the outcome. The caller holds the lock."""
        self._scheduler.remove(ticket_id)
        entry = self._entries.get(ticket_id)
        if entry is not None and not entry.outcome.done():
            entry.row = None
            entry.finished_at_s = time.monotonic()
            name = "delivered" if isinstance(outcome, Picture) else outcome.code
            metrics.PICTURES.labels(entry.kind, name).inc()
            entry.outcome.set_result(outcome)
        self._gauge()
        self._changed.notify_all()

    def _let_go(self, now_s: float) -> None:
        """End what is past its deadline and drop what nobody fetched. The caller holds the lock."""
        for ticket_id in self._scheduler.expired(now_s):
            self._finish(
                ticket_id,
                Failure("backend_timeout", "The picture was not finished before its deadline."),
            )
        for ticket_id, entry in list(self._entries.items()):
            since_s = entry.finished_at_s if entry.is_awaited else entry.handed_out_at_s
            if since_s is not None and now_s - since_s > _UNCOLLECTED_S:
                self.cancel(ticket_id)

    def _num_open(self) -> int:
        return sum(not entry.outcome.done() for entry in self._entries.values())

    def _gauge(self) -> None:
        metrics.WAITING.set(self._scheduler.num_waiting)
        metrics.RUNNING.set(self._scheduler.num_running)
        metrics.PREDICTED.set(self._scheduler.remaining_s())


def _without_text(error: Exception) -> BaseException:
    """The same traceback under an exception that says nothing."""
    return RuntimeError("(text withheld)").with_traceback(error.__traceback__)
