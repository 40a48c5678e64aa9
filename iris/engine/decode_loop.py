"""The thread that decodes finished latents, one picture at a time, while others are stepped."""

from __future__ import annotations

import logging
import threading
import time

from iris.engine import metrics
from iris.engine.activity import Activity
from iris.engine.cache import Cache
from iris.engine.denoiser import Denoiser, Row, to_pixels
from iris.engine.memory import with_room
from iris.engine.register import Register, without_text
from iris.engine.scheduler import Work
from iris.engine.ticket import Entry
from iris.jobs import Failure, Picture

_log = logging.getLogger("iris.engine")

Stepped = tuple[Work, Entry, Row]  # a picture that has taken all its steps


class DecodeLoop:
    """Decodes whatever has taken its last step until it is stopped."""

    def __init__(
        self, register: Register, denoiser: Denoiser, activity: Activity, cache: Cache
    ) -> None:
        """cache: emptied where the device's memory does not suffice."""
        self._register = register
        self._scheduler = register.scheduler
        self._denoiser = denoiser
        self._activity = activity
        self._cache = cache
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="iris-decode", daemon=True)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return when the picture that is being decoded is done."""
        with self._register.changed:
            self._is_stopped = True
            self._register.changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._is_stopped:
                stepped = self._next()
                if stepped is not None:
                    self._deliver(*stepped)
        except Exception as error:
            # A bug of ours, not of one picture: nobody may wait for a thread that is gone.
            _log.critical("the decode thread ended", exc_info=without_text(error))
            self._register.fail_all(Failure("backend_error", "The picture could not be made."))

    def _next(self) -> Stepped | None:
        register = self._register
        with register.changed:
            register.changed.wait_for(lambda: self._is_stopped or self._scheduler.has_stepped)
            work = None if self._is_stopped else self._scheduler.next_decode(time.monotonic())
            entry = register.get(work.ticket_id) if work is not None else None
            if work is None or entry is None or entry.row is None:
                return None
            return work, entry, entry.row

    def _deliver(self, work: Work, entry: Entry, row: Row) -> None:
        try:
            with self._activity.section() as section, metrics.timed("decode"):
                pixels = with_room(lambda: to_pixels(self._denoiser.decode(row)), self._cache)
        except Exception as error:
            self._register.fail(work.ticket_id, error)
            return
        now = time.monotonic()
        started = now if entry.started_at_s is None else entry.started_at_s
        picture = Picture(
            pixels=pixels,
            seed=entry.job.seed,
            usage=row.usage,
            queue_s=started - entry.admitted_at_s,
            inference_s=now - started,
        )
        with self._register.changed:
            self._scheduler.cost.decode.observe(work.pixels, section.seconds)
            self._register.finish(work.ticket_id, picture)
