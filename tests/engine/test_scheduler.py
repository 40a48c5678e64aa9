import pytest
from hypothesis import given
from hypothesis import strategies as st

from iris.engine.cost import CostModel, Line
from iris.engine.scheduler import Scheduler, Work


def a_scheduler(max_waiting=64, max_running=8):
    # 1 ms a token and pass, decoding free: a picture of 100 tokens takes 0.1 s a step.
    cost = CostModel(
        encode=Line(per_unit_s=1e-6), step=Line(per_unit_s=0.001), decode=Line(per_unit_s=0.0)
    )
    return Scheduler(cost, max_waiting=max_waiting, max_running=max_running)


def some_work(name, steps=4, tokens=100, passes=1, deadline_at_s=1000.0, image_pixels=0):
    return Work(name, tokens, passes, steps, 0, image_pixels, deadline_at_s)


def admit(scheduler, *works):
    for work in works:
        assert scheduler.offer(work, now_s=0.0).is_admitted
        assert scheduler.encoded(work.ticket_id)


def run_to_end(scheduler):
    """Step as the engine does; returns the tickets in the order they finished."""
    finished = []
    while scheduler.num_waiting or scheduler.num_running:
        for work in scheduler.next_round():
            work.steps_left -= 1
            if work.steps_left <= 0:
                scheduler.remove(work.ticket_id)
                finished.append(work.ticket_id)
    return finished


def test_a_preview_never_waits_for_a_final():
    scheduler = a_scheduler()
    admit(scheduler, some_work("final", steps=50))
    for _ in range(5):
        for work in scheduler.next_round():
            work.steps_left -= 1
    admit(scheduler, some_work("preview", steps=4))
    assert run_to_end(scheduler) == ["preview", "final"]


def test_pictures_start_in_the_order_they_were_admitted():
    scheduler = a_scheduler(max_running=2)
    admit(scheduler, *(some_work(name) for name in "abc"))
    assert [work.ticket_id for work in scheduler.next_round()] == ["a", "b"]
    scheduler.remove("a")
    assert [work.ticket_id for work in scheduler.next_round()] == ["b", "c"]


def test_a_picture_that_is_still_being_encoded_does_not_run():
    scheduler = a_scheduler()
    assert scheduler.offer(some_work("a"), now_s=0.0).is_admitted
    assert scheduler.next_round() == []
    assert scheduler.num_waiting == 1
    assert scheduler.encoded("a")
    assert [work.ticket_id for work in scheduler.next_round()] == ["a"]


def test_a_picture_removed_while_encoding_never_runs():
    scheduler = a_scheduler()
    scheduler.offer(some_work("a"), now_s=0.0)
    assert scheduler.remove("a")
    assert not scheduler.encoded("a")
    assert scheduler.next_round() == []


def test_work_that_cannot_meet_its_deadline_is_told_when_it_could():
    scheduler = a_scheduler()
    admit(scheduler, some_work("ahead", steps=50))  # 5 s
    late = some_work("late", steps=10, deadline_at_s=3.0)  # 1 s of its own, 3 s left
    offer = scheduler.offer(late, now_s=0.0)
    assert not offer.is_admitted
    wait_s = offer.retry_after_s
    assert wait_s == pytest.approx(3.5)  # 5 s ahead and a tenth, 1 s of its own, 3 s left
    assert scheduler.num_waiting == 1
    for work in scheduler.next_round():
        work.steps_left -= round(wait_s * 10)
    again = some_work("late", steps=10, deadline_at_s=wait_s + 3.0)
    assert scheduler.offer(again, now_s=wait_s).is_admitted


def test_a_picture_that_just_fits_its_deadline_is_never_turned_away_by_an_idle_engine():
    work = some_work("a", steps=10, deadline_at_s=1.001)  # 1 s of its own
    assert a_scheduler().offer(work, now_s=0.0).is_admitted


def test_those_who_are_turned_away_are_told_times_of_their_own():
    scheduler = a_scheduler(max_waiting=1)
    admit(scheduler, some_work("a"))
    waits = [scheduler.offer(some_work(str(i)), now_s=0.0).retry_after_s for i in range(5)]
    assert waits == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])  # 0.4 s for each of them
    late = [scheduler.offer(some_work(str(i)), now_s=50.0).retry_after_s for i in range(2)]
    assert late == pytest.approx([0.4, 0.8])  # times that have passed are nobody's any more


def test_nobody_is_told_to_come_back_later_than_a_deadline():
    scheduler = a_scheduler(max_waiting=1)
    admit(scheduler, some_work("a"))
    waits = [
        scheduler.offer(some_work(str(i), deadline_at_s=5.0), now_s=0.0).retry_after_s
        for i in range(100)
    ]
    assert max(waits) == pytest.approx(5.0)


def test_source_images_cost_their_encoding_until_they_are_encoded():
    scheduler = a_scheduler()
    scheduler.offer(some_work("a", image_pixels=500_000), now_s=0.0)
    assert scheduler.remaining_s() == pytest.approx(0.9)
    scheduler.encoded("a")
    assert scheduler.remaining_s() == pytest.approx(0.4)


def test_work_too_long_for_its_deadline_on_an_idle_engine_is_hopeless_not_busy():
    offer = a_scheduler().offer(some_work("a", steps=50, deadline_at_s=1.0), now_s=0.0)
    assert offer.is_hopeless
    assert offer.retry_after_s is None
    assert not offer.is_admitted


def test_the_queue_is_bounded_and_says_when_a_place_is_free():
    scheduler = a_scheduler(max_waiting=2)
    admit(scheduler, some_work("a"), some_work("b"))
    offer = scheduler.offer(some_work("c"), now_s=0.0)
    assert offer.retry_after_s == pytest.approx(0.4)
    scheduler.next_round()  # both start, their places are free
    assert scheduler.offer(some_work("c"), now_s=0.0).is_admitted


def test_guidance_counts_twice():
    scheduler = a_scheduler()
    admit(scheduler, some_work("a", passes=2))
    assert scheduler.remaining_s() == pytest.approx(0.8)


def test_only_tickets_past_their_deadline_expire():
    scheduler = a_scheduler()
    admit(scheduler, some_work("a", deadline_at_s=10.0), some_work("b", deadline_at_s=20.0))
    scheduler.next_round()
    assert scheduler.expired(9.0) == []
    assert scheduler.expired(15.0) == ["a"]


@given(
    arrivals=st.lists(
        st.tuples(st.integers(1, 50), st.integers(0, 5), st.booleans()), min_size=1, max_size=40
    ),
    max_running=st.integers(1, 8),
)
def test_no_ticket_is_lost_or_run_too_often(arrivals, max_running):
    """arrivals: (steps, rounds until the next arrival, whether it is cancelled after one round)."""
    scheduler = a_scheduler(max_running=max_running, max_waiting=1000)
    steps_run, finished, cancelled = {}, set(), set()

    def play_a_round():
        todo = scheduler.next_round()
        assert len(todo) <= max_running
        for work in todo:
            steps_run[work.ticket_id] = steps_run.get(work.ticket_id, 0) + 1
            work.steps_left -= 1
            if not work.steps_left:
                scheduler.remove(work.ticket_id)
                finished.add(work.ticket_id)
        return todo

    wanted = {}
    for number, (steps, pause, is_cancelled) in enumerate(arrivals):
        name = str(number)
        wanted[name] = steps
        admit(scheduler, some_work(name, steps=steps, deadline_at_s=1e9))
        for _ in range(pause):
            play_a_round()
        if is_cancelled and scheduler.remove(name):
            cancelled.add(name)
    while scheduler.num_waiting or scheduler.num_running:
        assert play_a_round(), "work waits and nothing runs"
    assert finished | cancelled == set(wanted)
    assert not finished & cancelled
    assert all(steps_run[name] == wanted[name] for name in finished)
