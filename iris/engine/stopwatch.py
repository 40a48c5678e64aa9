"""How long passes take on the device, without ever waiting for the one that was just asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from iris.engine.activity import Activity


@dataclass(frozen=True, slots=True)
class Lap:
    """One pass that is over."""

    tokens: int
    seconds: float


class Stopwatch(Protocol):
    """Runs passes and says of those that are over how long they took."""

    def time(self, work: Callable[[], None], tokens: int) -> list[Lap]:
        """Do the work; return what is known by now, of this pass or of earlier ones."""


class HostStopwatch:
    """Where a pass is over when the call returns: on a CPU."""

    def __init__(self, activity: Activity) -> None:
        self._activity = activity

    def time(self, work: Callable[[], None], tokens: int) -> list[Lap]:
        with self._activity.section() as section:
            work()
        return [Lap(tokens, section.seconds)]


def _timing_event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


class DeviceStopwatch:
    """Where a call only asks for a pass: on CUDA, by events on its stream.

    Waiting for a pass before the next is asked for would leave the device idle in between. So one
    pass is asked for while the one before it runs, and that one is waited for: no more than two
    are ever under way, and what was chosen to run is never older than that.
    """

    def __init__(
        self,
        activity: Activity,
        new_event: Callable[[], Any] = _timing_event,
    ) -> None:
        self._activity = activity
        self._new_event = new_event
        self._before: tuple[int, Any, Any] | None = None  # tokens, event before, event behind

    def time(self, work: Callable[[], None], tokens: int) -> list[Lap]:
        with self._activity.section():  # a device that hangs is seen by who waits in here
            start, end = self._new_event(), self._new_event()
            start.record()
            work()
            end.record()
            before, self._before = self._before, (tokens, start, end)
            if before is None:
                return []
            past_tokens, past_start, past_end = before
            past_end.synchronize()
            return [Lap(past_tokens, past_start.elapsed_time(past_end) / 1000.0)]


def choose(device: torch.device, activity: Activity) -> Stopwatch:
    return DeviceStopwatch(activity) if device.type == "cuda" else HostStopwatch(activity)
