import asyncio

from iris.api.requests import Requests


def test_those_that_are_open_are_waited_for_and_no_others():
    async def work():
        requests = Requests()
        await requests.finished()  # there are none

        async def serve(until):
            with requests.one():
                await until.wait()

        first, second = asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(serve(first))]
        await asyncio.sleep(0)
        finished = asyncio.create_task(requests.finished())
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(serve(second)))
        await asyncio.sleep(0.01)
        assert not finished.done()
        first.set()
        await asyncio.wait_for(finished, 10)
        second.set()
        await asyncio.gather(*tasks)

    asyncio.run(work())


def test_one_that_fails_has_ended():
    async def work():
        requests = Requests()

        async def fail():
            with requests.one():
                raise ZeroDivisionError

        await asyncio.gather(asyncio.create_task(fail()), return_exceptions=True)
        await asyncio.wait_for(requests.finished(), 10)

    asyncio.run(work())
