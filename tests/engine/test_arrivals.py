from iris.engine.arrivals import Arrivals
from iris.engine.work import Work


def some_work(name, steps=4):
    return Work(name, 100, 1, steps, 0, 0, 0.0, 1000.0)


def came_at(*times_s):
    arrivals = Arrivals()
    for time_s in times_s:
        arrivals.add(some_work(f"{time_s}"), time_s)
    return arrivals


def names(works):
    return [work.ticket_id for work in works]


def test_what_came_within_the_window_comes_out_the_latest_first():
    came, window_s = came_at(0, 40, 50, 90).within(50.0, now_s=90.0)
    assert names(came) == ["90", "50", "40"]
    assert window_s == 50.0


def test_the_window_is_half_a_minute_at_least():
    came, window_s = came_at(0, 70, 90).within(1.0, now_s=90.0)
    assert names(came) == ["90", "70"]
    assert window_s == 30.0


def test_where_more_came_than_is_remembered_the_window_is_what_is_remembered():
    """Ten a second: the last 256 came within 25.5 s."""
    came, window_s = came_at(*(number / 10 for number in range(1000))).within(60.0, now_s=99.9)
    assert len(came) == 256
    assert abs(window_s - 25.5) < 1e-6


def test_a_burst_of_more_than_is_remembered_has_a_window():
    assert came_at(*[5.0] * 300).within(60.0, now_s=5.0)[1] == 1.0


def test_what_came_is_kept_as_it_came():
    arrivals, work = Arrivals(), some_work("a", steps=4)
    arrivals.add(work, 7.0)
    work.steps_left, work.image_pixels = 0, None
    ((kept,), _) = arrivals.within(30.0, now_s=8.0)
    assert (kept.steps_left, kept.image_pixels, kept.admitted_at_s) == (4, 0, 7.0)


def test_before_anything_came_nothing_is_expected():
    assert Arrivals().within(30.0, now_s=8.0) == ([], 30.0)
