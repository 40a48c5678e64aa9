"""The scheduler under random load, in simulated time: the same class, no device."""

import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.simulation import (
    DEADLINE_S,
    FINAL,
    FINALS,
    HUGE,
    KINDS,
    MIX,
    PREVIEW,
    PREVIEWS,
    TOGETHER,
    Simulation,
    mean_s,
    own_s,
    p95,
    random_mix,
)

arrivals = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0.0, 3.0)),
        st.sampled_from(KINDS),
        st.one_of(st.none(), st.none(), st.floats(0.0, 2.0)),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=1000, deadline=None)
@given(
    arrivals=arrivals,
    max_running=st.sampled_from([1, 3, 8]),
    together=st.sampled_from([1.0, 1.4]),
    shares_cores=st.booleans(),
    deadlines_s=st.lists(st.floats(2.0, 60.0), min_size=1, max_size=4),
)
def test_whoever_is_admitted_is_finished_once_and_before_the_deadline(
    arrivals, max_running, together, shares_cores, deadlines_s
):
    """No ticket is lost, none starves, none is run too often, and something runs while it can."""
    done = Simulation(
        arrivals,
        max_running,
        together=together,
        shares_cores=shares_cores,
        deadlines_s=tuple(deadlines_s),
    ).run()
    assert not done.expired
    for number, one in enumerate(done.seen):
        if one.is_admitted and not one.is_cancelled:
            assert one.steps_run == one.kind[1]
            assert one.finished_at_s is not None
            assert one.finished_at_s - one.asked_at_s <= done.deadline_s(number)
        assert one.steps_run <= one.kind[1]
        assert one.is_admitted or not one.steps_run


@settings(max_examples=300, deadline=None)
@given(arrivals=arrivals)
def test_a_machine_slower_than_predicted_still_loses_nothing(arrivals):
    done = Simulation(arrivals, slowness=1.5).run()
    for number, one in enumerate(done.seen):
        if one.is_admitted and not one.is_cancelled:
            assert (one.finished_at_s is not None) != (str(number) in done.expired)


@settings(max_examples=300, deadline=None)
@given(finals=st.integers(1, 20), preview_at_s=st.floats(0.0, 20.0))
def test_a_preview_takes_its_own_time_and_little_more_whatever_is_running(finals, preview_at_s):
    crowd = [(0.0, HUGE, None)] * finals
    done = Simulation([*crowd, (preview_at_s, PREVIEW, None)]).run()
    preview = done.seen[-1]
    assert preview.is_admitted
    waited_s = preview.finished_at_s - preview.asked_at_s
    # A pass and a piece of a decoding that have begun, its own steps in passes that others may fill
    # up, its decoding; and one final that has less left or has waited so long that it is as urgent,
    # with another beside it.
    aged_s = 0.02 * preview_at_s
    first_s = own_s(*PREVIEW) + aged_s
    assert waited_s <= own_s(*PREVIEW) + 2 * first_s + (2 + PREVIEW[1]) * done.longest_s + 1e-9


def test_finals_are_not_starved_by_a_stream_of_previews():
    """Previews alone are nine tenths of what the machine can do."""
    every_s = own_s(*PREVIEW) / 0.9
    stream = [(every_s, PREVIEW, None)] * 600
    done = Simulation([(0.0, FINAL, None), *stream]).run()
    final = done.seen[0]
    assert final.finished_at_s is not None
    assert final.finished_at_s - final.asked_at_s < DEADLINE_S
    assert not done.expired


@pytest.mark.parametrize("load", [1.2, 3.0])
def test_under_overload_the_excess_is_refused_at_once_and_nobody_runs_out_of_time(load):
    stream = [(mean_s() / load, KINDS[i % len(KINDS)], None) for i in range(2000)]
    done = Simulation(stream).run()
    assert not done.expired
    admitted = [one for one in done.seen if one.is_admitted]
    assert len(admitted) < len(done.seen)
    assert done.busy_s >= 0.9 * done.now_s


@pytest.mark.parametrize("slowness", [1.3, 2.0])
def test_what_work_takes_all_told_is_learnt_and_then_nobody_is_late(slowness):
    """Under overload, on a machine whose parts all take longer than they were measured to."""
    stream = [(mean_s() / 1.2, KINDS[i % len(KINDS)], None) for i in range(2000)]
    done = Simulation(stream, slowness=slowness).run()
    learnt_at_s = 60.0
    late = [int(ticket) for ticket in done.expired]
    assert not [number for number in late if done.seen[number].asked_at_s > learnt_at_s]
    assert len(late) <= 20


def test_what_is_promised_under_load_is_what_is_seen():
    """At four fifths of what the machine can do, at random: the median is a tenth off at most."""
    rng = random.Random(4)
    stream = [(rng.expovariate(0.8 / mean_s()), rng.choice(KINDS), None) for _ in range(3000)]
    ratios = Simulation(stream).run().promise_ratios()
    assert 0.8 < ratios[len(ratios) // 2] < 1.1
    assert ratios[int(0.9 * len(ratios))] < 2.0


@pytest.mark.parametrize("together", TOGETHER)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_promised_is_seen_and_kept_where_more_comes_than_can_be_done(together, seed):
    """Decoding and stepping slow each other down; who is refused comes back when told to."""
    done = Simulation(random_mix(1.2, 300, seed), together=together, returns=True).run()
    assert not done.expired
    assert 0.8 < statistics.mean(done.promise_ratios()) < 1.25
    previews = [one.took_s for one in done.delivered if one.kind in PREVIEWS]
    assert p95(previews) < DEADLINE_S / 6
    refused = [one for one in done.seen if one.retry_after_s is not None]
    assert sum(one.is_admitted for one in refused) >= 0.7 * len(refused)


@pytest.mark.parametrize("together", TOGETHER)
def test_no_kind_of_picture_is_promised_better_than_another(together):
    """Small ones share their passes with others; large ones are gone past by what is shorter."""
    ratios = {kind: [] for kind in MIX}
    for seed in range(3):
        done = Simulation(random_mix(1.2, 300, seed), together=together, returns=True).run()
        for one in done.delivered:
            ratios[one.kind].append(one.took_s / one.predicted_s)
    assert all(0.8 < statistics.mean(of_kind) < 1.25 for of_kind in ratios.values())


@pytest.mark.parametrize("together", TOGETHER)
def test_places_kept_for_those_who_never_return_leave_nothing_idle(together):
    done = Simulation(random_mix(1.2, 300), together=together).run()
    assert not done.expired
    assert done.busy_s >= 0.95 * done.now_s
    finals = [one for one in done.seen if one.kind in FINALS]
    assert sum(one.is_admitted for one in finals) >= 0.4 * len(finals)


@pytest.mark.parametrize("together", TOGETHER)
def test_previews_are_the_faster_for_it_that_finals_keep_away_from_their_cores(together):
    apart, beside = (
        [
            one.took_s
            for one in Simulation(
                random_mix(0.5, 600), together=together, shares_cores=shares_cores
            )
            .run()
            .delivered
            if one.kind in PREVIEWS
        ]
        for shares_cores in (True, False)
    )
    assert p95(apart) < p95(beside)
    assert statistics.median(apart) <= statistics.median(beside)
