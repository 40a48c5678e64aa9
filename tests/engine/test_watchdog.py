import threading
import time

from iris.engine.activity import Activity
from iris.engine.watchdog import Watchdog


def test_work_that_takes_too_long_is_reported_once():
    activity, calls, called = Activity(), [], threading.Event()

    def report():
        calls.append(1)
        called.set()

    watchdog = Watchdog(activity, 0.1, report)
    watchdog.start()
    with activity.section():
        assert called.wait(10)
        assert watchdog.is_stalled
        time.sleep(0.3)
    assert not watchdog.is_stalled
    assert len(calls) == 1


def test_an_engine_without_work_does_not_hang():
    called = threading.Event()
    watchdog = Watchdog(Activity(), 0.05, called.set)
    watchdog.start()
    assert not called.wait(0.4)
    watchdog.stop()


def test_a_watchdog_that_is_stopped_says_nothing_more():
    activity, called = Activity(), threading.Event()
    watchdog = Watchdog(activity, 0.1, called.set)
    watchdog.start()
    watchdog.stop()
    with activity.section():
        assert not called.wait(0.4)


def test_a_device_that_is_broken_is_reported_once_though_nothing_takes_long():
    broken, called, calls = threading.Event(), threading.Event(), []

    def report():
        calls.append(1)
        called.set()

    watchdog = Watchdog(Activity(), 0.1, report, broken.is_set)
    watchdog.start()
    assert not called.wait(0.3)
    broken.set()
    assert called.wait(10)
    watchdog._thread.join(10)
    assert len(calls) == 1
