import threading
import time
from types import SimpleNamespace

import pytest

from iris.engine.activity import Activity


@pytest.fixture
def clock(monkeypatch):
    """The time, set by hand; for sections alone: the loops of other threads want the real one."""
    at = [100.0]
    clock = SimpleNamespace(monotonic=lambda: at[0])
    monkeypatch.setattr("iris.engine.activity.time", clock)
    return at


def test_work_alone_takes_the_time_that_passes(clock):
    activity = Activity()
    with activity.section() as section:
        clock[0] += 3.0
    clock[0] += 5.0
    assert section.seconds == pytest.approx(3.0)


def test_work_side_by_side_adds_up_to_the_time_that_passes(clock):
    activity = Activity()
    with activity.section() as outer:
        clock[0] += 1.0
        with activity.section() as inner:
            clock[0] += 4.0
        clock[0] += 2.0
    assert inner.seconds == pytest.approx(2.0)
    assert outer.seconds == pytest.approx(1.0 + 2.0 + 2.0)


def test_work_that_fails_is_over(clock):
    activity = Activity()
    sections = []

    def fail():
        with activity.section() as section:
            sections.append(section)
            clock[0] += 1.0
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    assert sections[0].seconds == pytest.approx(1.0)
    assert activity.longest_s() == 0.0


def test_the_longest_is_the_one_that_began_first(clock):
    activity = Activity()
    assert activity.longest_s() == 0.0
    with activity.section():
        clock[0] += 2.0
        with activity.section():
            clock[0] += 1.0
            assert activity.longest_s() == pytest.approx(3.0)


def test_sections_of_many_threads_close_and_add_up():
    activity = Activity()
    begun, seconds = time.monotonic(), []

    def work():
        for _ in range(50):
            with activity.section() as section:
                time.sleep(0.001)
            seconds.append(section.seconds)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(seconds) <= time.monotonic() - begun + 1e-6
    assert activity.longest_s() == 0.0
