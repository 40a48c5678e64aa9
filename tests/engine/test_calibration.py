"""What is measured at start is measured of new work, and one slow moment changes nothing."""

import time

import pytest

from iris.engine import calibration
from iris.engine.activity import Activity
from iris.engine.cache import Cache
from iris.engine.calibration import measure
from iris.engine.conditioning import Conditioner, PromptEncoder
from iris.engine.cost import CostModel
from iris.engine.denoiser import Denoiser


@pytest.fixture
def conditioner(fine):
    return Conditioner(fine[0], Denoiser(*fine), Cache(1 << 24), Activity())


class Clock:
    """Goes on by what the work says that it takes, and a little whenever somebody looks."""

    now_s = 0.0

    def __call__(self):
        self.now_s += 0.001
        return self.now_s

    def takes(self, monkeypatch, owner, name, seconds):
        real = getattr(owner, name)

        def work(*given, **named):
            self.now_s += next(seconds) if hasattr(seconds, "__next__") else seconds
            return real(*given, **named)

        monkeypatch.setattr(owner, name, work)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(calibration, "_now_s", clock)
    return clock


@pytest.mark.usefixtures("small_calibration")
def test_a_prompt_is_measured_though_prompts_are_kept(fine, conditioner, clock, monkeypatch):
    clock.takes(monkeypatch, PromptEncoder, "_embed", 0.5)
    cost = CostModel.unmeasured()
    measure(cost, conditioner, Denoiser(*fine))
    assert cost.encode.predict_s(0) == pytest.approx(0.5, rel=0.1)


@pytest.mark.usefixtures("small_calibration")
def test_a_step_that_was_held_up_does_not_count(fine, conditioner, clock, monkeypatch):
    held_up = iter([0.1, 5.0, 0.1] * 3)
    clock.takes(monkeypatch, Denoiser, "step", held_up)
    cost = CostModel.unmeasured()
    measure(cost, conditioner, Denoiser(*fine))
    assert cost.step.predict_s(150) == pytest.approx(0.1, rel=0.2)


def test_nothing_is_measured_that_the_clock_does_not_see(fine, conditioner):
    cost = CostModel.unmeasured()
    begun_s = time.monotonic()
    measure(cost, conditioner, Denoiser(*fine))
    assert 0 < cost.step.predict_s(1_000) < time.monotonic() - begun_s
    assert 0 < cost.decode.predict_s(768 * 768) < time.monotonic() - begun_s
    assert cost.decode_left_after
