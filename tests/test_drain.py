import asyncio
import signal

import pytest

from iris.drain import Drain


@pytest.fixture
def ends():
    """What the server's own handlers were told."""
    told = []
    before = {
        number: signal.signal(number, lambda got, _: told.append(got))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    yield told
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_is_told_to_end_when_everything_is_finished(ends, number):
    async def serve():
        finished = asyncio.Event()
        Drain(finished.wait).install()
        signal.raise_signal(number)
        await asyncio.sleep(0.05)
        assert ends == []
        finished.set()
        await asyncio.sleep(0.05)
        assert ends == [number]

    asyncio.run(serve())


def test_a_process_group_told_twice_still_finishes(ends):
    """A terminal sends SIGINT to every process, and the arbiter SIGTERM on top of it."""

    async def serve():
        finished = asyncio.Event()
        Drain(finished.wait).install()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0.05)
        assert ends == []
        finished.set()
        await asyncio.sleep(0.05)
        assert ends == [signal.SIGINT]

    asyncio.run(serve())


def test_who_interrupts_twice_does_not_wait(ends):
    async def serve():
        Drain(asyncio.Event().wait).install()
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0.01)
        signal.raise_signal(signal.SIGINT)
        assert ends == [signal.SIGINT]

    asyncio.run(serve())


def test_a_server_ends_even_when_finishing_fails(ends):
    async def broken():
        raise RuntimeError("x")

    async def serve():
        drain = Drain(broken)
        drain.install()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0.05)
        assert ends == [signal.SIGTERM]
        with pytest.raises(RuntimeError):
            await drain._task

    asyncio.run(serve())
