"""The thread that decodes finished latents, one picture at a time, while others are stepped."""

from __future__ import annotations

import time

from iris.engine import metrics
from iris.engine.activity import Activity
from iris.engine.cache import Cache
from iris.engine.denoiser import Denoiser, Row, to_pixels
from iris.engine.loop import Loop
from iris.engine.memory import with_room
from iris.engine.register import Register
from iris.engine.scheduler import Work
from iris.engine.ticket import Entry
from iris.jobs import Picture

Stepped = tuple[Work, Entry, Row]  # a picture that has taken all its steps


class DecodeLoop(Loop):
    """Decodes whatever has taken its last step until it is stopped."""

    def __init__(
        self, register: Register, denoiser: Denoiser, activity: Activity, cache: Cache
    ) -> None:
        """cache: emptied where the device's memory does not suffice."""
        super().__init__("iris-decode", register)
        self._denoiser = denoiser
        self._activity = activity
        self._cache = cache

    def _turn(self) -> None:
        stepped = self._next()
        if stepped is not None:
            self._deliver(*stepped)

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
            self._scheduler.decoded(work, now)
            self._register.finish(work.ticket_id, picture)
