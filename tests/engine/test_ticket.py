import pytest

from iris.engine.cost import CostModel, Line
from iris.engine.scheduler import Scheduler
from iris.engine.ticket import work_of
from tests.engine.conftest import a_gradient, a_job


@pytest.fixture
def scheduler():
    cost = CostModel(
        encode=Line(0.1, 1e-6), step=Line(0.1, 1e-4), decode=Line(fixed_s=0.1, per_unit_s=1e-6)
    )
    return Scheduler(cost, max_waiting=64, max_running=8)


def test_a_picture_for_which_nothing_is_run_is_no_work(fine, scheduler):
    components, _ = fine
    source = a_gradient(64, 64)
    unchanged = work_of(a_job(images=(source,), strength=0.0), "free", components, 0.0)
    assert scheduler.own_s(unchanged) == 0.0
    plain = work_of(a_job(), "plain", components, 0.0)
    promised_s = scheduler.predict_s(plain, 0.0)
    for number in range(50):
        unchanged.ticket_id = str(number)
        assert scheduler.offer(unchanged, 0.0).predicted_s == 0.0
        scheduler.remove(unchanged.ticket_id)
    assert scheduler.predict_s(plain, 0.0) == promised_s


def test_a_prompt_is_work_until_it_is_encoded(fine, scheduler):
    components, _ = fine
    work = work_of(a_job(), "a", components, 0.0)
    scheduler.offer(work, 0.0)
    before_s = scheduler.own_s(work)
    scheduler.encoded("a", 0.0)
    assert scheduler.own_s(work) == pytest.approx(before_s - 0.1)
