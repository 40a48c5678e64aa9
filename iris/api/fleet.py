"""Several engines as one: every picture goes where it is predicted to be finished first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from iris.api.remote_engine import RemoteEngine
from iris.errors import BackendBusy, BackendUnavailable
from iris.jobs import EngineHealth, Job, Picture

_PATIENCE_S = 1.0  # with one of several engines; the others can do its work
_TELLING_S = 60.0  # styles are read from a disk
_TRIES = 2  # pictures that an engine lost are made once more on another

T = TypeVar("T")


@dataclass(eq=False)
class _Member:
    engine: RemoteEngine
    coming_s: float = 0.0  # work that was sent there and is not admitted yet
    is_silent: bool = False  # until it answers its health again


class Fleet:
    """The Dispatcher over several engines with the same weights.

    An engine that is lost costs nobody a picture: the same seed gives the same picture elsewhere.
    """

    def __init__(
        self,
        engines: Sequence[RemoteEngine],
        *,
        styles: Mapping[str, str] | None = None,
        patience_s: float = _PATIENCE_S,
        telling_s: float = _TELLING_S,
    ) -> None:
        """styles: name -> folder, what the engines serve at first; None = not known.

        patience_s: an engine that is silent for so long gets no work until it answers again.
        telling_s: how long an engine may take to load styles.
        """
        self._telling_s = telling_s
        self._members = [_Member(engine) for engine in engines]
        self._styles = dict(styles or {})  # what all engines serve, as far as it is known
        self._styles_lock = asyncio.Lock()  # held while engines are told of styles
        self._patience_s = patience_s
        self._tasks: set[asyncio.Task[None]] = set()  # the event loop keeps only weak references

    async def run(self, job: Job) -> Picture:
        begun_s = time.monotonic()
        tried: set[_Member] = set()
        busy: list[BackendBusy] = []
        num_lost = 0
        while chosen := await self._choose(job, tried):
            member, own_s = chosen
            tried.add(member)
            left_s = max(0.0, job.deadline_s - (time.monotonic() - begun_s))
            try:
                return await self._run_there(member, own_s, replace(job, deadline_s=left_s))
            except BackendBusy as error:
                busy.append(error)  # the others were predicted to take longer, and may have room
            except BackendUnavailable:
                self._leave_out(member)
                num_lost += 1
                if num_lost == _TRIES:
                    raise
        if busy:
            raise min(busy, key=lambda error: error.retry_after_s or 0.0)
        raise BackendUnavailable("No engine is there right now. Try again shortly.")

    async def health(self) -> EngineHealth:
        """All engines together: ready when one is, alive when one is."""
        asked = [self._patiently(member, self._health_of(member)) for member in self._members]
        found = [health for health in await asyncio.gather(*asked) if health is not None]
        if not found:
            raise BackendUnavailable("No engine answers.")
        num_ready = sum(health.ready for health in found)
        return EngineHealth(
            ready=num_ready > 0,
            alive=any(health.alive for health in found),
            waiting=sum(health.waiting for health in found),
            running=sum(health.running for health in found),
            detail=f"{num_ready} of {len(self._members)} engines take work.",
        )

    async def serve_styles(self, folders: Mapping[str, str]) -> None:
        """All engines or none: a picture may be sent to any."""
        async with self._styles_lock:
            for number, member in enumerate(self._members, 1):
                try:
                    await self._tell(member, folders)
                except BackendUnavailable:  # this one may have heard it all the same
                    for told in self._members[:number]:
                        await self._put_back(told)
                    raise
            self._styles = dict(folders)

    async def wait_for_all(self) -> None:
        """Return when nobody waits for a picture any more that an engine has admitted."""
        await asyncio.gather(*(member.engine.wait_for_all() for member in self._members))

    async def _choose(self, job: Job, tried: set[_Member]) -> tuple[_Member, float] | None:
        """Where the job is finished first of those not tried yet, and its own work there.

        None where no other takes work.
        """
        left = [member for member in self._members if member not in tried]
        heard = [member for member in left if not member.is_silent] or left
        asked = [self._patiently(member, member.engine.quote(job)) for member in heard]
        quotes = zip(heard, await asyncio.gather(*asked), strict=True)
        offers = [
            (quote.predicted_s + member.coming_s, number, member, quote.own_s)
            for number, (member, quote) in enumerate(quotes)
            if quote is not None
        ]
        if not offers:
            return None
        _, _, member, own_s = min(offers)
        return member, own_s

    async def _run_there(self, member: _Member, own_s: float, job: Job) -> Picture:
        # Whoever chooses before this one is admitted must know that it is on its way.
        member.coming_s += own_s
        try:
            ticket = await member.engine.admit(job)
        finally:
            member.coming_s -= own_s
        return await member.engine.collect(ticket)

    async def _patiently(self, member: _Member, question: Coroutine[Any, Any, T]) -> T | None:
        """The answer; None from an engine that is silent, which is asked nothing more for now."""
        try:
            async with asyncio.timeout(self._patience_s):
                return await question
        except (TimeoutError, BackendUnavailable):
            self._leave_out(member)
            return None

    def _leave_out(self, member: _Member) -> None:
        """No work for this engine until it is heard again."""
        if not member.is_silent:
            member.is_silent = True
            task = asyncio.ensure_future(self._listen(member))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _put_back(self, member: _Member) -> None:
        """Have the engine serve what all did before."""
        try:
            await self._tell(member, self._styles)
        except BackendUnavailable:
            self._leave_out(member)

    async def _tell(self, member: _Member, folders: Mapping[str, str]) -> None:
        try:
            async with asyncio.timeout(self._telling_s):
                await member.engine.serve_styles(folders)
        except TimeoutError:
            raise BackendUnavailable("An engine does not answer. Nothing was changed.") from None

    async def _listen(self, member: _Member) -> None:
        """Give a silent engine work again as soon as it takes some."""
        while member.is_silent:
            await asyncio.sleep(self._patience_s)
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._health_of(member)
            except (TimeoutError, BackendUnavailable):
                continue

    async def _health_of(self, member: _Member) -> EngineHealth:
        """What an engine says; one that was silent and takes work is given some again.

        It may be a new process, which serves the styles that there were at its start.
        """
        health = await member.engine.health()
        if health.ready and member.is_silent:
            async with self._styles_lock:
                if self._styles:
                    await self._tell(member, self._styles)
                member.is_silent = False
        return health
