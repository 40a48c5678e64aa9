"""Untrusted bytes into pixels, through a pool of processes that may be killed.

A hostile image can hold the interpreter, take gigabytes or crash a C library. None of that can be
stopped in a thread, so each image is decoded in a process with a memory limit, under a wall clock,
and the process is thrown away when the image was bad for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from iris.config import Settings
from iris.errors import BackendUnavailable, ConfigError, InvalidImage
from iris.images import wire
from iris.images.child import Child, ChildDied, Limits
from iris.images.fit import Fit, most_pixels
from iris.images.header import Unusable, invalid_image
from iris.images.prescan import check_file
from iris.jobs import Pixels

_log = logging.getLogger(__name__)
_MAX_DEATHS: Final = 2  # one may be an accident from outside, the second is the image


class Decoder:
    """A pool of `settings.decode_workers` decode processes.

    `start` before the first image, `stop` after the last; both on the event loop that decodes.
    A queued image waits for a free process without a limit of its own: whoever awaits it has a
    deadline, and may cancel at any point. Owners take turns, so nobody's image waits behind all of
    somebody else's.
    """

    def __init__(self, settings: Settings) -> None:
        self._count = settings.decode_workers
        self._limits = Limits(settings.decode_memory_mb, settings.decode_timeout_s)
        # One token a process: a child that is free, or None where starting it failed. The others
        # are with the calls that hold them, or with a task of `_tasks` that replaces them.
        self._free = _Turns()
        self._children: set[Child] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = False
        self._running = False

    @property
    def pids(self) -> frozenset[int]:
        """The decode processes there are now."""
        return frozenset(child.pid for child in self._children)

    async def start(self) -> None:
        """Start every process and return when all are warm.

        Raises:
            ConfigError: a process does not come up under the configured limits.
        """
        if self._started:
            raise RuntimeError("the decoder is already started")
        self._started = self._running = True
        for _ in range(self._count):
            self._replace(None)
        await asyncio.gather(*self._tasks)
        if len(self._children) < self._count:
            await self.stop()
            raise ConfigError(
                "The image decoder did not start."
                f" IRIS_DECODE_MEMORY_MB={self._limits.memory_mb} may be too small for it."
            )

    async def stop(self) -> None:
        """End every process; calls still waiting or running get BackendUnavailable."""
        if not self._started:
            return
        self._running = False
        self._free.send_away()
        for child in self._children:
            child.kill()
        for _ in range(self._count):  # those with a call come back as soon as it notices
            free = await self._free.take("")
            if free is not None:
                await free.end()
        self._children.clear()
        self._started = False

    async def decode(self, data: bytes, *, which: int | None, fit: Fit, owner: str = "") -> Pixels:
        """Decode one file into 8-bit sRGB of the size `fit` asks for.

        which: the image's 1-based number in its request, for messages; None = the only one.
        owner: whose image it is, for whose turn it is.

        Raises:
            InvalidImage: the file cannot be used; the message names the image and says why.
            BackendUnavailable: the decoder is not started, stopping, or cannot start a process.
        """
        most_bytes = 3 * most_pixels(fit)
        width, height, rgb = await self._ask("pixels", data, which, fit, most_bytes, owner)
        return Pixels(width, height, rgb)

    async def holes(self, data: bytes, *, fit: Fit, owner: str = "") -> bytes:
        """Where a mask is transparent: one byte a pixel, row-major, 255 there and 0 elsewhere.

        owner: as in `decode`.

        Raises:
            InvalidImage: it is no PNG with a transparent pixel, or cannot be used like any image.
            BackendUnavailable: as `decode`.
        """
        _, _, rgb = await self._ask("holes", data, None, fit, 3 * most_pixels(fit), owner)
        return rgb[::3]

    async def size(
        self, data: bytes, *, which: int | None, fit: Fit | None = None, owner: str = ""
    ) -> tuple[int, int]:
        """Return width and height of one file, upright, as `fit` would make it; decodes nothing.

        which, owner and Raises: as `decode`.
        """
        width, height, _ = await self._ask("size", data, which, fit, 0, owner)
        return width, height

    async def _ask(
        self,
        want: str,
        data: bytes,
        which: int | None,
        fit: Fit | None,
        most_bytes: int,
        owner: str,
    ) -> tuple[int, int, bytes]:
        try:
            check_file(data)
        except Unusable as error:
            raise error.named(which) from None
        job: wire.Head = {"want": want, "fit": wire.fit_to_json(fit)}
        head, blob = await self._run(job, data, which, most_bytes, owner)
        match head:
            case {"reason": str(reason)}:
                raise invalid_image(reason, which=which)
            case {"width": int(width), "height": int(height)}:
                if want == "size" or len(blob) == 3 * width * height:
                    return width, height, blob
        raise BackendUnavailable("The image decoder gave no sensible answer. Try again.")

    async def _run(
        self, job: wire.Head, data: bytes, which: int | None, most_bytes: int, owner: str
    ) -> tuple[wire.Head, bytes]:
        """Have one process do the job; another one where the first died of something else."""
        deaths = 0
        for _ in range(self._count + _MAX_DEATHS):
            child = await self._take(owner)
            try:
                head, blob = await child.ask(
                    job, data, timeout_s=self._limits.timeout_s, max_blob_bytes=most_bytes
                )
            except TimeoutError:
                self._replace(child)
                raise invalid_image(
                    f"took too long to decode (over {self._limits.timeout_s:g} s)."
                    " Send a smaller or simpler copy.",
                    which=which,
                ) from None
            except ChildDied as death:
                self._replace(child)
                deaths += death.began
                if deaths == _MAX_DEATHS:
                    raise self._fatal(which) from None
            except BaseException:
                # The caller is gone while the process still works for it.
                self._replace(child)
                raise
            else:
                if head.get("retire"):
                    self._replace(child)
                else:
                    self._free.give(child)
                return head, blob
        raise _restarting()

    async def _take(self, owner: str) -> Child:
        while self._running:
            child = await self._free.take(owner)
            if not self._running:
                self._free.give(child)
                break
            if child is None:
                self._replace(None)
                raise _restarting()
            if child.alive:
                return child
            self._replace(child)
        raise _away()

    def _replace(self, child: Child | None) -> None:
        """Put a fresh process in the place of `child`, behind the caller's back."""
        if child is not None:
            child.kill()
        task = asyncio.create_task(self._replaced(child))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replaced(self, child: Child | None) -> None:
        fresh: Child | None = None
        try:
            if child is not None:
                await child.end()
                self._children.discard(child)
            if self._running:
                fresh = await Child.start(self._limits)
                self._children.add(fresh)
        except (ChildDied, OSError) as error:
            _log.error("a decode process did not start: %s", type(error).__name__)
        finally:
            self._free.give(fresh)

    def _fatal(self, which: int | None) -> InvalidImage:
        _log.warning("an image ended two decode processes")
        return invalid_image(
            "cannot be decoded: the decoder ended over it. Save it again and send that.",
            which=which,
        )


class _Turns:
    """Processes that are free, and who waits for one: an owner after the other, not an image.

    Whoever waits gets one before anybody else gets a second one.
    """

    def __init__(self) -> None:
        self._free: deque[Child | None] = deque()
        self._waiting: dict[str, deque[asyncio.Future[Child | None]]] = {}  # in turn
        self._had: set[str] = set()  # who had one in this round

    async def take(self, owner: str) -> Child | None:
        """The next one that is this owner's; whoever takes it gives it back, or another for it."""
        turn: asyncio.Future[Child | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        self._hand_out()
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.exception() is None:
                self.give(turn.result())
            raise

    def give(self, child: Child | None) -> None:
        self._free.append(child)
        self._hand_out()

    def send_away(self) -> None:
        """Tell everybody who waits that there is nothing to wait for."""
        for turn in (turn for turns in self._waiting.values() for turn in turns):
            if not turn.done():
                turn.set_exception(_away())
        self._waiting.clear()

    def _hand_out(self) -> None:
        while self._free and self._waiting:
            owner = next((o for o in self._waiting if o not in self._had), None)
            if owner is None:
                self._had.clear()
                owner = next(iter(self._waiting))
            turns = self._waiting.pop(owner)
            turn = turns.popleft()
            if turns:
                self._waiting[owner] = turns  # the last in turn now
            if not turn.done():  # else nobody waits for it any more
                self._had.add(owner)
                turn.set_result(self._free.popleft())


def _away() -> BackendUnavailable:
    return BackendUnavailable("Images are not decoded now: the service is starting or stopping.")


def _restarting() -> BackendUnavailable:
    return BackendUnavailable("The image decoder is restarting. Try again.", retry_after_s=1.0)
