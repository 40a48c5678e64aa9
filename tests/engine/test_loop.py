import threading
import time

from iris.engine.cost import CostModel
from iris.engine.loop import Loop
from iris.engine.register import Register
from iris.engine.scheduler import Scheduler
from iris.engine.work import Work
from tests.engine.conftest import a_job


class Broken(Loop):
    def _turn(self):
        raise ValueError("a bug")


def test_nobody_comes_in_between_the_end_of_a_loop_and_that_of_its_thread():
    register = Register(Scheduler(CostModel.unmeasured(), max_waiting=8, max_running=8))
    loop = Broken("iris-broken", register)
    told, fail_all, offers = threading.Event(), register.fail_all, []

    def fail_all_and_linger(failure):
        fail_all(failure)
        told.set()
        while not offers:
            time.sleep(0.005)

    register.fail_all = fail_all_and_linger
    loop.start()
    assert told.wait(10)
    assert loop.is_alive
    now = time.monotonic()
    offers.append(register.offer(Work("late", 100, 1, 2, 4096, 0, now, now + 60), a_job(), now))
    loop.stop()
    assert not offers[0].is_admitted
    assert len(register) == 0
