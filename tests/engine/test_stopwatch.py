import time

import pytest
import torch

from iris.engine.activity import Activity
from iris.engine.stopwatch import DeviceStopwatch, HostStopwatch, Lap, choose


class Device:
    """A stream that runs what was asked for in order, and only when somebody waits for it."""

    def __init__(self):
        self.asked, self.now_s, self.waited = [], 0.0, 0

    def work(self, seconds):
        def ask():
            self.asked.append(seconds)

        return ask

    def new_event(self):
        return Event(self)


class Event:
    def __init__(self, device):
        self.device, self.at_s = device, None

    def record(self):
        self.device.asked.append(self)

    def synchronize(self):
        self.device.waited += 1
        while self.at_s is None:
            item = self.device.asked.pop(0)
            if isinstance(item, Event):
                item.at_s = self.device.now_s
            else:
                self.device.now_s += item

    def elapsed_time(self, end):
        return 1000.0 * (end.at_s - self.at_s)


def test_on_the_host_a_pass_is_known_when_it_returns():
    laps = HostStopwatch(Activity()).time(lambda: time.sleep(0.02), tokens=7)
    assert [lap.tokens for lap in laps] == [7]
    assert laps[0].seconds >= 0.02


def test_on_a_device_a_pass_is_asked_for_before_the_one_before_it_is_waited_for():
    device = Device()
    watch = DeviceStopwatch(Activity(), device.new_event)
    assert watch.time(device.work(0.5), tokens=10) == []
    assert device.waited == 0
    assert watch.time(device.work(0.25), tokens=20) == [Lap(10, 0.5)]
    assert 0.25 in device.asked  # the second has not begun: the device always has something to do
    assert watch.time(device.work(1.0), tokens=30) == [Lap(20, 0.25)]


def test_no_more_than_two_passes_are_ever_under_way():
    device = Device()
    watch = DeviceStopwatch(Activity(), device.new_event)
    for _ in range(20):
        watch.time(device.work(0.1), tokens=1)
        assert sum(not isinstance(item, Event) for item in device.asked) <= 2


def test_a_pass_that_fails_is_not_counted_and_the_next_one_is():
    device = Device()
    watch = DeviceStopwatch(Activity(), device.new_event)
    watch.time(device.work(0.5), tokens=10)

    def fail():
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        watch.time(fail, tokens=99)
    assert watch.time(device.work(0.1), tokens=20) == [Lap(10, 0.5)]


def test_waiting_for_a_device_counts_as_being_at_work_so_that_a_hang_is_seen():
    device, activity = Device(), Activity()
    watch = DeviceStopwatch(activity, device.new_event)
    watch.time(device.work(0.1), tokens=1)
    seen = []
    synchronize = Event.synchronize

    def slow(self):
        time.sleep(0.02)
        seen.append(activity.longest_s())
        synchronize(self)

    Event.synchronize = slow
    try:
        watch.time(device.work(0.1), tokens=1)
    finally:
        Event.synchronize = synchronize
    assert seen[0] >= 0.02


def test_cuda_is_timed_by_its_own_events_and_a_cpu_by_the_clock():
    assert isinstance(choose(torch.device("cpu"), Activity()), HostStopwatch)
    assert isinstance(choose(torch.device("cuda"), Activity()), DeviceStopwatch)
