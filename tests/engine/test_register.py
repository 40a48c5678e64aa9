import time

import pytest
import torch

from iris.engine.cost import CostModel
from iris.engine.register import Register
from iris.engine.scheduler import Scheduler
from iris.engine.work import Work
from iris.jobs import Failure, Picture, Pixels, Usage
from tests.engine.conftest import a_job

PICTURE = Picture(Pixels(16, 16, bytes(768)), 1, Usage(1, 0, 1), 0.0, 0.1)


@pytest.fixture
def register():
    return Register(Scheduler(CostModel.unmeasured(), max_waiting=8, max_running=8))


def offered(register, name):
    now = time.monotonic()
    return register.offer(Work(name, 100, 1, 2, 4096, 0, now, now + 60.0), a_job(), now)


def failed(register, error):
    """What comes of a picture that is being made and fails."""
    assert offered(register, "one").is_admitted
    entry = register.get("one")
    register.fail("one", error)
    register.cancel("one")
    return entry.outcome.result(0)


def test_nobody_comes_in_once_all_have_been_told_of_the_end(register):
    assert offered(register, "one").is_admitted
    outcome = register.get("one").outcome
    register.fail_all(Failure("backend_error", "The picture could not be made."))
    assert outcome.done()
    late = offered(register, "late")
    assert not late.is_admitted
    assert not late.is_hopeless
    assert register.get("late") is None


def test_a_picture_lost_with_its_device_can_be_made_by_another_engine(register):
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    assert failed(register, error).code == "backend_unavailable"
    assert register.faults.is_broken


def test_only_a_picture_that_took_the_device_shows_that_it_works(register):
    def finish(started_at_s):
        assert offered(register, "good").is_admitted
        register.get("good").started_at_s = started_at_s
        register.finish("good", PICTURE)
        register.cancel("good")

    def fail(times):
        for _ in range(times):
            assert failed(register, RuntimeError("broken")).code == "backend_error"

    fail(4)
    finish(started_at_s=1.0)
    fail(4)
    assert not register.faults.is_broken
    finish(started_at_s=None)  # strength 0: the source itself
    fail(1)
    assert register.faults.is_broken
