import random

import pytest

from iris.engine.cost import CostModel, Line, Pace


def test_a_line_goes_through_both_measured_points():
    line = Line()
    line.calibrate([(100, 0.2), (300, 0.4)])
    assert line.predict_s(100) == pytest.approx(0.2)
    assert line.predict_s(300) == pytest.approx(0.4)
    assert line.predict_s(500) == pytest.approx(0.6)


@pytest.mark.parametrize("points", [[(100, 0.4), (300, 0.2)], [(100, 0.01), (300, 0.9)]])
def test_noisy_measurements_never_predict_negative_time(points):
    line = Line()
    line.calibrate(points)
    assert line.predict_s(0) >= 0
    assert line.predict_s(10) >= 0
    assert line.predict_s(1000) > 0


def test_predictions_follow_a_machine_that_became_slower():
    line = Line(fixed_s=0.1, per_unit_s=0.001)
    for _ in range(100):
        line.observe(400, 1.5)  # three times the 0.5 s it was
    assert line.predict_s(400) == pytest.approx(1.5, rel=0.01)
    assert line.predict_s(900) == pytest.approx(3.0, rel=0.01)


def test_one_outlier_moves_a_prediction_by_a_tenth_of_its_excess():
    line = Line(fixed_s=0.0, per_unit_s=0.001)
    line.observe(1000, 3.0)
    assert line.predict_s(1000) == pytest.approx(1.2)


@pytest.mark.parametrize("seconds", [12.0, 1e6])
def test_what_was_held_up_for_long_moves_a_prediction_by_three_tenths_at_most(seconds):
    line = Line(fixed_s=0.0, per_unit_s=0.001)
    line.observe(10, seconds)
    assert line.predict_s(10) == pytest.approx(0.013)


@pytest.mark.parametrize(("fixed_s", "per_unit_s"), [(0.05, 0.0), (0.0, 0.0003), (0.03, 0.0001)])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_large_and_small_work_turn_a_line_that_was_laid_wrongly(fixed_s, per_unit_s, noise):
    """What is fixed of a pass decides how many pictures share it, so it has to be right."""
    line = Line(fixed_s=fixed_s, per_unit_s=per_unit_s)
    chance = random.Random(0)
    for _ in range(1000):
        tokens = chance.choice((200, 500, 1000))
        line.observe(tokens, (0.01 + 0.0001 * tokens) * (1 + chance.uniform(-noise, noise)))
    for tokens in (200, 500, 1000):
        assert line.predict_s(tokens) == pytest.approx(0.01 + 0.0001 * tokens, rel=0.1)
    assert line.fixed_s / line.per_unit_s == pytest.approx(100, rel=0.4)


@pytest.mark.parametrize("per_picture", [0.013, 0.05])
def test_passes_that_were_held_up_do_not_end_sharing(per_picture):
    """How many pictures share a pass follows from the line, and what it learns from that."""
    tokens, fixed_s = 1300, 0.02
    for seed in range(5):
        chance = random.Random(seed)
        line = Line(fixed_s=fixed_s, per_unit_s=per_picture / tokens)
        most = fixed_s / per_picture * 9 * tokens
        lone = 0
        for _ in range(3000):
            budget = line.fixed_s / line.per_unit_s * 9
            lone += budget < min(2 * tokens, 0.5 * most)
            units = min(chance.randint(1, 8), max(1, int(budget / tokens))) * tokens
            seconds = fixed_s + per_picture * units / tokens
            held_up = 3.0 if chance.random() < 0.01 else 1.0
            line.observe(units, seconds * chance.gauss(1.0, 0.05) * held_up)
        assert lone < 600


def test_what_was_measured_at_first_is_kept_whatever_came_later():
    line = Line()
    line.calibrate([(100, 0.2), (300, 0.4)])
    for _ in range(100):
        line.observe(300, 1.5)
        line.observe(100, 0.2)
    assert line.predict_s(300) > 0.8
    assert line.as_laid().predict_s(300) == pytest.approx(0.4)
    assert line.as_laid().predict_s(100) == pytest.approx(0.2)


def test_work_of_one_size_turns_no_line():
    line = Line(fixed_s=0.01, per_unit_s=0.0001)
    for _ in range(1000):
        line.observe(300, 0.12)
    assert line.fixed_s / line.per_unit_s == pytest.approx(100)


def test_a_line_that_was_turned_turns_back_where_nothing_tells_any_more():
    line = Line(fixed_s=0.01, per_unit_s=0.0001)
    for _ in range(100):
        line.observe(100, 0.02)
        line.observe(1000, 0.15)
    assert line.fixed_s / line.per_unit_s < 80
    for _ in range(1000):
        line.observe(300, 0.04)
    assert line.fixed_s / line.per_unit_s == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize("points", [[(100, 0.4), (300, 0.2)], [(100, 0.01), (300, 0.9)]])
def test_a_part_of_the_work_always_grows_with_its_size(points):
    line = Line()
    line.calibrate(points)
    assert line.per_unit_s > 0
    assert line.predict_s(600) > line.predict_s(300) > 0


def test_a_picture_costs_its_passes_and_its_decode():
    cost = CostModel(encode=Line(), step=Line(per_unit_s=0.001), decode=Line(per_unit_s=1e-6))
    assert cost.picture_s(tokens=100, passes=2, steps_left=4, pixels=500_000) == pytest.approx(1.3)


def test_a_prompt_costs_its_encoding_whether_there_are_images_or_not():
    cost = CostModel(encode=Line(0.5, 1e-6), step=Line(), decode=Line(per_unit_s=1e-6))
    parts = {"tokens": 100, "passes": 1, "steps_left": 0, "pixels": 0}
    assert cost.picture_s(**parts) == 0.0
    assert cost.picture_s(**parts, image_pixels=0) == pytest.approx(0.5)
    assert cost.picture_s(**parts, image_pixels=500_000) == pytest.approx(1.0)


def test_the_pace_is_what_the_clock_says_of_predicted_work():
    pace = Pace()
    pace.begin(0.0)
    for second in range(1, 60):
        pace.work(0.5, float(second))
    assert pace.value == pytest.approx(2.0, rel=0.01)


def test_time_without_work_does_not_count():
    pace = Pace()
    for number in range(50):
        start_s = 100.0 * number
        pace.begin(start_s)
        pace.work(0.6, start_s + 0.6)
        pace.work(0.6, start_s + 1.2)
        pace.end()
        pace.work(0.6, start_s + 50.0)
    assert pace.value == pytest.approx(1.0)


def test_no_observation_moves_the_pace_beyond_reason():
    pace = Pace()
    pace.begin(0.0)
    for second in range(1, 100):
        pace.work(1e-9, 1000.0 * second)
    assert pace.value <= 4.0
