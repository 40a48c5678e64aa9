"""Tickets over a proxy: whoever stops waiting gives them back, and no failure is masked."""

import asyncio
import dataclasses

import pytest

from iris.api.remote_engine import RemoteEngine
from iris.errors import BackendBusy, BackendFailure, BackendTimeout, BackendUnavailable
from iris.jobs import (
    EditJob,
    EngineHealth,
    Failure,
    GenerateJob,
    Picture,
    Pixels,
    Refusal,
    Ticket,
    Usage,
)

PICTURE = Picture(Pixels(16, 16, bytes(768)), 7, Usage(1, 2, 3), 0.1, 0.2)
JOB = GenerateJob(
    request_id="r",
    owner="key_1",
    prompt="a boat",
    width_px=16,
    height_px=16,
    num_inference_steps=1,
    seed=7,
    guidance_scale=1.0,
    lora=None,
    lora_strength=0.6,
    deadline_s=5.0,
)
EDIT = EditJob(**dataclasses.asdict(JOB), images=(), strength=None)


class Proxy:
    """An engine on the other side of a wire; each answer waits for its gate to open."""

    def __init__(self, admission=None, outcome=PICTURE):
        self.admission = admission or Ticket("t1", 1.0)
        self.outcome = outcome
        self.admitting, self.collecting = asyncio.Event(), asyncio.Event()
        self.admit_gate, self.collect_gate = asyncio.Event(), asyncio.Event()
        self.admit_gate.set()
        self.collect_gate.set()
        self.calls = []
        self.num_hanging = 0  # admissions that somebody still waits for
        self.is_silent = False

    async def admit_generate(self, jobs):
        self.calls.append(("generate", len(jobs)))
        self.admitting.set()
        self.num_hanging += 1
        try:
            await self.admit_gate.wait()
        finally:
            self.num_hanging -= 1
        return [answer(self.admission) for _ in jobs]

    async def admit_edit(self, jobs):
        self.calls.append(("edit", len(jobs)))
        return [answer(self.admission) for _ in jobs]

    async def collect(self, ticket_id):
        self.calls.append(("collect", ticket_id))
        self.collecting.set()
        await self.collect_gate.wait()
        return answer(self.outcome)

    async def cancel(self, ticket_id):
        self.calls.append(("cancel", ticket_id))

    async def health(self):
        if self.is_silent:
            await asyncio.Event().wait()
        return answer(self.outcome)


def answer(value):
    if isinstance(value, Exception):
        raise value
    return value


def test_a_picture_comes_back_whatever_the_wire_makes_of_it():
    async def run(outcome):
        return await RemoteEngine(Proxy(outcome=outcome)).run(JOB)

    assert asyncio.run(run(PICTURE)) == PICTURE
    assert asyncio.run(run(dataclasses.asdict(PICTURE))) == PICTURE


def test_a_job_goes_to_the_method_of_its_kind():
    async def run(job):
        proxy = Proxy()
        await RemoteEngine(proxy).run(job)
        return proxy.calls[0]

    assert asyncio.run(run(JOB)) == ("generate", 1)
    assert asyncio.run(run(EDIT)) == ("edit", 1)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("backend_busy", BackendBusy),
        ("backend_unavailable", BackendUnavailable),
        ("backend_timeout", BackendTimeout),
        ("backend_error", BackendFailure),
    ],
)
@pytest.mark.parametrize("as_dict", [False, True])
def test_every_refusal_and_failure_keeps_its_code(code, error, as_dict):
    def wire(value):
        return dataclasses.asdict(value) if as_dict else value

    async def run(**answers):
        await RemoteEngine(Proxy(**answers)).run(JOB)

    with pytest.raises(error) as refused:
        asyncio.run(run(admission=wire(Refusal(code, "no room", 12.5))))
    assert refused.value.retry_after_s == 12.5
    assert refused.value.message == "no room"
    with pytest.raises(error) as failed:
        asyncio.run(run(outcome=wire(Failure(code, "it broke"))))
    assert failed.value.message == "it broke"


@pytest.mark.parametrize("answers", [{"admission": OSError("x")}, {"outcome": OSError("x")}])
def test_an_engine_that_cannot_be_reached_is_unavailable(answers):
    with pytest.raises(BackendUnavailable) as error:
        asyncio.run(RemoteEngine(Proxy(**answers)).run(JOB))
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_a_client_that_leaves_while_the_picture_is_made_gives_its_ticket_back():
    async def run():
        proxy = Proxy()
        proxy.collect_gate.clear()
        task = asyncio.create_task(RemoteEngine(proxy).run(JOB))
        await proxy.collecting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.01)
        return proxy.calls

    assert ("cancel", "t1") in asyncio.run(run())


def test_a_client_that_leaves_during_admission_gives_back_the_ticket_that_comes_later():
    async def run():
        proxy = Proxy()
        proxy.admit_gate.clear()
        task = asyncio.create_task(RemoteEngine(proxy).run(JOB))
        await proxy.admitting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ("cancel", "t1") not in proxy.calls
        proxy.admit_gate.set()
        await asyncio.sleep(0.01)
        return proxy.calls

    assert asyncio.run(run())[-1] == ("cancel", "t1")


def test_a_client_that_leaves_in_the_moment_of_its_admission_gives_the_ticket_back():
    """At each turn of the loop there is between the engine's answer and its being read."""

    async def run(num_turns):
        proxy = Proxy()
        proxy.admit_gate.clear()
        proxy.collect_gate.clear()
        task = asyncio.create_task(RemoteEngine(proxy).run(JOB))
        await proxy.admitting.wait()
        proxy.admit_gate.set()
        for _ in range(num_turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.01)
        return proxy.calls[-1]

    assert [asyncio.run(run(turns)) for turns in range(8)] == [("cancel", "t1")] * 8


def test_a_refusal_that_comes_after_the_client_left_cancels_nothing():
    async def run():
        proxy = Proxy(admission=Refusal("backend_busy", "no room", 1.0))
        proxy.admit_gate.clear()
        task = asyncio.create_task(RemoteEngine(proxy).run(JOB))
        await proxy.admitting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        proxy.admit_gate.set()
        await asyncio.sleep(0.01)
        return proxy.calls

    assert asyncio.run(run()) == [("generate", 1)]


def test_a_silent_engine_is_unavailable_long_before_the_deadline():
    async def run():
        proxy = Proxy()
        proxy.admit_gate.clear()
        proxy.is_silent = True
        engine = RemoteEngine(proxy, patience_s=0.05)
        with pytest.raises(BackendUnavailable):
            await asyncio.wait_for(engine.run(JOB), 5)
        await asyncio.gather(*engine._tasks)  # what it began is not left hanging on the wire
        return proxy

    assert asyncio.run(run()).num_hanging == 0


def test_an_engine_that_takes_its_time_to_admit_is_waited_for_while_it_is_heard():
    async def run():
        proxy = Proxy()
        proxy.admit_gate.clear()
        task = asyncio.create_task(RemoteEngine(proxy, patience_s=0.02).run(JOB))
        await asyncio.sleep(0.3)
        assert not task.done()
        proxy.admit_gate.set()
        return await task

    assert asyncio.run(run()) == PICTURE


def test_an_admission_that_never_comes_is_let_go_of_after_the_client_left():
    async def run():
        proxy = Proxy()
        proxy.admit_gate.clear()
        engine = RemoteEngine(proxy, patience_s=0.05)
        task = asyncio.create_task(engine.run(JOB))
        await proxy.admitting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.gather(*engine._tasks)
        return proxy

    assert asyncio.run(run()).num_hanging == 0


def test_health_is_the_engines_or_unavailable():
    health = EngineHealth(True, True, 1, 2, "fine")

    async def ask(outcome):
        return await RemoteEngine(Proxy(outcome=outcome)).health()

    assert asyncio.run(ask(health)) == health
    assert asyncio.run(ask(dataclasses.asdict(health))) == health
    with pytest.raises(BackendUnavailable):
        asyncio.run(ask(OSError("x")))
