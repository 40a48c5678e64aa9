"""Several engines: who gets a picture, and what happens when one is lost."""

import asyncio
import dataclasses

import pytest

from iris.api.fleet import Fleet
from iris.api.remote_engine import RemoteEngine
from iris.errors import BackendBusy, BackendFailure, BackendUnavailable
from iris.jobs import EngineHealth, Failure, Picture, Pixels, Quote, Refusal, Ticket, Usage
from tests.api.test_remote_engine import EDIT, JOB

PATIENCE_S = 0.1


class Proxy:
    """An engine that names itself in the seed of its pictures."""

    def __init__(self, name, predicted_s=1.0, own_s=1.0):
        self.name = name
        self.quote_ = Quote(predicted_s, own_s)
        self.admission = Ticket("t", predicted_s)
        self.outcome = Picture(Pixels(16, 16, bytes(768)), name, Usage(1, 2, 3), 0.1, 0.2)
        self.health_ = EngineHealth(True, True, 1, 2, "fine")
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_silent = False
        self.quoted, self.jobs = [], []
        self.styles, self.trouble = {}, ""
        self.has_styles = asyncio.Event()

    async def quote(self, job):
        await self._speak()
        self.quoted.append(job)
        return self.quote_

    async def admit_generate(self, jobs):
        await self._speak()
        self.jobs += jobs
        await self.gate.wait()
        return [self.admission for _ in jobs]

    admit_edit = admit_generate

    async def collect(self, ticket_id):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def cancel(self, ticket_id):
        pass

    async def health(self):
        await self._speak()
        return self.health_

    async def serve_styles(self, folders):
        if isinstance(self.trouble, Exception):
            raise self.trouble
        if not self.trouble:
            self.styles |= folders
            self.has_styles.set()
        return self.trouble

    async def _speak(self):
        if self.is_silent:
            await asyncio.Event().wait()


def fleet_of(*proxies, styles=None, **options):
    engines = [RemoteEngine(proxy) for proxy in proxies]
    return Fleet(engines, styles=styles, patience_s=PATIENCE_S, **options)


def run(work):
    async def bounded():
        async with asyncio.timeout(10):
            return await work()

    return asyncio.run(bounded())


def test_a_picture_goes_where_it_is_finished_first():
    async def work():
        return await fleet_of(Proxy(0, 5.0), Proxy(1, 2.0), Proxy(2, 9.0)).run(JOB)

    assert run(work).seed == 1


def test_a_quote_costs_no_pixels_on_the_wire():
    image = Pixels(1024, 512, bytes(3 * 1024 * 512))
    job = dataclasses.replace(EDIT, images=(image,), prompt="a secret wish")

    async def work():
        proxies = Proxy(0, 2.0), Proxy(1, 1.0)
        await fleet_of(*proxies).run(job)
        return proxies

    zero, one = run(work)
    assert one.jobs[0].images == (image,)
    for proxy in (zero, one):
        asked = proxy.quoted[0]
        assert (asked.images[0].width_px, asked.images[0].height_px) == (1024, 512)
        assert asked.images[0].rgb == b""
        assert asked.prompt == ""


def test_pictures_that_come_at_once_are_spread():
    async def work():
        proxies = Proxy(0), Proxy(1), Proxy(2)
        for proxy in proxies:
            proxy.gate.clear()
        fleet = fleet_of(*proxies)
        running = [asyncio.ensure_future(fleet.run(JOB)) for _ in range(9)]
        await asyncio.sleep(0.05)
        counts = [len(proxy.jobs) for proxy in proxies]
        for proxy in proxies:
            proxy.gate.set()
        await asyncio.gather(*running)
        return counts

    assert run(work) == [3, 3, 3]


def test_a_picture_whose_engine_dies_is_made_by_another():
    async def work():
        dying, other = Proxy(0, 1.0), Proxy(1, 2.0)
        dying.outcome = ConnectionError()
        return await fleet_of(dying, other).run(JOB), other.jobs

    made, jobs = run(work)
    assert made.seed == 1
    assert 0 < jobs[0].deadline_s <= JOB.deadline_s
    assert dataclasses.replace(jobs[0], deadline_s=JOB.deadline_s) == JOB


def test_a_picture_is_made_anew_once_and_not_for_ever():
    async def work():
        proxies = [Proxy(number, float(number)) for number in range(4)]
        for proxy in proxies:
            proxy.outcome = ConnectionError()
        with pytest.raises(BackendUnavailable):
            await fleet_of(*proxies).run(JOB)
        return sum(len(proxy.jobs) for proxy in proxies)

    assert run(work) == 2


def test_a_picture_that_fails_is_not_made_anew():
    async def work():
        broken, other = Proxy(0, 1.0), Proxy(1, 2.0)
        broken.outcome = Failure("backend_error", "The picture could not be made.")
        with pytest.raises(BackendFailure):
            await fleet_of(broken, other).run(JOB)
        return other.jobs

    assert run(work) == []


def test_an_engine_without_room_leaves_it_to_the_next():
    async def work():
        full, other = Proxy(0, 1.0), Proxy(1, 2.0)
        full.admission = Refusal("backend_busy", "busy", 3.0)
        return await fleet_of(full, other).run(JOB)

    assert run(work).seed == 1


def test_where_all_are_busy_the_earliest_return_is_told():
    async def work():
        proxies = Proxy(0, 1.0), Proxy(1, 2.0)
        for proxy, after_s in zip(proxies, (7.0, 4.0), strict=True):
            proxy.admission = Refusal("backend_busy", "busy", after_s)
        with pytest.raises(BackendBusy) as raised:
            await fleet_of(*proxies).run(JOB)
        return raised.value

    assert run(work).retry_after_s == 4.0


def test_an_engine_that_takes_no_work_is_passed_over():
    async def work():
        ending, other = Proxy(0), Proxy(1, 50.0)
        ending.quote_ = None
        return await fleet_of(ending, other).run(JOB)

    assert run(work).seed == 1


def test_a_silent_engine_holds_nobody_up_twice_and_is_heard_when_it_speaks():
    async def work():
        silent, other = Proxy(0, 1.0), Proxy(1, 5.0)
        silent.is_silent = True
        fleet = fleet_of(silent, other)
        assert (await fleet.run(JOB)).seed == 1
        async with asyncio.timeout(PATIENCE_S / 2):
            assert (await fleet.run(JOB)).seed == 1
        silent.is_silent = False
        await asyncio.sleep(3 * PATIENCE_S)
        return await fleet.run(JOB)

    assert run(work).seed == 0


def test_engines_that_were_silent_before_they_had_started_are_asked_all_the_same():
    async def work():
        proxies = Proxy(0), Proxy(1, 2.0)
        fleet = fleet_of(*proxies)
        for proxy in proxies:
            proxy.is_silent = True
        with pytest.raises(BackendUnavailable):
            await fleet.health()
        for proxy in proxies:
            proxy.is_silent = False
        return await fleet.run(JOB)

    assert run(work).seed == 0


def test_an_engine_whose_health_is_seen_to_be_good_gets_work_at_once():
    async def work():
        late, other = Proxy(0), Proxy(1, 2.0)
        late.is_silent = True
        fleet = fleet_of(late, other)
        await fleet.health()
        late.is_silent = False
        await fleet.health()
        return await fleet.run(JOB)

    assert run(work).seed == 0


def test_where_no_engine_is_there_it_is_said_soon():
    async def work():
        proxies = Proxy(0), Proxy(1)
        for proxy in proxies:
            proxy.is_silent = True
        with pytest.raises(BackendUnavailable):
            await fleet_of(*proxies).run(JOB)

    run(work)


def test_the_health_of_a_fleet_counts_those_that_answer():
    async def work():
        silent = Proxy(2)
        silent.is_silent = True
        ending = Proxy(1)
        ending.health_ = EngineHealth(False, True, 0, 3, "ending")
        fleet = fleet_of(Proxy(0), ending, silent)
        return await fleet.health()

    health = run(work)
    assert (health.ready, health.alive, health.waiting, health.running) == (True, True, 1, 5)
    assert health.detail == "1 of 3 engines take work."


def test_a_fleet_of_which_nobody_answers_has_no_health():
    async def work():
        silent = Proxy(0)
        silent.is_silent = True
        with pytest.raises(BackendUnavailable):
            await fleet_of(silent).health()

    run(work)


OLD, NEW = {"dark": "/dark-1"}, {"dark": "/dark-2", "anime": "/anime-1"}


@pytest.mark.parametrize("trouble", ["It was made for another base.", ConnectionError()])
@pytest.mark.parametrize("known", ["from the start", "since it was served"])
def test_where_one_engine_does_not_take_the_styles_no_name_means_two_things(trouble, known):
    async def work():
        proxies = Proxy(0), Proxy(1), Proxy(2)
        fleet = fleet_of(*proxies, styles=OLD if known == "from the start" else None)
        for proxy in proxies:
            proxy.styles = dict(OLD)
        if known == "since it was served":
            await fleet.serve_styles(OLD)
        proxies[1].trouble = trouble
        with pytest.raises(BackendUnavailable):
            await fleet.serve_styles(NEW)
        return [proxy.styles["dark"] for proxy in proxies]

    assert run(work) == ["/dark-1"] * 3


def test_an_engine_that_heard_the_styles_and_did_not_say_so_is_told_when_it_is_heard_again():
    async def work():
        first, second = Proxy(0, 1.0), Proxy(1, 2.0)
        fleet = fleet_of(first, second, styles=OLD)
        second.trouble = ConnectionError()
        with pytest.raises(BackendUnavailable):
            await fleet.serve_styles(NEW)
        second.styles = dict(NEW)
        second.trouble = ""
        await second.has_styles.wait()
        return second.styles["dark"]

    assert run(work) == "/dark-1"


def test_an_engine_that_loads_styles_for_ever_is_not_waited_for():
    async def work():
        proxies = Proxy(0), Proxy(1)
        fleet = fleet_of(*proxies, styles=OLD, telling_s=PATIENCE_S)
        proxies[1].serve_styles = lambda _: asyncio.Event().wait()
        with pytest.raises(BackendUnavailable):
            await fleet.serve_styles(NEW)
        return proxies[0].styles

    assert run(work)["dark"] == "/dark-1"


def test_an_engine_that_comes_back_is_told_of_no_style_that_was_removed():
    async def work():
        killed, other = Proxy(0, 1.0), Proxy(1, 5.0)
        fleet = fleet_of(killed, other, styles=NEW)
        await fleet.serve_styles(OLD)
        killed.outcome, made = ConnectionError(), killed.outcome
        assert (await fleet.run(JOB)).seed == 1
        killed.outcome, killed.styles = made, {}
        killed.has_styles.clear()
        await killed.has_styles.wait()
        return killed.styles

    assert run(work) == OLD


def test_an_engine_that_comes_back_serves_what_the_others_do_before_it_gets_work():
    async def work():
        killed, other = Proxy(0, 1.0), Proxy(1, 5.0)
        fleet = fleet_of(killed, other, styles=OLD)
        await fleet.serve_styles(NEW)
        killed.outcome, made = ConnectionError(), killed.outcome
        assert (await fleet.run(JOB)).seed == 1
        killed.outcome, killed.styles, killed.trouble = made, dict(OLD), "not yet"
        await asyncio.sleep(3 * PATIENCE_S)
        assert (await fleet.run(JOB)).seed == 1
        killed.has_styles.clear()
        killed.trouble = ""
        await killed.has_styles.wait()
        await asyncio.sleep(PATIENCE_S)
        assert (await fleet.run(JOB)).seed == 0
        return killed.styles

    assert run(work) == NEW


def test_an_engine_that_comes_back_while_styles_are_taken_over_has_them_too():
    async def work():
        late, slow = Proxy(0), Proxy(1)
        fleet = fleet_of(late, slow, styles=OLD)
        late.is_silent = True
        await fleet.run(JOB)
        late.is_silent = False
        begun, gate = asyncio.Event(), asyncio.Event()
        serve = slow.serve_styles

        async def slowly(folders):
            begun.set()
            await gate.wait()
            return await serve(folders)

        slow.serve_styles = slowly
        reload = asyncio.ensure_future(fleet.serve_styles(NEW))
        await begun.wait()
        await asyncio.sleep(3 * PATIENCE_S)
        assert late.styles == NEW
        gate.set()
        await reload
        await asyncio.sleep(3 * PATIENCE_S)
        return late.styles

    assert run(work) == NEW
