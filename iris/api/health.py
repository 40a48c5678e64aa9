"""/livez, /healthz and /readyz: what an orchestrator asks, answered from the engine's own word."""

from __future__ import annotations

import asyncio
import dataclasses
import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from iris.api.dispatch import DispatcherSource
from iris.errors import BackendUnavailable
from iris.jobs import EngineHealth

RELOAD_S = 120.0  # a silence that lasts longer is no reload
PATIENCE_S = 2.0  # of an engine that is busy; its health needs no step to end

_STARTING = EngineHealth(
    ready=False, alive=True, waiting=0, running=0, detail="The engine is not there yet."
)


class Health:
    """Asks the engine at every call.

    All that is remembered is when it fell silent. A silence is most often that of an engine which
    loads its weights, at the start or after its process was replaced, and a restart would only
    begin that again; one that lasts means that it hangs.
    """

    def __init__(
        self,
        dispatcher_source: DispatcherSource,
        patience_s: float = PATIENCE_S,
        reload_s: float = RELOAD_S,
    ) -> None:
        self._dispatcher_source = dispatcher_source
        self._patience_s = patience_s
        self._reload_s = reload_s
        self._has_answered = False
        self._silent_since_s: float | None = None

    async def live(self, request: Request) -> Response:
        """200 unless the engine is known to be stuck: a restart helps then, and only then."""
        health = await self._ask()
        if not health.alive:
            raise BackendUnavailable(health.detail)
        return _shown(health)

    async def ready(self, request: Request) -> Response:
        """200 when new work is taken."""
        health = await self._ask()
        if not (health.ready and health.alive):
            raise BackendUnavailable(health.detail)
        return _shown(health)

    async def _ask(self) -> EngineHealth:
        dispatcher = self._dispatcher_source()
        if dispatcher is None:
            return _STARTING
        try:
            async with asyncio.timeout(self._patience_s):
                health = await dispatcher.health()
        except BackendUnavailable as error:
            # not reachable is what a starting or respawning engine looks like too
            return dataclasses.replace(_STARTING, detail=error.message)
        except TimeoutError:
            now_s = time.monotonic()
            if self._silent_since_s is None:
                self._silent_since_s = now_s
            hangs = self._has_answered and now_s - self._silent_since_s > self._reload_s
            return dataclasses.replace(
                _STARTING,
                alive=not hangs,
                detail="The engine does not answer its health check.",
            )
        self._has_answered = True
        self._silent_since_s = None
        return health


def _shown(health: EngineHealth) -> Response:
    return JSONResponse(dataclasses.asdict(health))
