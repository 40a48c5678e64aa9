"""The thread that decodes finished latents, piece by piece, the most urgent picture first."""

from __future__ import annotations

import time

from iris.engine import metrics
from iris.engine.activity import Activity
from iris.engine.cache import Cache
from iris.engine.convolutions import Pieces
from iris.engine.denoiser import Denoiser, Row, to_pixels
from iris.engine.loop import Loop
from iris.engine.memory import is_out_of_memory, make_room
from iris.engine.register import Register
from iris.engine.scheduler import Stage
from iris.engine.ticket import Entry
from iris.engine.work import Work
from iris.jobs import Picture, Pixels

_PIECE_S = 0.01  # at least, between looks: each costs a lock that other threads want, too


class Decoding:
    """One picture's way from latents to pixels."""

    def __init__(self, work: Work, entry: Entry, row: Row) -> None:
        self.work = work
        self.entry = entry
        self.row = row
        self.pieces: Pieces[Pixels] | None = None  # set at the first piece
        self.num_done = 0  # pieces
        self.seconds = 0.0  # what they took
        self.has_begun_anew = False  # when memory did not suffice


class DecodeLoop(Loop):
    """Decodes whatever has taken its last step until it is stopped.

    After each piece the most urgent picture goes on, which may be another one.
    """

    def __init__(
        self,
        register: Register,
        denoiser: Denoiser,
        activity: Activity,
        cache: Cache,
    ) -> None:
        """cache: emptied where the device's memory does not suffice."""
        super().__init__("iris-decode", register)
        self._denoiser = denoiser
        self._activity = activity
        self._cache = cache
        self._begun: dict[str, Decoding] = {}  # by ticket

    def _turn(self) -> None:
        decoding = self._next()
        if decoding is not None:
            self._go_on(decoding)

    def _next(self) -> Decoding | None:
        register = self._register
        with register.changed:
            register.changed.wait_for(
                lambda: self._is_stopped or self._may_run(Stage.DECODE), timeout=1.0
            )
            for ticket_id, begun in list(self._begun.items()):
                if begun.entry.outcome.done():  # nobody wants it any more
                    del self._begun[ticket_id]
            if self._is_stopped or not self._may_run(Stage.DECODE):
                return None
            work = self._scheduler.next_decode(time.monotonic())
            entry = register.get(work.ticket_id) if work is not None else None
            if work is None or entry is None or entry.row is None:
                return None
            return self._begun.setdefault(work.ticket_id, Decoding(work, entry, entry.row))

    def _go_on(self, decoding: Decoding) -> None:
        """One piece further."""
        ticket_id = decoding.work.ticket_id
        try:
            with self._activity.section() as section:
                pixels = self._piece(decoding)
        except Exception as error:
            decoding.pieces = None
            if is_out_of_memory(error) and not decoding.has_begun_anew:
                self._begin_anew(decoding)
                return
            self._begun.pop(ticket_id, None)
            self._register.fail(ticket_id, error)
            return
        decoding.seconds += section.seconds
        if pixels is not None:
            del self._begun[ticket_id]
            self._deliver(decoding, pixels)
            return
        with self._register.changed:
            self._scheduler.decoded_a_piece(decoding.work, decoding.num_done, time.monotonic())

    def _piece(self, decoding: Decoding) -> Pixels | None:
        """As many pieces as are worth a look at who is more urgent; the picture behind the last."""
        if decoding.pieces is None:
            decoding.pieces = self._pieces(decoding.row)
        until_s = time.monotonic() + _PIECE_S
        try:
            while True:
                next(decoding.pieces)
                decoding.num_done += 1
                if time.monotonic() >= until_s:
                    return None
        except StopIteration as end:
            pixels: Pixels = end.value
            decoding.num_done += 1
            return pixels

    def _pieces(self, row: Row) -> Pieces[Pixels]:
        image = yield from self._denoiser.decoding(row)
        return to_pixels(image)

    def _begin_anew(self, decoding: Decoding) -> None:
        """Memory did not suffice: give back what can be, also what others have under way."""
        for other in self._begun.values():
            other.pieces, other.num_done, other.seconds = None, 0, 0.0
        decoding.has_begun_anew = True
        make_room(self._cache)
        with self._register.changed:
            for other in self._begun.values():
                self._scheduler.decoded_a_piece(other.work, 0, time.monotonic())

    def _deliver(self, decoding: Decoding, pixels: Pixels) -> None:
        now = time.monotonic()
        work, entry = decoding.work, decoding.entry
        metrics.STAGE.labels("decode").observe(decoding.seconds)
        started = now if entry.started_at_s is None else entry.started_at_s
        picture = Picture(
            pixels=pixels,
            seed=entry.job.seed,
            usage=decoding.row.usage,
            queue_s=started - entry.admitted_at_s,
            inference_s=now - started,
        )
        with self._register.changed:
            self._scheduler.cost.decode.observe(work.pixels, decoding.seconds)
            self._scheduler.decoded_a_piece(work, decoding.num_done, now)
            self._register.finish(work.ticket_id, picture)
