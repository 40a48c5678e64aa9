"""One connection while the end of a reply is kept back on it.

A process that is killed between handing a reply over and writing that down leaves it to chance who
is right. So the last byte stays in this process until it is to be marked as sent: a client that
lacks it has no reply, whatever becomes of the process.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any

from iris.accounts.mark import SendByte

_LOOK_S = 0.2  # between looks whether the connection is closing


class Line:
    """A transport that keeps the last byte of what is written, until it is let go.

    Whatever else is asked of it is asked of the transport below.
    """

    def __init__(self, transport: asyncio.Transport, patience_s: float) -> None:
        """patience_s: for a client of which the system takes nothing, see `until_it_takes_more`."""
        self._transport = transport
        self._patience_s = patience_s
        self._end = b""
        self._is_over = False
        self._is_to_close = False

    def write(self, data: bytes) -> None:
        if self._is_over or not data:
            self._transport.write(data)
            return
        self._transport.write(self._end + data[:-1])
        self._end = data[-1:]

    def close(self) -> None:
        """Close once everything was sent."""
        if self._is_over:
            self._transport.close()
        else:
            self._is_to_close = True

    def let_go(self, send: SendByte) -> None:
        """Have the last byte sent; all before it is with the system.

        Raises:
            BlockingIOError: the system does not take it at present, see `until_it_takes_more`.
            OSError: the connection is broken.
        """
        if self._transport.is_closing():
            raise ConnectionResetError
        send(self._file(), self._end[0])
        self._end = b""

    async def until_it_takes_more(self) -> None:
        """Wait until the system takes another byte, or the connection is over.

        Whoever takes nothing for as long as is had patience with is hung up on.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._patience_s
        is_ready = asyncio.Event()
        # A second number for the same connection: the loop gives nobody else that of a transport.
        watched = os.dup(self._file())
        loop.add_writer(watched, is_ready.set)
        try:
            while not is_ready.is_set() and not self._transport.is_closing():
                if loop.time() >= until_s:
                    self._transport.abort()
                    return
                with suppress(TimeoutError):  # nobody tells when this side hangs up
                    await asyncio.wait_for(is_ready.wait(), _LOOK_S)
        finally:
            loop.remove_writer(watched)
            os.close(watched)

    def release(self) -> None:
        """Be nothing but the transport from here on."""
        self._is_over = True
        if self._end:
            self._transport.write(self._end)
            self._end = b""
        if self._is_to_close:
            self._transport.close()

    def _file(self) -> int:
        number: int = self._transport.get_extra_info("socket").fileno()
        return number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
