"""HTTP/1.1 on the wire: requests whose headers never end are ended, and what is not HTTP at all
is answered in the same envelope as everything else.

uvicorn bounds neither the time a request line may take nor the shape of its own 400.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from iris.api.errors import answer_for, envelope
from iris.api.line import Line
from iris.api.log import log_request
from iris.api.record import RequestRecord
from iris.errors import InvalidRequest

HEADER_TIMEOUT_S = 20.0
_HANDED_OVER = "iris.handed_over"
_KEEP_BACK = "iris.keep_back"


class BoundedH11Protocol(H11Protocol):
    """uvicorn's protocol with a time limit for the headers of every request."""

    header_timeout_s = HEADER_TIMEOUT_S
    _header_timer: asyncio.TimerHandle | None = None
    _is_broken = False
    _line: Line | None = None  # while the end of a reply is kept back
    _is_next_due = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._plain_app = self.app
        self.app = self._app_that_can_ask

    async def _app_that_can_ask(self, scope: Any, receive: Any, send: Any) -> None:
        scope[_HANDED_OVER] = partial(self._hand_over, self.cycle)
        scope[_KEEP_BACK] = partial(self._keep_back, self.cycle)
        await self._plain_app(scope, receive, send)

    @contextmanager
    def _keep_back(self, cycle: Any) -> Iterator[Line | None]:
        if _has_tls(self.transport):
            yield None  # a byte is no byte on the line
            return
        below = self.transport
        line: Any = Line(below)
        self._line = cycle.transport = self.transport = line
        try:
            yield line
        finally:
            self._line, self.transport = None, below
            line.release()
            if self._is_next_due:
                self._is_next_due = False
                self.on_response_complete()

    def on_response_complete(self) -> None:
        """Go on to what is asked for next, but not while the end of the last reply is here."""
        if self._line is not None:
            self._is_next_due = True
            return
        super().on_response_complete()
        if not self._is_between_requests():
            self._headers_are_here()

    async def _hand_over(self, cycle: Any) -> bool:
        """Wait until the system has the whole answer of this cycle; whether it took it."""
        while not self._is_broken and self.transport.get_write_buffer_size():
            await self.flow.drain()
        if self.transport.is_closing():
            await asyncio.sleep(0)  # a broken connection is told in the next turn of the loop
        return cycle.response_complete and not cycle.disconnected and not self._is_broken

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # So that a drained one is empty. TLS counts as full what has as much as its limit.
        transport.set_write_buffer_limits(high=1 if _has_tls(transport) else 0, low=0)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_broken = exc is not None
        self._headers_are_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._header_timer is None and self._is_between_requests():
            self._await_headers()  # a kept-alive connection starts its next request
        super().data_received(data)
        if not self._is_between_requests():
            self._headers_are_here()

    def _should_upgrade(self) -> bool:
        """Never: an `Upgrade` that a server does not know is ignored, and the request answered."""
        return False

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP request, or headers over 64 KiB."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # an answer is already under way
            return
        error = InvalidRequest(
            "This is not a valid HTTP/1.1 request, or its headers are over 64 KiB."
        )
        status = answer_for(InvalidRequest).status
        record = RequestRecord(method="", status=status, code=error.code)
        log_request(record)
        body = json.dumps(envelope(error)).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("x-request-id", record.request_id),
            ("connection", "close"),
        ]
        for event in (
            h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status]),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _is_between_requests(self) -> bool:
        cycle: Any = self.cycle  # None before the first request
        return cycle is None or cycle.response_complete

    def _await_headers(self) -> None:
        self._header_timer = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def _headers_are_here(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


def _has_tls(transport: asyncio.BaseTransport) -> bool:
    return transport.get_extra_info("ssl_object") is not None


async def was_handed_over(scope: Scope) -> bool:
    """Wait until the system has the whole answer that was sent; False: the client was gone.

    Under a server that does not speak through this protocol, what was sent counts as handed over.
    """
    ask: Callable[[], Awaitable[bool]] | None = scope.get(_HANDED_OVER)
    return ask is None or await ask()


@contextmanager
def keeping_back(scope: Scope) -> Iterator[Line | None]:
    """Keep back the end of the answer until the block ends; None under a server that cannot."""
    keep: Callable[[], AbstractContextManager[Line | None]] = scope.get(_KEEP_BACK, nullcontext)
    with keep() as line:
        yield line
