from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from iris.accounts.clock import Clock, day_of, month_of, seconds_to_next_day


@pytest.mark.parametrize("jump_s", [3_600, -3_600, 10**6])
def test_setting_the_hosts_clock_moves_nothing(
    monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    clock = Clock()
    before_ms = clock.now_ms()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    assert 0 <= clock.now_ms() - before_ms < 5_000


def test_it_is_the_time_of_day_and_goes_on() -> None:
    clock = Clock()
    assert abs(clock.now_ms() / 1000 - time.time()) < 1
    before_ms = clock.now_ms()
    time.sleep(0.05)
    assert clock.now_ms() - before_ms >= 49


def test_days_and_months_are_utc() -> None:
    last = int(datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp() * 1000)
    first = last + 1_000
    assert day_of(first) == day_of(last) + 1
    assert month_of(first) == month_of(last) + 1
    assert seconds_to_next_day(last) == 1
    assert seconds_to_next_day(first) == 86_400
