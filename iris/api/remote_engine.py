"""The engine as the front sees it: tickets asked for, waited for and given back over a proxy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from pydantic import TypeAdapter

from iris.errors import (
    BackendBusy,
    BackendFailure,
    BackendTimeout,
    BackendUnavailable,
    IrisError,
)
from iris.jobs import (
    Admission,
    EditJob,
    EngineHealth,
    Failure,
    Job,
    Outcome,
    Picture,
    Quote,
    Refusal,
    Ticket,
    without_pixels,
)

_log = logging.getLogger("iris")

PATIENCE_S = 2.0

_ERRORS: dict[str, type[IrisError]] = {
    "backend_busy": BackendBusy,
    "backend_unavailable": BackendUnavailable,
    "backend_timeout": BackendTimeout,
    "backend_error": BackendFailure,
}


class RemoteEngine:
    """The Dispatcher over a proxy that has the engine's methods as coroutines.

    The proxy answers the dataclasses of iris.jobs or their fields as dicts, whichever its wire
    makes of them. An exception of its own means that the engine cannot be reached.
    """

    _admission = TypeAdapter[Admission](Admission)
    _outcome = TypeAdapter[Outcome](Outcome)
    _health = TypeAdapter(EngineHealth)
    _quote = TypeAdapter[Quote | None](Quote | None)

    def __init__(self, engine: Any, *, patience_s: float = PATIENCE_S) -> None:
        """patience_s: an engine that answers nothing for so long, twice, is not there."""
        self._engine = engine
        self._patience_s = patience_s
        self._pulse: asyncio.Task[bool] | None = None
        self._num_awaited = 0  # pictures that were admitted
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._tasks: set[asyncio.Task[None]] = set()  # the event loop keeps only weak references

    async def wait_for_all(self) -> None:
        """Return when nobody waits for a picture any more that the engine has admitted."""
        await self._is_idle.wait()

    async def run(self, job: Job) -> Picture:
        return await self.collect(await self.admit(job))

    async def quote(self, job: Job) -> Quote | None:
        """What the engine would promise for the job now; None where it takes no pictures."""
        try:
            return self._quote.validate_python(await self._engine.quote(without_pixels(job)))
        except Exception as error:
            raise unreachable(error) from None

    async def admit(self, job: Job) -> Ticket:
        """A ticket for the job; a refusal is raised as what it means for the client."""
        answer = await self._admitted(job)
        if isinstance(answer, Refusal):
            raise refused(answer)
        return answer

    async def collect(self, ticket: Ticket) -> Picture:
        """Wait for the picture; cancelling the task cancels it in the engine."""
        with self._awaited():
            try:
                outcome = self._outcome.validate_python(
                    await self._engine.collect(ticket.ticket_id)
                )
            except asyncio.CancelledError:
                self._background(self._cancel(ticket.ticket_id))
                raise
            except Exception as error:
                raise unreachable(error) from None
        return delivered(outcome)

    async def health(self) -> EngineHealth:
        try:
            return self._health.validate_python(await self._engine.health())
        except Exception:
            raise BackendUnavailable("The engine does not answer.") from None

    async def serve_styles(self, folders: Mapping[str, str]) -> None:
        try:
            trouble = str(await self._engine.serve_styles(dict(folders)))
        except Exception as error:
            raise unreachable(error) from None
        if trouble:
            _log.error("the engine cannot serve the styles: %s", trouble)
            raise BackendUnavailable(trouble)

    @contextmanager
    def _awaited(self) -> Iterator[None]:
        """While the context is open, somebody waits for a picture that has been admitted."""
        self._num_awaited += 1
        self._is_idle.clear()
        try:
            yield
        finally:
            self._num_awaited -= 1
            if not self._num_awaited:
                self._is_idle.set()

    async def _admitted(self, job: Job) -> Admission:
        """The engine's answer, unless it is silent: a socket can be open with nobody behind it."""
        admission = asyncio.ensure_future(self._admit(job))
        silence = asyncio.ensure_future(self._silence())
        try:
            await asyncio.wait((admission, silence), return_when=asyncio.FIRST_COMPLETED)
            if not admission.done():
                raise unreachable(TimeoutError())
        except BaseException:  # nobody waits for the job any more, though its ticket may be there
            self._background(self._give_back(admission))
            raise
        finally:
            silence.cancel()
        return admission.result()

    async def _silence(self) -> None:
        """Return when the engine, asked now and then, does not answer its health either."""
        heard = True
        while heard:
            await asyncio.sleep(self._patience_s)
            if self._pulse is None or self._pulse.done():  # one question for all who wait
                self._pulse = asyncio.create_task(self._answers())
            heard = await asyncio.shield(self._pulse)

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._engine.health()
        except Exception:
            return False
        return True

    async def _admit(self, job: Job) -> Admission:
        admit = self._engine.admit_edit if isinstance(job, EditJob) else self._engine.admit_generate
        try:
            (answer,) = await admit([job])
        except Exception as error:
            raise unreachable(error) from None
        return self._admission.validate_python(answer)

    async def _give_back(self, admission: asyncio.Future[Admission]) -> None:
        """Cancel the ticket that is there or still to come, if it comes soon.

        One that comes later is dropped by the engine itself, because nobody collects it.
        """
        with suppress(TimeoutError, IrisError):
            async with asyncio.timeout(self._patience_s):
                answer = await admission
            if isinstance(answer, Ticket):
                await self._cancel(answer.ticket_id)

    async def _cancel(self, ticket_id: str) -> None:
        with suppress(Exception):  # an engine that is gone has no picture to cancel either
            await self._engine.cancel(ticket_id)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def refused(refusal: Refusal) -> IrisError:
    """What a refusal means for the client."""
    return _ERRORS[refusal.code](refusal.message, retry_after_s=refusal.retry_after_s)


def delivered(outcome: Outcome) -> Picture:
    """The picture; a failure is raised as what it means for the client."""
    if isinstance(outcome, Failure):
        raise _ERRORS[outcome.code](outcome.message)
    return outcome


def unreachable(error: Exception) -> BackendUnavailable:
    """The same as an error for the client; the log says what it was."""
    _log.error("the engine did not answer: %s", type(error).__name__)
    return BackendUnavailable("The engine is not there right now. Try again shortly.")
