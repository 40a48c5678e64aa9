"""Every picture that is in the engine, from its admission until somebody has it, under one lock."""

from __future__ import annotations

import logging
import threading
import time

from torch import Tensor

from iris.engine import metrics
from iris.engine.denoiser import Row
from iris.engine.faults import Faults, is_lost
from iris.engine.memory import is_out_of_memory
from iris.engine.scheduler import Offer, Scheduler
from iris.engine.ticket import Entry
from iris.engine.work import Work
from iris.jobs import Failure, Job, Outcome, Picture

_log = logging.getLogger("iris.engine")

# A ticket that nobody collects is dropped after this: its front is gone, or gave up waiting for it.
_UNCOLLECTED_S = 10.0
_AFTER_THE_END_S = 1.0  # whoever comes back then finds nobody here, or a new process


class Register:
    """Tickets and the scheduler that orders them.

    `changed` guards both and is notified at every change. Every method takes it itself; it may be
    held already.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.changed = threading.Condition()
        self.faults = Faults()
        self._entries: dict[str, Entry] = {}
        self._has_ended = False

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, ticket_id: str) -> Entry | None:
        with self.changed:
            return self._entries.get(ticket_id)

    def offer(self, work: Work, job: Job, now_s: float) -> Offer:
        """Ask the scheduler for a place; where there is one, the ticket is entered."""
        with self.changed:
            if self._has_ended:  # nobody would make the picture, nor notice its deadline
                return Offer(0.0, retry_after_s=_AFTER_THE_END_S)
            offer = self.scheduler.offer(work, now_s)
            if offer.is_admitted:
                self._entries[work.ticket_id] = Entry(job, now_s, offer.predicted_s)
                self.notify()
            return offer

    def embedded(self, ticket_id: str, prompt: Tensor) -> None:
        """The prompt is encoded, images are not."""
        with self.changed:
            entry = self._entries.get(ticket_id)
            if entry is not None and not entry.outcome.done():
                entry.prompt = prompt
                self.notify()

    def encoded(self, ticket_id: str, row: Row | Exception) -> None:
        """All of it is, or could not be: the picture can start, or fails alone."""
        if isinstance(row, Exception):
            self.fail(ticket_id, row)
            return
        with self.changed:
            entry = self._entries.get(ticket_id)
            if entry is not None and self.scheduler.encoded(ticket_id, time.monotonic()):
                entry.prompt, entry.row = None, row
            self.notify()

    def hand_out(self, ticket_id: str) -> None:
        """The ticket goes to the front, who is expected to collect it soon."""
        with self.changed:
            entry = self._entries.get(ticket_id)
            if entry is not None:
                entry.handed_out_at_s = time.monotonic()

    def finish(self, ticket_id: str, outcome: Outcome) -> None:
        """Hand out the outcome, unless there is one already or nobody wants it any more."""
        with self.changed:
            self.scheduler.remove(ticket_id)
            entry = self._entries.get(ticket_id)
            if entry is not None and not entry.outcome.done():
                entry.prompt = entry.row = None
                entry.finished_at_s = time.monotonic()
                name = "delivered" if isinstance(outcome, Picture) else outcome.code
                metrics.PICTURES.labels(entry.kind, name).inc()
                if name == "delivered" and entry.started_at_s is not None:  # it took the device
                    self.faults.succeeded()
                if name == "delivered" and entry.predicted_s > 0:
                    took_s = entry.finished_at_s - entry.admitted_at_s
                    metrics.PROMISE.observe(took_s / entry.predicted_s)
                entry.outcome.set_result(outcome)
            self.notify()

    def fail(self, ticket_id: str, error: Exception) -> None:
        """End one picture with what an error means for its client."""
        # The exception's text stays out of log and answer: it may quote a prompt.
        _log.error("picture failed: %s", type(error).__name__, exc_info=without_text(error))
        with self.changed:
            self.faults.failed(error)
        if is_out_of_memory(error):
            failure = Failure("backend_unavailable", "The device ran out of memory.")
        elif is_lost(error):
            failure = Failure("backend_unavailable", "The device is broken. Try again in a while.")
        else:
            failure = Failure("backend_error", "The picture could not be made.")
        self.finish(ticket_id, failure)

    def fail_all(self, failure: Failure) -> None:
        """The end: everybody is told, and nobody comes in any more."""
        with self.changed:
            self._has_ended = True
            for ticket_id in list(self._entries):
                self.finish(ticket_id, failure)

    def cancel(self, ticket_id: str) -> None:
        """Forget the ticket; where its picture is still in the making, that ends."""
        with self.changed:
            entry = self._entries.pop(ticket_id, None)
            if entry is not None and not entry.outcome.done():
                self.scheduler.remove(ticket_id)
                metrics.PICTURES.labels(entry.kind, "cancelled").inc()
                entry.outcome.set_result(Failure("backend_error", "The picture was cancelled."))
            self.notify()

    def let_go(self, now_s: float) -> None:
        """End what is past its deadline and drop what nobody fetched."""
        with self.changed:
            for ticket_id in self.scheduler.expired(now_s):
                self.finish(
                    ticket_id,
                    Failure("backend_timeout", "The picture was not finished before its deadline."),
                )
            for ticket_id, entry in list(self._entries.items()):
                since_s = entry.finished_at_s if entry.is_awaited else entry.handed_out_at_s
                if since_s is not None and now_s - since_s > _UNCOLLECTED_S:
                    self.cancel(ticket_id)

    def notify(self) -> None:
        """Show what has changed, in the metrics and to whoever waits for it. Hold the lock."""
        metrics.WAITING.set(self.scheduler.num_waiting)
        metrics.RUNNING.set(self.scheduler.num_running)
        metrics.PREDICTED.set(self.scheduler.remaining_s())
        self.changed.notify_all()


def without_text(error: Exception) -> BaseException:
    """The same traceback under an exception that says nothing."""
    return RuntimeError("(text withheld)").with_traceback(error.__traceback__)
