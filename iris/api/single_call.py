"""Engines behind somebody else's load balancer: a whole picture is one call.

A ticket is known to the engine that gave it, and a balancer sends the call that collects it to any
other. So nothing is asked for in two calls here. What is lost by it: prompts that come together are
not encoded together, and it is the balancer that chooses the engine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

from pydantic import TypeAdapter

from iris.api.remote_engine import RemoteEngine, delivered, refused, unreachable
from iris.errors import BackendBusy, BackendTimeout, BackendUnavailable
from iris.jobs import Job, Outcome, Picture, Refusal

_LAST_WORDS_S = 5.0  # an engine keeps the deadline itself and is given so long to say so


class SingleCall(RemoteEngine):
    """The Dispatcher over a proxy of which every call may reach another engine."""

    _answer = TypeAdapter[Refusal | Outcome](Refusal | Outcome)

    async def run(self, job: Job) -> Picture:
        begun_s = time.monotonic()
        try:
            return await self._run_once(job)
        except (BackendBusy, BackendUnavailable):
            # An engine that was lost or had no room costs nobody a picture: the next call reaches
            # another, and the same seed is the same picture there.
            left_s = max(0.0, job.deadline_s - (time.monotonic() - begun_s))
            return await self._run_once(replace(job, deadline_s=left_s))

    async def serve_styles(self, folders: Mapping[str, str]) -> None:
        raise BackendUnavailable(
            "The engines stand behind a balancer and cannot all be told. Restart them: they load "
            "the styles there are when they start."
        )

    async def _run_once(self, job: Job) -> Picture:
        with self._awaited():
            try:
                async with asyncio.timeout(job.deadline_s + _LAST_WORDS_S):
                    answer = self._answer.validate_python(await self._engine.run(job))
            except TimeoutError:
                raise BackendTimeout("The picture was not finished in time.") from None
            except Exception as error:
                raise unreachable(error) from None
        if isinstance(answer, Refusal):
            raise refused(answer)
        return delivered(answer)
