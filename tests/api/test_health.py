from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest

from iris.api.dispatch import Dispatcher
from iris.api.health import Health
from iris.errors import BackendUnavailable
from iris.jobs import EngineHealth
from tests.api.fakes import HEALTHY, FakeDispatcher, Front, assert_envelope

BUSY = dataclasses.replace(HEALTHY, ready=False, waiting=9, detail="The queue is full.")
DEAD = dataclasses.replace(HEALTHY, ready=False, alive=False, detail="The step thread is gone.")
ODD = dataclasses.replace(HEALTHY, ready=True, alive=False, detail="Half dead.")


@pytest.mark.parametrize(
    ("health", "live", "ready"),
    [
        (HEALTHY, 200, 200),
        (BUSY, 200, 503),
        (DEAD, 503, 503),
        (ODD, 503, 503),
        (BackendUnavailable("Not reachable."), 200, 503),
    ],
)
def test_health_is_what_the_engine_says(
    front: Front,
    dispatcher: FakeDispatcher,
    health: EngineHealth | Exception,
    live: int,
    ready: int,
) -> None:
    dispatcher.health_answer = health
    detail = health.detail if isinstance(health, EngineHealth) else "Not reachable."
    for path, status in (("/livez", live), ("/healthz", live), ("/readyz", ready)):
        response = front.get(path, key=None)
        if status == 503:
            assert assert_envelope(response, 503, "backend_unavailable")["message"] == detail
        else:
            assert response.status_code == 200
            assert response.json()["detail"] == detail


def test_a_broken_health_check_is_a_500_that_tells_nothing(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    dispatcher.health_answer = ValueError("/opt/secret")
    assert_envelope(front.get("/readyz", key=None), 500, "backend_error")


def ask(dispatcher: Dispatcher | None) -> EngineHealth:
    health = Health(lambda: dispatcher, patience_s=0.05)
    return asyncio.run(health._ask())


def test_an_engine_that_is_not_there_yet_is_alive_and_not_ready() -> None:
    health = ask(None)
    assert (health.alive, health.ready) == (True, False)


def test_an_engine_that_stays_silent_is_dead() -> None:
    async def fall_silent() -> EngineHealth:
        dispatcher = FakeDispatcher()
        health = Health(lambda: dispatcher, patience_s=0.05, reload_s=0.1)
        assert (await health._ask()).ready
        dispatcher.health_answer = None
        first = await health._ask()
        assert (first.alive, first.ready) == (True, False)  # it may only be loading again
        await asyncio.sleep(0.1)
        return await health._ask()

    health = asyncio.run(fall_silent())
    assert (health.alive, health.ready) == (False, False)


def test_an_engine_that_never_answered_is_still_starting() -> None:
    dispatcher = FakeDispatcher()
    dispatcher.health_answer = None
    health = ask(dispatcher)
    assert (health.alive, health.ready) == (True, False)


def test_the_answer_is_plain_json(front: Front, dispatcher: FakeDispatcher) -> None:
    dispatcher.health_answer = dataclasses.replace(HEALTHY, waiting=3, running=2)
    assert json.loads(front.get("/readyz", key=None).content) == {
        "ready": True,
        "alive": True,
        "waiting": 3,
        "running": 2,
        "detail": "Ready.",
    }
