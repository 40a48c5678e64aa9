"""The count of pods: from the scheduler that runs in them, and never too small for its goal."""

import pytest
from replicas import (
    MAX_REFUSED,
    Outcome,
    cost_model,
    heaviest_good_load,
    mean_s,
    pods_for,
    simulate,
)

COST = cost_model(1.0)


def test_every_picture_that_is_let_in_is_finished():
    outcome = simulate(COST, 0.5, 2000)
    assert outcome.num_asked == 2000
    assert outcome.num_refused == 0
    assert 0.55 < len(outcome.slowdowns) / 2000 < 0.65  # the share of previews
    assert min(outcome.slowdowns) >= 1 - 1e-9  # nothing is faster than alone


def test_more_load_is_slower_and_overload_is_refused():
    light, heavy, too_much = (simulate(COST, load, 4000) for load in (0.3, 0.9, 2.0))
    assert light.p95 < heavy.p95
    assert light.is_good
    assert too_much.refused > MAX_REFUSED
    assert not too_much.is_good


def test_the_speed_of_a_pod_does_not_change_what_a_load_means():
    slow, fast = (simulate(cost_model(preview_s), 0.7, 2000) for preview_s in (2.0, 0.02))
    assert slow.p95 == pytest.approx(fast.p95, rel=0.05)


def test_pods_follow_the_rate_and_are_never_more_loaded_than_the_goal_allows():
    counts = [pods_for(rate, COST, 0.8) for rate in (0.001, 0.5, 1, 2, 4)]
    assert counts[0] == 1
    assert counts == sorted(counts)
    for rate, count in zip((0.001, 0.5, 1, 2, 4), counts, strict=True):
        assert rate * mean_s(COST) / count <= 0.8


def test_a_load_counts_only_if_all_lighter_ones_keep_the_goal():
    good, bad = (Outcome([slowdown] * 20, 20) for slowdown in (1.0, 9.0))
    assert heaviest_good_load({0.3: good, 0.4: bad, 0.5: good}) == 0.3
