"""One connection while the end of a reply is kept back on it.

A process that is killed between handing a reply over and writing that down leaves it to chance who
is right. So the last byte stays in this process until it is to be written down: a client that lacks
it has no reply, whatever becomes of the process.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any


class Line:
    """A transport that keeps the last byte of what is written, until it is let go.

    Whatever else is asked of it is asked of the transport below.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
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

    def let_go(self) -> None:
        """Give the last byte to the system. Raises OSError: it did not take it."""
        self._cork(True)
        self._transport.write(self._end)
        self._end = b""
        if self._transport.get_write_buffer_size() or self._transport.is_closing():
            raise BlockingIOError

    def release(self) -> None:
        """Be nothing but the transport from here on."""
        self._is_over = True
        if self._end:
            self._transport.write(self._end)
            self._end = b""
        self._cork(False)
        if self._is_to_close:
            self._transport.close()

    def _cork(self, is_corked: bool) -> None:
        """Let the system wait for more before it sends what fills no packet.

        A client that gets the last byte wakes up, and on a busy host runs before whoever sent it.
        If this process dies, the system sends it.
        """
        with suppress(OSError, AttributeError):  # a connection that is gone, another system
            line: socket.socket = self._transport.get_extra_info("socket")
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, is_corked)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
