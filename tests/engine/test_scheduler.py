import subprocess
import sys

import pytest

from iris.engine.cost import CostModel, Line
from iris.engine.scheduler import Scheduler, Stage
from iris.engine.work import Work


def a_scheduler(max_waiting=64, max_running=8, fixed_s=0.0):
    # 1 ms a token and pass, decoding free: a picture of 100 tokens takes 0.1 s a step.
    cost = CostModel(
        encode=Line(per_unit_s=1e-6),
        step=Line(fixed_s=fixed_s, per_unit_s=0.001),
        decode=Line(per_unit_s=0.0),
    )
    return Scheduler(cost, max_waiting=max_waiting, max_running=max_running)


def some_work(
    name, steps=4, tokens=100, passes=1, deadline_at_s=1000.0, image_pixels=0, admitted_at_s=0.0
):
    return Work(name, tokens, passes, steps, 0, image_pixels, admitted_at_s, deadline_at_s)


def admit(scheduler, *works):
    for work in works:
        assert scheduler.offer(work, now_s=0.0).is_admitted
        assert scheduler.encoded(work.ticket_id, 0.0)


def run_to_end(scheduler):
    """Step as the engine does; returns the tickets in the order they finished."""
    finished = []
    while scheduler.num_waiting or scheduler.num_running:
        for work in scheduler.next_round(0.0):
            work.steps_left -= 1
            if work.steps_left <= 0:
                scheduler.remove(work.ticket_id)
                finished.append(work.ticket_id)
    return finished


def names(works):
    return [work.ticket_id for work in works]


def test_a_preview_never_waits_for_a_final():
    scheduler = a_scheduler()
    admit(scheduler, some_work("final", steps=50))
    for _ in range(5):
        for work in scheduler.next_round(0.0):
            work.steps_left -= 1
    admit(scheduler, some_work("preview", steps=4))
    assert run_to_end(scheduler) == ["preview", "final"]


def test_the_least_work_left_goes_first():
    scheduler = a_scheduler()
    admit(scheduler, some_work("long", steps=9), some_work("short", steps=2), some_work("mid"))
    assert run_to_end(scheduler) == ["short", "mid", "long"]


def test_who_has_waited_long_goes_before_who_came_just_now():
    """1 s of work against 0.4 s: as good as even after 30 s."""
    for age, first in ((20.0, "new"), (40.0, "old")):
        scheduler = a_scheduler()
        admit(scheduler, some_work("old", steps=10), some_work("new", admitted_at_s=age))
        assert names(scheduler.next_round(age)) == [first]


def test_a_pass_is_filled_until_its_fixed_cost_is_a_tenth_of_it():
    scheduler = a_scheduler(fixed_s=0.04)  # as much as 40 tokens: 360 tokens make it a tenth
    admit(scheduler, *(some_work(str(i), steps=4 + i) for i in range(6)))
    assert names(scheduler.next_round(0.0)) == ["0", "1", "2"]
    scheduler.remove("1")
    admit(scheduler, some_work("small", steps=99, tokens=60))
    assert names(scheduler.next_round(0.0)) == ["0", "2", "3", "small"]


def test_a_picture_larger_than_the_budget_still_runs():
    scheduler = a_scheduler(fixed_s=0.001)
    admit(scheduler, some_work("large", tokens=5000))
    assert names(scheduler.next_round(0.0)) == ["large"]


def test_no_more_pictures_than_allowed_share_a_pass():
    scheduler = a_scheduler(max_running=2, fixed_s=10.0)
    admit(scheduler, *(some_work(name) for name in "abc"))
    assert len(scheduler.next_round(0.0)) == 2


def test_a_deadline_that_leaves_no_room_keeps_others_out():
    scheduler = a_scheduler(fixed_s=10.0)
    scheduler.cost.step.fixed_s = 0.0  # nothing shares a pass
    admit(scheduler, some_work("due", steps=50, deadline_at_s=7.0), some_work("short", steps=2))
    assert names(scheduler.next_round(0.0)) == ["short"]  # 5 s of work, 7 s left
    assert names(scheduler.next_round(0.9)) == ["due"]


def test_a_picture_that_is_still_being_encoded_does_not_run():
    scheduler = a_scheduler()
    assert scheduler.offer(some_work("a"), now_s=0.0).is_admitted
    assert scheduler.next_round(0.0) == []
    assert scheduler.num_waiting == 1
    assert scheduler.encoded("a", 0.0)
    assert names(scheduler.next_round(0.0)) == ["a"]


def test_a_picture_removed_while_encoding_never_runs():
    scheduler = a_scheduler()
    scheduler.offer(some_work("a"), now_s=0.0)
    assert scheduler.remove("a")
    assert not scheduler.encoded("a", 0.0)
    assert scheduler.next_round(0.0) == []


def test_work_that_cannot_meet_its_deadline_is_told_when_it_could():
    scheduler = a_scheduler()
    admit(scheduler, some_work("ahead", steps=50, deadline_at_s=6.0))  # 5 s
    late = some_work("late", steps=10, deadline_at_s=7.0)  # 1 s of its own, 7 s left
    offer = scheduler.offer(late, now_s=0.0)
    assert not offer.is_admitted
    wait_s = offer.retry_after_s
    assert wait_s == pytest.approx(2.0)  # 5 s ahead and a fifth, 1 s of its own, 2 s kept free
    assert scheduler.num_waiting == 1
    for work in scheduler.next_round(0.0):
        work.steps_left -= round(wait_s * 10)
    again = some_work("late", steps=10, deadline_at_s=wait_s + 7.0)
    assert scheduler.offer(again, now_s=wait_s).is_admitted


def test_who_is_due_sooner_is_admitted_before_who_is_due_later():
    scheduler = a_scheduler()
    admit(scheduler, some_work("ahead", steps=50, deadline_at_s=100.0))
    soon = some_work("soon", steps=10, deadline_at_s=1.5)
    assert scheduler.offer(soon, now_s=0.0).is_admitted


def test_nobody_comes_in_who_would_make_another_late():
    scheduler = a_scheduler()
    admit(scheduler, some_work("ahead", steps=50, deadline_at_s=6.0))
    soon = some_work("soon", steps=10, deadline_at_s=1.5)
    assert not scheduler.offer(soon, now_s=0.0).is_admitted


def test_a_preview_still_comes_in_where_finals_no_longer_do():
    scheduler = a_scheduler(max_waiting=1000)
    number = 0
    while scheduler.offer(some_work(f"f{number}", steps=50, deadline_at_s=60.0), 0.0).is_admitted:
        number += 1
    assert number > 5
    assert scheduler.offer(some_work("preview", steps=4, deadline_at_s=60.0), 0.0).is_admitted


def test_what_is_predicted_counts_what_goes_first():
    scheduler = a_scheduler()
    admit(scheduler, some_work("final", steps=50), some_work("preview", steps=4))
    assert scheduler.offer(some_work("b", steps=4), 0.0).predicted_s == pytest.approx(0.8)
    assert scheduler.predict_s(some_work("b", steps=4), 0.0) == pytest.approx(1.2)


def test_what_is_predicted_expects_as_much_shorter_work_as_came_of_late():
    scheduler = a_scheduler()
    for number in range(6):  # 3 s of work in 30 s
        admit(scheduler, some_work(f"{number}", steps=5))
        scheduler.remove(f"{number}")
    longer, shorter = some_work("a", steps=9), some_work("b", steps=4)
    assert scheduler.predict_s(longer, 0.0) == pytest.approx(0.9 / 0.9)
    assert scheduler.predict_s(shorter, 0.0) == pytest.approx(0.4)
    assert scheduler.predict_s(longer, 31.0) == pytest.approx(0.9)


def test_what_is_to_come_goes_first_as_far_as_it_is_clearly_shorter():
    for tokens, share in ((675, 1.0), (765, 0.6), (890, 0.04444), (900, 0.0), (1000, 0.0)):
        scheduler = a_scheduler()
        for number in range(6):
            admit(scheduler, some_work(f"{number}", steps=1, tokens=tokens))
            scheduler.remove(f"{number}")
        expected_s = 0.9 / (1 - 6 * tokens / 1000 * share / 30)
        assert scheduler.predict_s(some_work("a", steps=9), 0.0) == pytest.approx(expected_s, 1e-4)


def test_who_waits_longer_expects_what_came_in_as_long():
    """What came 40 s before is expected again by who waits for 100 s, not by who waits for 10."""
    for num_ahead, expected_s in ((10, 11.0), (100, 101.0 / (1 - 5 / 101))):
        scheduler = a_scheduler(max_waiting=1000)
        for number in range(10):  # 5 s
            admit(scheduler, some_work(f"{number}", steps=5))
            scheduler.remove(f"{number}")
        for number in range(num_ahead):
            ahead = some_work(f"{number}", steps=10, admitted_at_s=40.0)
            assert scheduler.offer(ahead, now_s=40.0).is_admitted
        asking = some_work("a", steps=10, admitted_at_s=40.0)
        assert scheduler.predict_s(asking, 40.0) == pytest.approx(expected_s)


def test_as_much_is_to_come_where_more_came_than_is_remembered():
    scheduler = a_scheduler()
    for number in range(3000):  # 100 a second, each .001 s
        shorter = some_work("shorter", tokens=1, steps=1, admitted_at_s=number / 100)
        assert scheduler.offer(shorter, now_s=number / 100).is_admitted
        scheduler.remove("shorter")
    asking = some_work("a", tokens=10, steps=1, admitted_at_s=30.0)
    assert scheduler.predict_s(asking, 30.0) == pytest.approx(0.01 / (1 - 0.1), rel=0.01)


def test_a_burst_of_pictures_of_one_kind_is_let_in_as_far_as_it_can_be_done():
    """Of 14 s each, and 300 s for all: with a fifth more on what is ahead 17 would fit."""
    scheduler = a_scheduler()
    burst = [some_work(f"{number}", steps=140, deadline_at_s=300.0) for number in range(30)]
    assert sum(scheduler.offer(work, now_s=0.0).is_admitted for work in burst) >= 12


@pytest.mark.parametrize("tokens", [50, 200])
def test_there_is_less_room_where_what_comes_is_longer_as_well(tokens):
    """Longer ones that came in before are due before: there is room for as much less."""
    retry_after_s = []
    for num_others in (0, 6):
        scheduler = a_scheduler()
        for number in range(num_others):
            admit(scheduler, some_work(f"{number}", steps=10, tokens=tokens))
            scheduler.remove(f"{number}")
        admit(scheduler, *(some_work(name, steps=9) for name in "abcd"))
        asking = some_work("asking", steps=10, deadline_at_s=3.0)
        retry_after_s.append(scheduler.offer(asking, now_s=0.0).retry_after_s)
    others_s = 6 * tokens / 100
    share, came = 0.12 * 0.7, 0.12 * 0.7 + others_s / 30
    assert retry_after_s[0] == pytest.approx(4.32 / (1 - share) + 1.0 - 3.0)
    assert retry_after_s[1] == pytest.approx(4.32 / (1 - came) + 1.0 - 3.0)


def test_a_picture_that_costs_nothing_can_be_predicted_beside_any_other():
    scheduler = a_scheduler()
    admit(scheduler, some_work("a"))
    free = some_work("free", steps=0)
    assert scheduler.predict_s(free, 0.0) == 0.0
    assert scheduler.offer(free, 0.0).is_admitted


def test_what_fills_up_its_passes_is_expected_to_take_its_time_too():
    """A pass of up to 360 tokens: two of 100 that come later go along in each of its passes."""
    scheduler = a_scheduler(fixed_s=0.04)
    admit(scheduler, *(some_work(f"{i}", steps=9) for i in range(5)))
    asking = some_work("a", steps=4)
    alone_s = 4 * (0.04 + 0.1)
    assert scheduler.predict_s(asking, 0.0) == pytest.approx(alone_s + 4 * 0.26)
    for number in range(1, 5):
        scheduler.remove(f"{number}")
    scheduler.cost.step.fixed_s = 1.0  # what is there takes less than what would fit
    assert scheduler.predict_s(asking, 0.0) == pytest.approx(4 * 1.1 + 9 * 1.1)
    scheduler.cost.step.per_unit_s = 0.0  # tokens cost nothing
    assert scheduler.predict_s(asking, 0.0) == pytest.approx(4.0)


def test_pictures_of_one_kind_are_not_shorter_than_each_other_when_predictions_rise():
    """Eight alike come one after the other, each predicted to take longer than the last was."""
    scheduler = a_scheduler()
    for number in range(8):
        scheduler.cost.pace.value = 1.0 + number / 10
        work = some_work(f"{number}", steps=50, deadline_at_s=300.0)
        assert scheduler.predict_s(work, 0.0) == pytest.approx((number + 1) * scheduler.own_s(work))
        admit(scheduler, work)


def test_nobody_is_promised_more_than_the_deadline():
    scheduler = a_scheduler()
    for number in range(30):
        admit(scheduler, some_work(f"{number}", steps=5))
        scheduler.remove(f"{number}")
    offer = scheduler.offer(some_work("a", steps=10, deadline_at_s=1.2), 0.0)
    assert offer.is_admitted
    assert offer.predicted_s == pytest.approx(1.2)


def test_predictions_follow_what_is_got_done_by_the_clock():
    scheduler = a_scheduler()
    admit(scheduler, some_work("a", steps=200))
    before = scheduler.own_s(some_work("b", steps=10))
    for number in range(1, 100):  # every step takes twice what was measured
        scheduler.took_a_step(scheduler.next_round(0.2 * number), 0.2 * number)
    assert scheduler.own_s(some_work("b", steps=10)) == pytest.approx(2 * before, rel=0.05)


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
    scheduler.encoded("a", 0.0)
    assert scheduler.remaining_s() == pytest.approx(0.4)


def test_a_machine_that_was_slow_for_a_while_is_tried_again():
    """Nobody is let in who seems too long, and only who is let in shows how long that takes."""
    scheduler = a_scheduler()
    for _ in range(100):
        scheduler.cost.step.observe(100, 1.0)  # ten times what it was
    work = {"steps": 50, "deadline_at_s": 100.0}

    def offer(name: str, now_s: float):
        return scheduler.offer(some_work(name, **work | {"deadline_at_s": now_s + 20.0}), now_s)

    assert offer("a", 0.0).is_admitted
    assert offer("b", 0.1).is_hopeless  # one is enough
    scheduler.remove("a")  # it was not in time
    assert offer("c", 10.0).is_hopeless
    assert offer("d", 40.0).is_admitted
    for _ in range(50):
        scheduler.cost.step.observe(100, 0.1)
    scheduler.remove("d")
    assert offer("e", 41.0).is_admitted


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
    for _ in range(4):  # both begin, one after the other, and their places are free
        for work in scheduler.next_round(0.0):
            work.steps_left -= 1
        scheduler.next_round(20.0)
    assert scheduler.offer(some_work("c"), now_s=0.0).is_admitted


def test_guidance_counts_twice():
    scheduler = a_scheduler()
    admit(scheduler, some_work("a", passes=2))
    assert scheduler.remaining_s() == pytest.approx(0.8)


def test_only_tickets_past_their_deadline_expire():
    scheduler = a_scheduler()
    admit(scheduler, some_work("a", deadline_at_s=10.0), some_work("b", deadline_at_s=20.0))
    scheduler.next_round(0.0)
    assert scheduler.expired(9.0) == []
    assert scheduler.expired(15.0) == ["a"]


def decoding(name, **changes):
    """Work that has taken its steps: one more is taken in `admit_stepped`."""
    return some_work(name, **{"steps": 1} | changes)


def admit_stepped(scheduler, *works):
    admit(scheduler, *works)
    scheduler.took_a_step(works, 0.0)


def test_what_is_due_is_decoded_before_what_has_less_left():
    scheduler = a_scheduler()
    scheduler.cost.decode.per_unit_s = 1e-6
    final, preview = decoding("final", deadline_at_s=5.0), decoding("preview", deadline_at_s=60.0)
    final.pixels, preview.pixels = 1_000_000, 300_000
    admit_stepped(scheduler, final, preview)
    assert scheduler.next_decode(0.0) is preview
    assert scheduler.next_decode(4.0) is final  # 1 s of work, 1 s left
    assert not scheduler.has_runnable


def test_beside_what_is_due_nothing_else_is_done():
    scheduler = a_scheduler()
    due = decoding("due", deadline_at_s=5.0)
    admit_stepped(scheduler, due)
    admit(scheduler, some_work("other", steps=1))
    assert scheduler.may_run(Stage.STEP, 0.0)
    assert not scheduler.may_run(Stage.STEP, 4.9)
    assert scheduler.may_run(Stage.DECODE, 4.9)


@pytest.mark.parametrize(("steps", "may"), [(2, True), (8, True), (9, False), (50, False)])
def test_beside_the_most_urgent_picture_runs_what_is_at_most_twice_as_long(steps, may):
    scheduler = a_scheduler()
    scheduler._stages_share_cores = True
    preview = some_work("preview", steps=4)
    admit(scheduler, preview)
    for _ in range(4):
        scheduler.took_a_step([preview], 0.0)
    admit(scheduler, some_work("other", steps=steps))
    assert scheduler.may_run(Stage.DECODE, 0.0)
    assert scheduler.may_run(Stage.STEP, 0.0) is may
    scheduler._stages_share_cores = False
    assert scheduler.may_run(Stage.STEP, 0.0)


def test_a_picture_has_less_left_with_each_piece_that_is_decoded():
    scheduler = a_scheduler()
    scheduler.cost.decode.per_unit_s = 1e-6
    scheduler.cost.decode_left_after = [0.75, 0.25]
    work = decoding("a")
    work.pixels = 1_000_000
    admit_stepped(scheduler, work)
    left = [scheduler.own_s(work)]
    for pieces in (1, 2, 3, 0):
        scheduler.decoded_a_piece(work, pieces, 0.0)
        left.append(scheduler.own_s(work))
    assert left == pytest.approx([1.0, 0.75, 0.25, 0.0, 1.0])


def test_who_comes_back_when_told_to_is_let_in_before_who_is_new():
    def asking(owner, now_s):
        work = some_work(owner, steps=10, deadline_at_s=now_s + 4.5, admitted_at_s=now_s)
        work.owner = owner
        return scheduler.offer(work, now_s)

    scheduler = a_scheduler()
    admit(scheduler, *(some_work(name, steps=9) for name in "abcd"))
    # 3.6 s ahead and a fifth; of the 12 % that what came takes, .7 count: .4 for being shorter by a
    # tenth, and half of the rest; 1 s of its own; 4.5 s left
    told_s = asking("anna", 0.0).retry_after_s
    assert told_s == pytest.approx(4.32 / (1 - 0.12 * 0.7) + 1.0 - 4.5)
    scheduler.remove("a")
    assert not asking("ben", told_s).is_admitted
    assert asking("anna", told_s).is_admitted


def test_the_policy_is_read_and_run_without_torch():
    code = "import sys, iris.engine.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
