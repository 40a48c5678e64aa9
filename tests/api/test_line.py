"""The end of what is written to a connection stays until it is let go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

import pytest

from iris.api.line import Line


class Connection:
    """A line to a client that reads when it is told to."""

    def __init__(self, line: Line, ours: socket.socket, theirs: socket.socket) -> None:
        self.line, self.ours, self.theirs = line, ours, theirs

    def fill(self) -> int:
        """Until the system takes no byte more; how many it took."""
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                taken += self.ours.send(bytes(65536))
        return taken

    def read(self, count: int) -> None:
        while count:
            count -= len(self.theirs.recv(min(count, 65536)))


@contextlib.asynccontextmanager
async def connection(patience_s=10.0):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname(), timeout=10)
        ours, _ = listener.accept()
    with theirs, ours.dup() as raw:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        yield Connection(Line(transport, patience_s), raw, theirs)
        transport.abort()
        await asyncio.sleep(0)


def test_all_but_the_last_byte_is_sent_and_that_one_when_it_is_let_go():
    async def work():
        async with connection() as c:
            c.line.write(b"ab")
            c.line.write(b"")
            c.line.write(b"cd")
            await asyncio.sleep(0.05)
            assert c.theirs.recv(10) == b"abc"
            c.line.close()
            c.line.let_go(lambda file, byte: os.write(file, bytes([byte])) and None)
            assert c.theirs.recv(10) == b"d"
            assert not c.line.is_closing()
            c.line.release()
            assert c.line.is_closing()

    asyncio.run(work())


def test_what_was_not_let_go_is_sent_at_the_release():
    async def work():
        async with connection() as c:
            c.line.write(b"ab")
            c.line.release()
            c.line.write(b"c")
            await asyncio.sleep(0.05)
            assert c.theirs.recv(10) == b"abc"

    asyncio.run(work())


def test_a_byte_that_was_not_taken_is_still_here():
    def refuse(file: int, byte: int) -> None:
        raise BlockingIOError

    async def work():
        async with connection() as c:
            c.line.write(b"a")
            with pytest.raises(BlockingIOError):
                c.line.let_go(refuse)
            c.line.release()
            await asyncio.sleep(0.05)
            assert c.theirs.recv(10) == b"a"

    asyncio.run(work())


def test_a_full_line_is_waited_for_until_the_client_reads():
    async def work():
        async with connection() as c:
            taken = c.fill()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(c.line.until_it_takes_more(), 0.2)
            waiting = asyncio.create_task(c.line.until_it_takes_more())
            await asyncio.to_thread(c.read, taken)
            await asyncio.wait_for(waiting, 10)
            assert c.ours.send(b"a") == 1

    asyncio.run(work())


def test_a_broken_line_is_waited_for_no_longer():
    async def work():
        async with connection() as c:
            c.fill()
            waiting = asyncio.create_task(c.line.until_it_takes_more())
            await asyncio.sleep(0.05)
            c.theirs.close()
            await asyncio.wait_for(waiting, 10)
            c.line.write(b"a")
            await asyncio.sleep(0.05)  # the loop is told
            with pytest.raises(ConnectionError):
                c.line.let_go(lambda file, byte: None)

    asyncio.run(work())


def test_a_client_that_takes_nothing_is_hung_up_on():
    async def work():
        async with connection(patience_s=0.3) as c:
            c.fill()
            await asyncio.wait_for(c.line.until_it_takes_more(), 10)
            assert c.line.is_closing()

    asyncio.run(work())


def test_a_line_that_this_side_hangs_up_on_is_waited_for_no_longer():
    async def work():
        async with connection() as c:
            c.fill()
            waiting = asyncio.create_task(c.line.until_it_takes_more())
            await asyncio.sleep(0.05)
            c.line.abort()
            await asyncio.wait_for(waiting, 10)

    asyncio.run(work())
