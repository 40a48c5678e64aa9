"""The only thing the front knows of the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from iris.jobs import EngineHealth, Job, Picture


class Dispatcher(Protocol):
    """Hands a job to an engine and waits for its picture."""

    async def run(self, job: Job) -> Picture:
        """Make one picture. Cancelling the awaiting task cancels the picture in the engine.

        Raises:
            BackendBusy: refused, with `retry_after_s`.
            BackendUnavailable: no engine takes work.
            BackendTimeout: the deadline of the job passed.
            BackendFailure: the engine broke while making it.
        """
        ...

    async def health(self) -> EngineHealth:
        """What the engine says of itself.

        Raises:
            BackendUnavailable: no engine can be asked.
        """
        ...

    async def serve_styles(self, folders: Mapping[str, str]) -> None:
        """From now on these styles can be asked for: name -> folder on the engines' host.

        Pictures in the making keep the version they have; names not among these stay served.

        Raises:
            BackendUnavailable: an engine cannot be told, or cannot load one; says which.
        """
        ...


# The app is made before the engine is known, so it asks anew at every request; None = not yet.
DispatcherSource = Callable[[], Dispatcher | None]
