"""One call a picture: what a balancer may do to it, and what the client sees of that."""

import asyncio
import dataclasses

import pytest

from iris.api import single_call
from iris.api.single_call import SingleCall
from iris.errors import BackendBusy, BackendFailure, BackendTimeout, BackendUnavailable
from iris.jobs import Failure, Refusal
from tests.api.test_remote_engine import EDIT, JOB, PICTURE

BUSY = Refusal("backend_busy", "full", retry_after_s=3.0)


class Balanced:
    """Engines behind a balancer: every call reaches the next one."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.jobs = []
        self.num_waiting = 0

    async def run(self, job):
        self.jobs.append(job)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.num_waiting += 1
        try:
            await (answer() if callable(answer) else asyncio.sleep(0))
        finally:
            self.num_waiting -= 1
        return answer


@pytest.mark.parametrize("job", [JOB, EDIT])
def test_a_picture_takes_one_call(job):
    engines = Balanced(PICTURE)
    assert asyncio.run(SingleCall(engines).run(job)) == PICTURE
    assert engines.jobs == [job]


@pytest.mark.parametrize("lost", [OSError("gone"), BUSY])
def test_an_engine_that_is_lost_or_full_costs_nobody_a_picture(lost):
    engines = Balanced(lost, PICTURE)
    assert asyncio.run(SingleCall(engines).run(JOB)) == PICTURE
    first, second = engines.jobs
    assert first.seed == second.seed
    assert second.deadline_s <= first.deadline_s


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ((OSError(), OSError()), BackendUnavailable),
        ((OSError(), BUSY), BackendBusy),
        ((Refusal("backend_timeout", "too long"),), BackendTimeout),
        ((Failure("backend_error", "broke"),), BackendFailure),
    ],
)
def test_what_nobody_can_help_is_told(answers, error):
    engines = Balanced(*answers)
    with pytest.raises(error):
        asyncio.run(SingleCall(engines).run(JOB))
    assert not engines.answers  # and no third try


def test_a_client_that_leaves_ends_the_call():
    async def leave():
        engines = Balanced(asyncio.Event().wait)
        calls = SingleCall(engines)
        running = asyncio.create_task(calls.run(JOB))
        await asyncio.sleep(0.01)
        assert engines.num_waiting == 1
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert engines.num_waiting == 0
        assert len(engines.jobs) == 1
        await asyncio.wait_for(calls.wait_for_all(), 1)

    asyncio.run(leave())


def test_an_engine_that_hangs_is_given_up_after_the_deadline(monkeypatch):
    monkeypatch.setattr(single_call, "_LAST_WORDS_S", 0.0)
    engines = Balanced(asyncio.Event().wait)
    job = dataclasses.replace(JOB, deadline_s=0.01)
    with pytest.raises(BackendTimeout):
        asyncio.run(SingleCall(engines).run(job))


def test_a_drain_waits_for_the_call_that_runs():
    async def drain():
        gate = asyncio.Event()
        calls = SingleCall(Balanced(gate.wait))
        running = asyncio.create_task(calls.run(JOB))
        await asyncio.sleep(0.01)
        drained = asyncio.create_task(calls.wait_for_all())
        await asyncio.sleep(0.01)
        assert not drained.done()
        gate.set()
        with pytest.raises(BackendUnavailable):  # what came was no picture
            await running
        await asyncio.wait_for(drained, 1)

    asyncio.run(drain())
